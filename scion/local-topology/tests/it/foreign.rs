//! Clients and SCION stacks of other projects.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, SendStream};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use scion_local_topology::{LinkState, Topology};
use scion_quic::h3::client::Http3Client;
use scion_quic::quic::config::QuicConfig;
use scion_quic::socket::GenericScionUdpSocket;
use scion_stack::{ScionStackBuilder, UdpScionSocket};
use scion_tracker_core::address::{IsdAs, ScionAddr};
use scion_tracker_core::codec::reply::parse_announce_reply;
use sciparse::address::ip_socket_addr::ScionSocketIpAddr;
use sciparse::identifier::isd_asn::IsdAsn;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::common::{PATIENCE, Tracker, ia, peers, two_isds};

/// A socket of Anapaya's SDK in an AS. It asks the endhost API, not the daemon.
async fn socket(topology: &Topology, ia: IsdAs) -> UdpScionSocket {
    let ases = &topology.config().ases;
    let api = ases
        .iter()
        .find(|it| it.ia == ia)
        .unwrap()
        .endhost_api
        .unwrap();
    let stack = ScionStackBuilder::new()
        .with_endhost_api(format!("http://{api}").parse().unwrap())
        .with_auth_token(pocketscion::util::dev_auth_token())
        .build();
    stack.await.unwrap().bind(None).await.unwrap()
}

fn remote(address: ScionAddr) -> ScionSocketIpAddr {
    let ia = IsdAsn(address.host.ia.to_u64());
    ScionSocketIpAddr::new(ia, address.host.ip(), address.port)
}

/// The target of an announce. It claims another AS, which has no effect over SCION.
fn target(port: u16) -> String {
    format!(
        "/announce?info_hash={}&peer_id=-ST0001-000000000000&port={port}&left=1&ia=1-1",
        "%aa".repeat(20)
    )
}

/// The certificate contains the names of this machine.
const NAME: &str = "localhost";

/// The HTTP/3 client of Anapaya's SDK. It first proposes a QUIC version of its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_http3_client_of_the_sdk_announces() {
    let topology = two_isds().await;
    let tracker = Tracker::start("1-ff00:0:111");
    let mut known = Vec::new();
    for (from, port) in [
        ("1-ff00:0:111", 7001),
        ("1-ff00:0:112", 7002),
        ("2-ff00:0:212", 7003),
    ] {
        let socket: Arc<dyn GenericScionUdpSocket> = Arc::new(socket(&topology, ia(from)).await);
        let config = QuicConfig::builder()
            .ca_certs_file(tracker.authority().to_str().unwrap())
            .build();
        let client =
            Http3Client::with_config(remote(tracker.scion), socket, Some(NAME.into()), config);
        let request = http::Request::get(format!("https://{NAME}{}", target(port)));
        let asked = client.request(request.body(String::new()).unwrap());
        let response = timeout(PATIENCE, asked).await.unwrap().unwrap();
        assert_eq!(response.status(), 200, "{from}");
        let (body, _) = response.into_body().bytes(Some(1 << 16)).await.unwrap();
        let mut given = peers(&parse_announce_reply(&body).unwrap());
        given.sort_unstable();
        assert_eq!(given, known, "{from}");
        known.push((ia(from), port));
    }
    tracker.stop().await;
    topology.stop().await;
}

/// The SDK combines segments itself, over the one remaining link.
#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_announces_over_a_peering_link() {
    let topology = two_isds().await;
    for link in ["core-a", "core-b"] {
        topology.set_link(link, LinkState::Down).unwrap();
    }
    let tracker = Tracker::start("1-ff00:0:112");
    for (from, port) in [("2-ff00:0:211", 7001), ("2-ff00:0:212", 7002)] {
        let asking = async {
            let mut client = StreamPair::connect(&topology, &tracker, from).await;
            client.send(last_request(&tracker, port).as_bytes()).await;
            client.last_reply().await
        };
        let reply = timeout(PATIENCE, asking).await.unwrap();
        let given = parse_announce_reply(&reply).unwrap().peers.len();
        assert_eq!(given, usize::from(port - 7001), "{from}");
    }
    tracker.stop().await;
    topology.stop().await;
}

/// Forwards datagrams between a plain QUIC client and a SCION socket. Returns the address for the
/// client.
async fn relay(scion: UdpScionSocket, to: ScionSocketIpAddr) -> (SocketAddr, JoinSet<()>) {
    let loopback = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = loopback.local_addr().unwrap();
    let (scion, loopback) = (Arc::new(scion), Arc::new(loopback));
    let (sender, client) = watch::channel(None);
    let mut tasks = JoinSet::new();
    let (out, inner) = (Arc::clone(&scion), Arc::clone(&loopback));
    tasks.spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = inner.recv_from(&mut buffer).await {
            sender.send_replace(Some(from));
            out.send_to(&buffer[..length], to).await.unwrap();
        }
    });
    tasks.spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, _)) = scion.recv_from(&mut buffer).await {
            let client = *client.borrow();
            if let Some(client) = client {
                loopback.send_to(&buffer[..length], client).await.unwrap();
            }
        }
    });
    (address, tasks)
}

/// A client like that of scion-apps in Go (`quicutil.SingleStream`, ALPN `qs`): HTTP/1.1 on one
/// unidirectional stream per direction. A side that has read the other's stream to its end opens
/// one more and ends it at once.
pub(crate) struct StreamPair {
    connection: Connection,
    send: SendStream,
    _endpoint: Endpoint,
    _relay: JoinSet<()>,
}

impl StreamPair {
    pub(crate) async fn connect(topology: &Topology, tracker: &Tracker, from: &str) -> Self {
        let authority = CertificateDer::from_pem_file(tracker.authority()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority).unwrap();
        let mut tls = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"qs".to_vec()];
        let crypto = Arc::new(QuicClientConfig::try_from(tls).unwrap());
        let socket = socket(topology, ia(from)).await;
        let (address, relay) = relay(socket, remote(tracker.scion)).await;
        let mut endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(crypto));
        let connection = endpoint.connect(address, NAME).unwrap().await.unwrap();
        Self {
            send: connection.open_uni().await.unwrap(),
            connection,
            _endpoint: endpoint,
            _relay: relay,
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.unwrap();
    }

    /// The body of the reply, which is the last one. Ends the connection.
    pub(crate) async fn last_reply(mut self) -> Vec<u8> {
        let mut receive = self.connection.accept_uni().await.unwrap();
        let reply = receive.read_to_end(1 << 16).await.unwrap();
        // Acknowledge, end the stream, and wait for the other side's acknowledgement.
        let mut acknowledging = self.connection.open_uni().await.unwrap();
        acknowledging.finish().unwrap();
        self.send.finish().unwrap();
        let mut acknowledgement = self.connection.accept_uni().await.unwrap();
        assert!(acknowledgement.read_to_end(0).await.unwrap().is_empty());
        self.connection.close(0u32.into(), b"");
        let text = String::from_utf8_lossy(&reply);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        let head = reply.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
        reply[head + 4..].to_vec()
    }
}

/// An announce as these clients send it, with their form of Host.
pub(crate) fn last_request(tracker: &Tracker, port: u16) -> String {
    format!(
        "GET {} HTTP/1.1\r\nHost: [{}]:80\r\nConnection: close\r\n\r\n",
        target(port),
        tracker.scion.host
    )
}

/// Announces from every AS. Each receives all earlier peers.
#[tokio::test(flavor = "multi_thread")]
async fn every_as_announces_over_http1_on_a_quic_stream_pair() {
    let topology = two_isds().await;
    let tracker = Tracker::start("1-ff00:0:111");
    let mut known = Vec::new();
    let ases = &topology.config().ases;
    assert_eq!(ases.len(), 6);
    for (it, port) in ases.iter().zip(7001..) {
        let from = it.ia.to_string();
        let asking = async {
            let mut client = StreamPair::connect(&topology, &tracker, &from).await;
            client.send(last_request(&tracker, port).as_bytes()).await;
            client.last_reply().await
        };
        let reply = timeout(PATIENCE, asking).await.unwrap();
        let mut given = peers(&parse_announce_reply(&reply).unwrap());
        given.sort_unstable();
        assert_eq!(given, known, "{from}");
        known.push((it.ia, port));
        known.sort_unstable();
    }
    let stats = tracker.handle.stats();
    assert_eq!(stats.registry.leechers, known.len() as u64, "{stats:?}");
    tracker.stop().await;
    topology.stop().await;
}
