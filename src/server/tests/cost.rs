//! What an announce costs the server over SCION, against IP: measured, in one run.
//!
//! ```text
//! cargo test --release --lib -- --ignored --nocapture cost_of_scion
//! ```
//! Client and server are in one process, on threads of their own; what is taken is the CPU time of the
//! server's threads (/proc/self/task/*/schedstat). The loads take turns, so that what else the machine
//! does hits all of them, and medians over the rounds are compared. No router is in the way: packets
//! carry real paths and go from socket to socket.

use std::fs;
use std::io::IoSlice;

use quinn::Connection;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use scion_tracker_core::codec::connection::ConnectionId;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::Counter;

/// Threads whose CPU time counts: the runtime of the server, and its UDP workers, which name themselves.
const SERVER: &str = "cost-server";
const WORKER: &str = "udp-";

const ROUNDS: usize = 9;
const UDP_ANNOUNCES: usize = 100_000;
const HTTP3_ANNOUNCES: usize = 20_000;
/// Datagrams on their way at once, sent with one call.
const BURST: usize = 64;
/// Connections of HTTP/3, each from a socket of its own and with one request on its way.
const CONNECTIONS: usize = 16;
/// Peers of each load: as many swarms as there are peers in one.
const SWARMS: usize = 40;

/// CPU time of the server so far, in nanoseconds.
fn server_time() -> u64 {
    let mut total = 0;
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        // A thread may end between the two.
        let Ok(name) = fs::read_to_string(task.join("comm")) else {
            continue;
        };
        if name.starts_with(SERVER) || name.starts_with(WORKER) {
            let times = fs::read_to_string(task.join("schedstat")).unwrap();
            total += times.split(' ').next().unwrap().parse::<u64>().unwrap();
        }
    }
    total
}

fn runtime(name: &str) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).thread_name(name).enable_all();
    builder.build().unwrap()
}

/// The announces of a load: swarm, port.
fn announces() -> impl Iterator<Item = (InfoHash, u16)> {
    (0..SWARMS * SWARMS).map(|nth| {
        let hash = [(nth % SWARMS) as u8; 20];
        (InfoHash(hash), 10_000 + nth as u16)
    })
}

/// BEP 15 from one socket, in SCION packets or plain.
struct Udp {
    socket: UdpSocket,
    requests: Vec<Vec<u8>>,
    next: usize,
}

impl Udp {
    fn new(
        to: SocketAddr,
        wrap: impl Fn(u16, &[u8]) -> Vec<u8>,
        unwrap: impl Fn(&[u8]) -> Vec<u8>,
    ) -> Self {
        let socket = UdpSocket::bind(loopback()).unwrap();
        socket.connect(to).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let port = socket.local_addr().unwrap().port();
        let mut request = Vec::new();
        write_connect_request(TransactionId(1), &mut request);
        socket.send(&wrap(port, &request)).unwrap();
        let mut reply = [0; 2048];
        let length = socket.recv(&mut reply).unwrap();
        let reply = unwrap(&reply[..length]);
        let Reply::Connect { connection, .. } = parse_reply(&reply, Layout::Ip4).unwrap() else {
            panic!("{reply:?}");
        };
        let requests = announces()
            .map(|(hash, announced)| wrap(port, &Self::announce(connection, hash, announced)))
            .collect();
        Self {
            socket,
            requests,
            next: 0,
        }
    }

    fn announce(connection: ConnectionId, hash: InfoHash, port: u16) -> Vec<u8> {
        let mut id = [b'x'; 20];
        id[18..].copy_from_slice(&port.to_be_bytes());
        let announce = AnnounceRequest::new(hash, PeerId(id), port, 1);
        let mut request = Vec::new();
        write_announce_request(connection, TransactionId(1), &announce, "", &mut request);
        request
    }

    /// Announces so often, and returns how many got an answer.
    fn run(&mut self, announces: usize) -> usize {
        let mut answered = 0;
        let mut reply = [0; 2048];
        for _ in 0..announces / BURST {
            let burst: [&[u8]; BURST] =
                std::array::from_fn(|nth| &*self.requests[(self.next + nth) % self.requests.len()]);
            self.next += BURST;
            let slices = burst.map(|request| [IoSlice::new(request)]);
            let mut control: [_; BURST] = std::array::from_fn(|_| SendAncillaryBuffer::default());
            let mut headers: Vec<_> = slices
                .iter()
                .zip(&mut control)
                .map(|(slice, control)| MMsgHdr::new(slice, control))
                .collect();
            let mut sent = 0;
            while sent < BURST {
                sent += sendmmsg(&self.socket, &mut headers[sent..], SendFlags::empty()).unwrap();
            }
            for _ in 0..BURST {
                // One that is lost is not counted.
                let Ok(length) = self.socket.recv(&mut reply) else {
                    break;
                };
                assert!(length >= 20);
                answered += 1;
            }
        }
        answered
    }
}

/// HTTP/3 on connections that are kept.
struct Http3 {
    connections: Vec<Connection>,
    requests: Arc<[Vec<u8>]>,
}

impl Http3 {
    async fn new(connections: Vec<Connection>, more: &str) -> Self {
        for connection in &connections {
            let mut control = connection.open_uni().await.unwrap();
            // The control stream, and settings that say nothing (RFC 9114 section 6.2.1).
            control.write_all(&[0x00, 0x04, 0x00]).await.unwrap();
            // Ending it would be an error.
            std::mem::forget(control);
        }
        let requests = announces()
            .map(|(InfoHash(hash), port)| {
                let hash: String = hash.iter().map(|byte| format!("%{byte:02x}")).collect();
                request(&format!(
                    "/announce?info_hash={hash}&peer_id=-XX0001-0000000{port:05}&port={port}&uploaded=0&downloaded=0&left=1&compact=1{more}"
                ))
            })
            .collect();
        Self {
            connections,
            requests,
        }
    }

    async fn run(&self, announces: usize) {
        let tasks = TaskTracker::new();
        for (number, connection) in self.connections.iter().enumerate() {
            let connection = connection.clone();
            let requests = Arc::clone(&self.requests);
            tasks.spawn(async move {
                for nth in 0..announces / CONNECTIONS {
                    let request = &requests[(number + nth * CONNECTIONS) % requests.len()];
                    let (mut send, mut receive) = connection.open_bi().await.unwrap();
                    send.write_all(request).await.unwrap();
                    send.finish().unwrap();
                    let reply = receive.read_to_end(65536).await.unwrap();
                    assert!(reply.len() > 60);
                }
            });
        }
        tasks.close();
        tasks.wait().await;
    }
}

/// A GET in a HEADERS frame, with the static table and literals alone (RFC 9204 section 4.5).
fn request(target: &str) -> Vec<u8> {
    fn literal(first: u8, value: &str, out: &mut Vec<u8>) {
        out.push(first);
        match value.len().checked_sub(127) {
            None => out.push(value.len() as u8),
            Some(mut rest) => {
                out.push(127);
                while rest >= 128 {
                    out.push(0x80 | (rest % 128) as u8);
                    rest /= 128;
                }
                out.push(rest as u8);
            }
        }
        out.extend_from_slice(value.as_bytes());
    }
    // No dynamic table; `:method: GET`, `:scheme: https`; `:authority` and `:path` by name.
    let mut fields = vec![0, 0, 0xd1, 0xd7];
    literal(0x50, "tracker.example", &mut fields);
    literal(0x51, target, &mut fields);
    let mut frame = vec![0x01];
    frame.extend_from_slice(&(fields.len() as u16 | 0x4000).to_be_bytes());
    frame.extend_from_slice(&fields);
    frame
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "a measurement: to be run in release mode, on a machine that is quiet"]
fn cost_of_scion() {
    let server = runtime(SERVER);
    let clients = runtime("cost-client");
    let mut config = config();
    config.workers = Some(std::num::NonZeroUsize::MIN);
    config.registry.peers_per_source = u32::MAX;
    config.registry.peers_per_source_in_torrent = u32::MAX;
    // As trackers run: the ISD-AS of clients over SCION is proven.
    config.scion.routers = vec!["127.0.0.0/8".parse().unwrap()];
    config.listen.udp = vec![loopback().into()];
    config.listen.http3 = vec![loopback().into()];
    let tracker = {
        let _inside = server.enter();
        start_with(config)
    };

    let mut udp_ip = Udp::new(
        tracker.udp.unwrap(),
        |_, request| request.to_vec(),
        <[u8]>::to_vec,
    );
    let way = path(1);
    let mut udp_scion = Udp::new(
        tracker.underlay(),
        |port, request| {
            let from = host("1-ff00:0:111,[10.0.0.2]");
            let from = ScionAddr::new(from.ia, from.ip(), port).unwrap();
            let template = Template::new(from, tracker.scion, Path::parse(&way).unwrap()).unwrap();
            let mut packet = Vec::new();
            template.write(request, &mut packet).unwrap();
            packet
        },
        |packet| match parse(packet).unwrap().message {
            Message::Udp(udp) => udp.payload.to_vec(),
            Message::Scmp(scmp) => panic!("{scmp:?}"),
        },
    );
    let (http3_ip, http3_scion) = clients.block_on(async {
        let (mut ip, mut scion) = (Vec::new(), Vec::new());
        for _ in 0..CONNECTIONS {
            let endpoint = quinn::Endpoint::client(loopback()).unwrap();
            let config = tracker.client_config(b"h3");
            let connecting = endpoint.connect_with(config, tracker.http3.unwrap(), "localhost");
            ip.push(connecting.unwrap().await.unwrap());
            let connected = tracker
                .connect("1-ff00:0:111,[10.0.0.2]", &way, b"h3")
                .await;
            scion.push(connected.unwrap());
        }
        (
            Http3::new(ip, "").await,
            Http3::new(scion, "&scion=1").await,
        )
    });

    let mut costs: [Vec<f64>; 4] = Default::default();
    let served = |counter| tracker.handle.stats().counters.get(counter) as usize;
    for round in 0..=ROUNDS {
        for (kind, costs) in costs.iter_mut().enumerate() {
            let before = server_time();
            let answered = match kind {
                0 => udp_ip.run(UDP_ANNOUNCES),
                1 => udp_scion.run(UDP_ANNOUNCES),
                _ => {
                    let before = served(Counter::Http3Announces);
                    let load = if kind == 2 { &http3_ip } else { &http3_scion };
                    clients.block_on(load.run(HTTP3_ANNOUNCES));
                    served(Counter::Http3Announces) - before
                }
            };
            let cost = (server_time() - before) as f64 / answered as f64 / 1000.0;
            // The first round fills the swarms.
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    let [udp_ip, udp_scion, http3_ip, http3_scion] = &costs;
    let report: Vec<_> = [("UDP", udp_ip, udp_scion), ("HTTP/3", http3_ip, http3_scion)]
        .map(|(name, ip, scion)| {
            let ratios = ip.iter().zip(scion).map(|(ip, scion)| scion / ip).collect();
            format!(
                "{name}: {:.2} s of server CPU per million announces over IP, {:.2} over SCION, ratio {:.3}",
                median(ip.clone()),
                median(scion.clone()),
                median(ratios)
            )
        })
        .into();
    eprintln!("{}", report.join("\n"));
    server.block_on(tracker.stop());
}
