//! Tests a port on loopback with complete SCION packets, without a router or a daemon.

use std::net::UdpSocket as StdUdpSocket;
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use scion_tracker_core::Tracker;
use scion_tracker_core::address::{Host, ScionAddr};
use scion_tracker_core::codec::bep15::{TransactionId, write_connect_request};
use scion_tracker_core::codec::scion::{Echo, Message, Path, Scmp, parse, write_echo_request};
use scion_tracker_core::registry::memory::{Ceilings, Memory};
use scion_tracker_core::tracker::Rules;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::*;
use crate::scion::socket::tests::forge;
use crate::scion::socket::tests::net::{host, loopback, path};
use crate::scion::socket::{Limits, Routers};
use crate::service::Service;
use crate::socket::mmsg::injected;
use crate::transport::http::origin::Proxies;
use crate::transport::{self, quic};
use crate::watch::Watch;

const SERVER: &str = "1-ff00:0:110,[10.0.0.1]";
const CLIENT: &str = "2-ff00:0:210,[10.0.0.2]";
const PATIENCE: Duration = Duration::from_secs(5);

/// A port that is being served.
struct Running {
    socket: Arc<ScionSocket>,
    service: Arc<Service>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// The protocols of a port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Serves {
    Udp,
    Quic,
    Both,
}

pub(in crate::transport) fn service() -> Arc<Service> {
    let tracker = Tracker::observed(
        Memory::new(Ceilings::default(), [1, 2, 3, 4]),
        Watch::default(),
    );
    let (rules, limits) = (Rules::default(), transport::Limits::default());
    Arc::new(Service::new(tracker, rules, limits))
}

fn start(serves: Serves) -> Running {
    start_at(host(SERVER), Routers::Unknown, serves)
}

fn start_at(host: Host, routers: Routers, serves: Serves) -> Running {
    start_with(host, routers, serves, None)
}

/// Also receives on this second socket.
fn start_with(
    host: Host,
    routers: Routers,
    serves: Serves,
    endhost: Option<StdUdpSocket>,
) -> Running {
    let service = service();
    let underlay = StdUdpSocket::bind(loopback()).unwrap();
    let counters = Arc::clone(&service.counters);
    let socket = ScionSocket::server(
        (underlay, endhost),
        host,
        routers,
        Limits::default(),
        counters,
    )
    .unwrap();
    let udp = (serves != Serves::Quic)
        .then(|| udp::OverScion::new(&service, udp::Options::default()).unwrap());
    let quic = (serves != Serves::Udp).then(|| listener(&service));
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let (port, until) = (Arc::clone(&socket), stop.clone());
    tasks.spawn(async move { run(port, udp, quic.as_ref(), until).await.unwrap() });
    tasks.close();
    Running {
        socket,
        service,
        stop,
        tasks,
    }
}

/// A listener for QUIC with a certificate of its own.
pub(in crate::transport) fn listener(service: &Arc<Service>) -> quic::Listener {
    let made = rcgen::generate_simple_self_signed(["tracker".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let options = transport::Options {
        proxies: Proxies::default(),
        alt_svc: None,
    };
    quic::Listener::new(tls, None, Arc::new(options), Arc::clone(service)).unwrap()
}

impl Running {
    fn count(&self, counter: Counter) -> u64 {
        self.service.counters.snapshot().get(counter)
    }

    async fn send(&self, from: &UdpSocket, packet: &[u8]) {
        from.send_to(packet, self.socket.underlay_addr())
            .await
            .unwrap();
    }

    /// Sends a datagram from [`CLIENT`]. Returns the payload of the answer.
    async fn ask(&self, from: &UdpSocket, payload: &[u8]) -> Vec<u8> {
        let client = client(from);
        let packet = forge(client, self.socket.local(), &path(1), payload);
        self.send(from, &packet).await;
        let packet = receive(from).await;
        let packet = parse(&packet).unwrap();
        assert!(packet.checksum_is_right());
        assert_eq!(
            (packet.source, packet.destination),
            (host(SERVER), client.host)
        );
        match packet.message {
            Message::Udp(udp) => udp.payload.to_vec(),
            Message::Scmp(scmp) => panic!("{scmp:?}"),
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.tasks.wait()).await.unwrap();
    }
}

fn client(socket: &UdpSocket) -> ScionAddr {
    ScionAddr {
        host: host(CLIENT),
        port: socket.local_addr().unwrap().port(),
    }
}

/// Binds a socket to this loopback address.
async fn at(ip: &str) -> UdpSocket {
    UdpSocket::bind(format!("{ip}:0")).await.unwrap()
}

async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 2048];
    let received = timeout(PATIENCE, socket.recv(&mut buffer));
    let length = received.await.expect("an answer in time").unwrap();
    buffer.truncate(length);
    buffer
}

fn connect_request(transaction: u32) -> Vec<u8> {
    let mut request = Vec::new();
    write_connect_request(TransactionId(transaction), &mut request);
    request
}

/// A first packet of another QUIC version.
fn other_version() -> Vec<u8> {
    let mut initial = vec![0xc0, 0x5c, 0x10, 0, 0x0f, 4, 1, 2, 3, 4, 2, 8, 9];
    initial.resize(600, 0);
    initial
}

#[tokio::test]
async fn a_port_for_udp_alone_needs_no_certificate_and_makes_no_entries() {
    let port = start(Serves::Udp);
    let raw = UdpSocket::bind(loopback()).await.unwrap();
    // This one is not answered. It is handled before the next one, which is.
    let packet = forge(
        client(&raw),
        port.socket.local(),
        &path(1),
        &other_version(),
    );
    port.send(&raw, &packet).await;
    let reply = port.ask(&raw, &connect_request(7)).await;
    assert_eq!(reply[..8], [0, 0, 0, 0, 0, 0, 0, 7]);
    assert_eq!(reply.len(), 16);
    assert_eq!(port.count(Counter::UdpConnects), 1);
    assert_eq!(port.count(Counter::UdpMalformed), 1);
    assert_eq!(port.count(Counter::ScionVersionsNegotiated), 0);
    assert_eq!(port.socket.remotes(), 0);
    port.stop().await;
}

#[tokio::test]
async fn a_port_for_quic_alone_answers_no_bep15() {
    let port = start(Serves::Quic);
    let raw = UdpSocket::bind(loopback()).await.unwrap();
    let packet = forge(
        client(&raw),
        port.socket.local(),
        &path(1),
        &connect_request(7),
    );
    port.send(&raw, &packet).await;
    let negotiation = [0xc0, 0, 0, 0, 0, 2, 8, 9, 4, 1, 2, 3, 4, 0, 0, 0, 1];
    assert_eq!(port.ask(&raw, &other_version()).await, negotiation);
    assert_eq!(port.count(Counter::UdpConnects), 0);
    port.stop().await;
}

#[tokio::test]
async fn bep15_and_other_versions_of_quic_are_answered_without_an_entry() {
    let port = start(Serves::Both);
    let raw = UdpSocket::bind(loopback()).await.unwrap();
    let reply = port.ask(&raw, &connect_request(7)).await;
    assert_eq!(reply[..8], [0, 0, 0, 0, 0, 0, 0, 7]);
    let negotiation = [0xc0, 0, 0, 0, 0, 2, 8, 9, 4, 1, 2, 3, 4, 0, 0, 0, 1];
    assert_eq!(port.ask(&raw, &other_version()).await, negotiation);
    assert_eq!(port.count(Counter::UdpConnects), 1);
    assert_eq!(port.count(Counter::ScionVersionsNegotiated), 1);
    assert_eq!(port.socket.remotes(), 0);
    port.stop().await;
}

#[tokio::test]
async fn echo_requests_are_answered_and_replies_are_no_longer() {
    let port = start(Serves::Udp);
    let raw = UdpSocket::bind(loopback()).await.unwrap();
    let request = |from: &str, path: &[u8], sequence| {
        let echo = Echo {
            identifier: 7,
            sequence,
            data: b"0123456789",
        };
        let (path, mut request) = (Path::parse(path).unwrap(), Vec::new());
        write_echo_request(host(from), host(SERVER), path, &echo, &mut request).unwrap();
        request
    };
    // The first one was sent to another host and is not answered.
    let mut elsewhere = request(CLIENT, &path(1), 2);
    elsewhere[31] ^= 1;
    port.send(&raw, &elsewhere).await;
    for (from, path) in [("1-ff00:0:110,[127.0.0.1]", vec![]), (CLIENT, path(1))] {
        let request = request(from, &path, 1);
        port.send(&raw, &request).await;
        let bytes = receive(&raw).await;
        let reply = parse(&bytes).unwrap();
        assert!(reply.checksum_is_right());
        assert_eq!(
            (reply.source, reply.destination),
            (host(SERVER), host(from))
        );
        assert!(
            matches!(reply.message, Message::Scmp(Scmp::EchoReply(echo))
                if (echo.identifier, echo.sequence, echo.data) == (7, 1, b"0123456789")),
            "{reply:?}"
        );
        assert!(bytes.len() <= request.len());
    }
    assert_eq!(port.count(Counter::ScionElsewhere), 1);
    assert_eq!(port.count(Counter::ScionEchoes), 2);
    assert_eq!(port.socket.remotes(), 0);
    port.stop().await;
}

/// Uses a topology. A host on plain IP pretends to be in another AS, or asks for replies to a third
/// host.
#[tokio::test]
async fn only_the_router_of_a_path_and_hosts_themselves_are_answered() {
    let topology = r#"{"isd_as": "1-ff00:0:110", "border_routers":
        {"br": {"internal_addr": "ROUTER", "interfaces": {"2": {}}}}}"#;
    let (router, attacker, victim) = (
        at("127.0.0.17").await,
        at("127.0.0.66").await,
        at("127.0.0.99").await,
    );
    let internal_addr = router.local_addr().unwrap().to_string();
    let topology = topology.replace("ROUTER", &internal_addr).parse().unwrap();
    let own = host("1-ff00:0:110,[127.0.0.1]");
    let port = start_at(own, Routers::Topology(topology), Serves::Both);
    let to = port.socket.local();
    let of = |text: &str, socket: &UdpSocket| ScionAddr {
        host: host(text),
        port: socket.local_addr().unwrap().port(),
    };
    let far = of(CLIENT, &attacker);
    let named = of("1-ff00:0:110,[127.0.0.99]", &victim);
    for payload in [&connect_request(1), &other_version()] {
        for (from, way) in [(far, path(1)), (far, path(8)), (named, vec![])] {
            port.send(&attacker, &forge(from, to, &way, payload)).await;
        }
        // The router has no such interface.
        port.send(&router, &forge(far, to, &path(8), payload)).await;
    }
    // Packets are handled in order, so all of the above are handled when these are answered.
    port.send(&router, &forge(far, to, &path(1), &connect_request(2)))
        .await;
    port.send(&victim, &forge(named, to, &[], &connect_request(3)))
        .await;
    for (socket, client) in [(&router, far), (&victim, named)] {
        let answer = receive(socket).await;
        let answer = parse(&answer).unwrap();
        assert_eq!(answer.destination, client.host);
        assert!(matches!(answer.message, Message::Udp(udp) if udp.payload.len() == 16));
        let more = socket
            .try_recv(&mut [0; 2048])
            .map_err(|error| error.kind());
        assert_eq!(more, Err(io::ErrorKind::WouldBlock));
    }
    let nothing = attacker
        .try_recv(&mut [0; 2048])
        .map_err(|error| error.kind());
    assert_eq!(nothing, Err(io::ErrorKind::WouldBlock));
    assert_eq!(port.count(Counter::ScionWrongUnderlay), 8);
    assert_eq!(port.count(Counter::UdpConnects), 2);
    assert_eq!(port.count(Counter::ScionVersionsNegotiated), 0);
    port.stop().await;
}

/// Programs of the same AS send to another port of the host. They are answered at the host and port
/// in their packets, from the main socket, if their host sent the packet.
#[tokio::test]
async fn a_second_socket_receives_what_is_for_the_scion_address() {
    let endhost = StdUdpSocket::bind(loopback()).unwrap();
    let there = endhost.local_addr().unwrap();
    let own = host("1-ff00:0:110,[127.0.0.1]");
    let port = start_with(own, Routers::Unknown, Serves::Both, Some(endhost));
    let to = port.socket.local();
    // It sends from one port and receives on another.
    let (sends, receives) = (at("127.0.0.2").await, at("127.0.0.2").await);
    let client = ScionAddr {
        host: host("1-ff00:0:110,[127.0.0.2]"),
        port: receives.local_addr().unwrap().port(),
    };
    let send = async |packet: &[u8]| {
        sends.send_to(packet, there).await.unwrap();
    };
    let payload = async || {
        let mut buffer = [0; 2048];
        let received = timeout(PATIENCE, receives.recv_from(&mut buffer));
        let (length, from) = received.await.expect("an answer in time").unwrap();
        assert_eq!(from, port.socket.underlay_addr());
        let packet = parse(&buffer[..length]).unwrap();
        assert_eq!((packet.source, packet.destination), (own, client.host));
        match packet.message {
            Message::Udp(udp) => udp.payload.to_vec(),
            Message::Scmp(scmp) => panic!("{scmp:?}"),
        }
    };
    // Not for the tracker: other port, other host, other AS. Not from its host.
    let elsewhere = |text: &str| text.parse::<ScionAddr>().unwrap();
    let forged = ScionAddr {
        host: host("1-ff00:0:110,[127.0.0.3]"),
        ..client
    };
    let request = connect_request(1);
    for (from, to) in [
        (client, ScionAddr { port: 1, ..to }),
        (client, elsewhere("1-ff00:0:110,[127.0.0.5]:31969")),
        (client, elsewhere("1-ff00:0:111,[127.0.0.1]:31969")),
        (forged, to),
    ] {
        send(&forge(from, to, &[], &request)).await;
    }
    for transaction in 2..5 {
        let request = connect_request(transaction);
        // The sockets take turns.
        send(&forge(client, to, &[], &request)).await;
        assert_eq!(payload().await[4..8], transaction.to_be_bytes());
        port.send(&sends, &forge(client, to, &[], &request)).await;
        assert_eq!(payload().await[4..8], transaction.to_be_bytes());
    }
    send(&forge(client, to, &[], &other_version())).await;
    assert_eq!(payload().await[..5], [0xc0, 0, 0, 0, 0]);
    assert_eq!(port.count(Counter::UdpConnects), 6);
    assert_eq!(port.count(Counter::ScionElsewhere), 3);
    assert_eq!(port.count(Counter::ScionWrongUnderlay), 1);

    // "scion ping" of the same AS receives where it sends from.
    let (echo, mut ping) = (
        Echo {
            identifier: 7,
            sequence: 1,
            data: b"data",
        },
        Vec::new(),
    );
    write_echo_request(client.host, own, Path::EMPTY, &echo, &mut ping).unwrap();
    send(&ping).await;
    let reply = receive(&sends).await;
    let reply = parse(&reply).unwrap();
    assert!(matches!(reply.message, Message::Scmp(Scmp::EchoReply(it)) if it.data == b"data"));
    port.stop().await;
}

#[test]
fn bep15_requests_are_told_from_quic() {
    let mut announce = [0x4f; 98];
    announce[8..12].copy_from_slice(&[0, 0, 0, 1]);
    let mut scrape = [0xcf; 36];
    scrape[8..12].copy_from_slice(&[0, 0, 0, 2]);
    for (datagram, expected) in [
        (&connect_request(7)[..], true),
        (&announce, true),
        (&scrape, true),
        (&connect_request(7)[..15], false),
        (&other_version(), false),
        (&[], false),
    ] {
        assert_eq!(is_bep15(datagram), expected, "{datagram:02x?}");
    }
}

#[tokio::test]
async fn errors_of_receiving_that_pass_do_not_end_the_port() {
    let codes = [libc::ENOMEM, libc::ENOBUFS, libc::ECONNREFUSED];
    for serves in [Serves::Udp, Serves::Both] {
        let server = start(serves);
        let client = at("127.0.0.1").await;
        let mut request = Vec::new();
        write_connect_request(TransactionId(7), &mut request);
        assert_eq!(server.ask(&client, &request).await.len(), 16);
        injected::fail_next(server.socket.underlay_addr().port(), &codes);
        assert_eq!(server.ask(&client, &request).await.len(), 16);
        assert_eq!(server.count(Counter::ReceiveFailures), codes.len() as u64);
        server.stop().await;
    }
}
