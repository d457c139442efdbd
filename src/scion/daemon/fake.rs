//! A daemon for tests: serves HTTP/2 with the h2 crate and gives the answers that a test sets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{BufMut as _, Bytes};
use http::{HeaderMap, HeaderValue, Response};
use parking_lot::Mutex;
use prost::Message as _;
use scion_tracker_core::address::IsdAs;
use tokio::net::TcpListener;

use super::messages::{
    AsRequest, AsResponse, Duration, Interface, InterfacesResponse, Path, PathInterface,
    PathsRequest, PathsResponse, PortRangeResponse, Timestamp, Underlay,
};

/// The answer to a call.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Option<HeaderMap>,
}

impl Answer {
    /// A successful gRPC answer.
    pub(super) fn message(message: &impl prost::Message) -> Self {
        let message = message.encode_to_vec();
        let mut body = vec![0];
        body.put_u32(message.len() as u32);
        body.extend(message);
        Self {
            status: 200,
            headers: HeaderMap::new(),
            body,
            trailers: Some(status("0", "")),
        }
    }

    /// An error without a body.
    pub(super) fn error(code: &'static str, text: &'static str) -> Self {
        Self {
            status: 200,
            headers: status(code, text),
            body: Vec::new(),
            trailers: None,
        }
    }
}

pub(super) fn status(code: &'static str, text: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", HeaderValue::from_static(code));
    headers.insert("grpc-message", HeaderValue::from_static(text));
    headers
}

/// Serves until the runtime of the test ends. `answer` gets the method and the message of the
/// request.
pub(super) async fn serve(
    answer: impl Fn(&str, &[u8]) -> Answer + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else {
                    return;
                };
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let answer = Arc::clone(&answer);
                    // The connection must be polled while the body is read.
                    tokio::spawn(async move {
                        let (head, mut body) = request.into_parts();
                        assert_eq!(head.headers["te"], "trailers");
                        assert_eq!(head.headers["content-type"], "application/grpc");
                        let mut bytes = Vec::new();
                        while let Some(chunk) = body.data().await {
                            bytes.extend_from_slice(&chunk.unwrap());
                        }
                        let service = "/proto.daemon.v1.DaemonService/";
                        let method = head.uri.path().strip_prefix(service).unwrap();
                        let answer = answer(method, &bytes[5..]);
                        let mut reply = Response::new(());
                        *reply.status_mut() = answer.status.try_into().unwrap();
                        *reply.headers_mut() = answer.headers;
                        let bare = answer.body.is_empty() && answer.trailers.is_none();
                        let mut stream = respond.send_response(reply, bare).unwrap();
                        if !bare {
                            let last = answer.trailers.is_none();
                            stream.send_data(Bytes::from(answer.body), last).unwrap();
                        }
                        if let Some(trailers) = answer.trailers {
                            stream.send_trailers(trailers).unwrap();
                        }
                    });
                }
            });
        }
    });
    addr
}

/// The knowledge of a well-behaved daemon. A test may change it at any time.
#[derive(Debug)]
pub(crate) struct Knows {
    pub(crate) ia: IsdAs,
    pub(crate) ports: (u32, u32),
    pub(crate) interfaces: Vec<(u64, String)>,
    paths: Vec<Path>,
    /// Paths that are only returned when fresh ones are requested.
    fresh: Vec<Path>,
    /// Calls of `Paths`, and how many of them requested fresh ones.
    pub(crate) asked: (usize, usize),
}

/// A well-behaved daemon.
#[derive(Debug, Clone)]
pub(crate) struct FakeDaemon {
    pub(crate) addr: SocketAddr,
    pub(crate) knows: Arc<Mutex<Knows>>,
}

impl FakeDaemon {
    /// Starts a daemon of this AS with all ports.
    pub(crate) async fn start(ia: &str) -> Self {
        let knows = Arc::new(Mutex::new(Knows {
            ia: ia.parse().unwrap(),
            ports: (1, 65535),
            interfaces: Vec::new(),
            paths: Vec::new(),
            fresh: Vec::new(),
            asked: (0, 0),
        }));
        let shared = Arc::clone(&knows);
        let addr = serve(move |method, request| shared.lock().answer(method, request)).await;
        Self { addr, knows }
    }

    /// Adds a path: its bytes, its border router, and its interfaces in the form `1-ff00:0:110#1`.
    pub(crate) fn add_path(&self, raw: Vec<u8>, next_hop: SocketAddr, interfaces: &[&str]) {
        self.knows
            .lock()
            .paths
            .push(path(raw, next_hop, interfaces));
    }

    /// Changes the MTU of this path.
    #[cfg(feature = "cli")]
    pub(crate) fn set_mtu(&self, path: usize, mtu: u32) {
        self.knows.lock().paths[path].mtu = mtu;
    }

    /// Adds a path like [`FakeDaemon::add_path`], but only for requests of fresh paths.
    pub(crate) fn add_fresh_path(&self, raw: Vec<u8>, next_hop: SocketAddr, interfaces: &[&str]) {
        self.knows
            .lock()
            .fresh
            .push(path(raw, next_hop, interfaces));
    }
}

/// A path that expires in six hours, with 10 ms between any two interfaces.
pub(super) fn path(raw: Vec<u8>, next_hop: SocketAddr, interfaces: &[&str]) -> Path {
    let interfaces: Vec<_> = interfaces
        .iter()
        .map(|text| {
            let (ia, id) = text.split_once('#').unwrap();
            PathInterface {
                isd_as: ia.parse::<IsdAs>().unwrap().to_u64(),
                id: id.parse().unwrap(),
            }
        })
        .collect();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    let part = Duration {
        seconds: 0,
        nanos: 10_000_000,
    };
    Path {
        raw,
        interface: Some(Interface {
            address: Some(Underlay {
                address: next_hop.to_string(),
            }),
        }),
        latency: vec![part; interfaces.len().saturating_sub(1)],
        interfaces,
        mtu: 1472,
        expiration: Some(Timestamp {
            seconds: now + 6 * 3600,
        }),
    }
}

impl Knows {
    fn answer(&mut self, method: &str, request: &[u8]) -> Answer {
        match method {
            "AS" => {
                assert_eq!(AsRequest::decode(request).unwrap().isd_as, 0);
                let isd_as = self.ia.to_u64();
                Answer::message(&AsResponse { isd_as })
            }
            "PortRange" => Answer::message(&PortRangeResponse {
                dispatched_port_start: self.ports.0,
                dispatched_port_end: self.ports.1,
            }),
            "Interfaces" => {
                let interface = |address: &String| Interface {
                    address: Some(Underlay {
                        address: address.clone(),
                    }),
                };
                let interfaces = self.interfaces.iter();
                Answer::message(&InterfacesResponse {
                    interfaces: interfaces
                        .map(|(id, address)| (*id, interface(address)))
                        .collect(),
                })
            }
            "Paths" => {
                let request = PathsRequest::decode(request).unwrap();
                assert_eq!(request.source_isd_as, self.ia.to_u64());
                self.asked.0 += 1;
                self.asked.1 += usize::from(request.refresh);
                let mut paths = self.paths.clone();
                if request.refresh {
                    paths.extend_from_slice(&self.fresh);
                }
                Answer::message(&PathsResponse { paths })
            }
            _ => Answer::error("12", "unknown method"),
        }
    }
}
