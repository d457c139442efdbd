//! Tests QUIC over real sockets with complete SCION packets and real paths, without a router or a
//! daemon.

pub(crate) mod net;
mod retry;
mod returned;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ::quinn::TransportConfig;
use scion_tracker_core::address::ScionAddr;
use scion_tracker_core::codec::scion::{Message, Path, Template, parse};

use tokio::time::timeout;

use super::*;
use net::{Identity, PATIENCE, Relay, Validation, ask, connect, host, loopback, path, serve};

const SERVER: &str = "1-ff00:0:110,[10.0.0.1]";
const CLIENT: &str = "2-ff00:0:210,[10.0.0.2]";

/// Events that never happen between a well-behaved client and server.
const WRONG: [Counter; 5] = [
    Counter::ScionMalformed,
    Counter::ScionElsewhere,
    Counter::ScionWrongPath,
    Counter::ScionUnanswerable,
    Counter::ScionWrongChecksum,
];

fn count(socket: &ScionSocket, counter: Counter) -> u64 {
    socket.counters.snapshot().get(counter)
}

/// Checks an exchange with a client that reaches the server directly, over this path.
async fn check_exchange(server: &str, client: &str, path: &[u8], validation: Validation) {
    let identity = Identity::new();
    let server = ScionSocket::bind(host(server), loopback()).unwrap();
    serve(&server, identity.server(), validation);
    let client = ScionSocket::bind(host(client), loopback()).unwrap();
    let endpoint = client.endpoint(None).unwrap();
    let to = client
        .set_paths(server.local(), (path, server.underlay_addr()), None)
        .unwrap();
    let connection = connect(&endpoint, &identity, to).await;
    assert_eq!(
        client.endpoint_of(connection.remote_address()),
        Some(server.local())
    );
    let long = "x".repeat(50_000);
    for request in ["ping", &long] {
        let reply = ask(&connection, request).await;
        assert_eq!(reply, format!("{} {request}", client.local()));
    }
    for socket in [&server, &client] {
        let wrong = WRONG.map(|counter| count(socket, counter));
        assert_eq!(wrong, [0; WRONG.len()]);
    }
    assert_eq!(server.remotes(), 1);
}

macro_rules! exchanges {
    ($($test:ident: $server:literal, $client:literal, $path:expr, $validation:ident;)*) => {
        $(#[tokio::test]
        async fn $test() {
            check_exchange($server, $client, $path, Validation::$validation).await;
        })*
    };
}

exchanges! {
    quic_inside_an_as: "1-ff00:0:110,[127.0.0.1]", "1-ff00:0:110,[127.0.0.1]", &[], Handshake;
    quic_between_ases: "1-ff00:0:110,[10.0.0.1]", "2-ff00:0:210,[10.0.0.1]", &path(1), Handshake;
    quic_between_ipv6_hosts: "1-ff00:0:110,[fd00::1]", "2-64,[fd00::1]", &path(1), Handshake;
    quic_from_ipv4_to_ipv6: "1-ff00:0:110,[fd00::1]", "2-64,[10.0.0.1]", &path(1), Handshake;
    retry_between_ipv4_hosts: "1-ff00:0:110,[10.0.0.1]", "2-64,[10.0.0.1]", &path(1), Retry;
    retry_between_ipv6_hosts: "1-ff00:0:110,[fd00::1]", "2-64,[fd00::1]", &path(1), Retry;
}

#[tokio::test]
async fn the_same_ip_and_port_in_two_ases_are_two_remotes() {
    let identity = Identity::new();
    let server = ScionSocket::bind(host(SERVER), loopback()).unwrap();
    serve(&server, identity.server(), Validation::Retry);
    let one = ScionSocket::bind(host("2-ff00:0:210,[10.0.0.2]"), loopback()).unwrap();
    let same_port = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), one.local().port));
    let two = ScionSocket::bind(host("2-ff00:0:211,[10.0.0.2]"), same_port).unwrap();
    let mut connections = Vec::new();
    for client in [&one, &two] {
        let path = path(1);
        let to = client
            .set_paths(server.local(), (&path, server.underlay_addr()), None)
            .unwrap();
        let endpoint = client.endpoint(None).unwrap();
        connections.push((client, connect(&endpoint, &identity, to).await));
    }
    for round in 0..20 {
        for (client, connection) in &connections {
            let reply = ask(connection, &round.to_string()).await;
            assert_eq!(reply, format!("{} {round}", client.local()));
        }
    }
    assert_eq!(server.remotes(), 2);
}

#[tokio::test]
async fn a_connection_survives_that_its_client_alternates_between_paths() {
    let identity = Identity::new();
    let server = ScionSocket::bind(host(SERVER), loopback()).unwrap();
    serve(&server, identity.server(), Validation::Handshake);
    let client = ScionSocket::bind(host(CLIENT), loopback()).unwrap();
    let endpoint = client.endpoint(None).unwrap();
    let paths = [path(1), path(3), path(5)];
    let call = |nth: usize| {
        let path = (&paths[nth % 3][..], server.underlay_addr());
        client.set_paths(server.local(), path, None).unwrap()
    };
    let connection = connect(&endpoint, &identity, call(0)).await;
    // Alternates faster than the server follows. The tests of `remotes` cover when it follows.
    for nth in 0..30 {
        call(nth);
        ask(&connection, "ping").await;
    }
    assert_eq!(server.remotes(), 1);
    assert_eq!(count(&server, Counter::ScionRemotesAdded), 1);
}

#[tokio::test]
async fn a_request_in_flight_survives_a_link_that_goes_down() {
    let identity = Identity::new();
    let server = ScionSocket::bind(host(SERVER), loopback()).unwrap();
    serve(&server, identity.server(), Validation::Handshake);
    let client = ScionSocket::bind(host(CLIENT), loopback()).unwrap();
    let endpoint = client.endpoint(None).unwrap();
    let relay = Relay::new(&server, &client);
    let (first, second) = (path(1), path(3));
    let to = client
        .set_paths(
            server.local(),
            (&first, relay.addr),
            Some((&second, relay.addr)),
        )
        .unwrap();
    let connection = connect(&endpoint, &identity, to).await;
    ask(&connection, "before").await;
    let mut failures = client.failures();
    // Alternates: the link that was down is up again later.
    for (round, interface) in [1, 3, 1, 3].into_iter().enumerate() {
        relay.take_down(interface);
        let since = Instant::now();
        ask(&connection, "during").await;
        let took = since.elapsed();
        assert!(took < Duration::from_secs(1), "round {round}: {took:?}");
        let failure = failures.recv().await.unwrap();
        assert!(failure.switched);
        assert_eq!(failure.remote, server.local());
        client
            .set_paths(
                server.local(),
                if interface == 1 {
                    (&second, relay.addr)
                } else {
                    (&first, relay.addr)
                },
                Some(if interface == 1 {
                    (&first, relay.addr)
                } else {
                    (&second, relay.addr)
                }),
            )
            .unwrap();
    }
    assert!(count(&client, Counter::ScionResent) >= 4);
    assert!(count(&server, Counter::ScionPathsFailed) >= 1);
    assert_eq!(count(&server, Counter::ScionRemotesAdded), 1);
}

/// The datagrams that open a QUIC connection are too long for a router to return in full. QUIC
/// itself would not send them again within the test.
#[tokio::test]
async fn an_opening_over_a_link_that_is_down_goes_out_again_at_once() {
    let identity = Identity::new();
    let server = ScionSocket::bind(host(SERVER), loopback()).unwrap();
    serve(&server, identity.server(), Validation::Handshake);
    let client = ScionSocket::bind(host(CLIENT), loopback()).unwrap();
    let relay = Relay::new(&server, &client);
    relay.take_down(1);
    let (first, second) = (path(1), path(3));
    let (first, second) = ((&*first, relay.addr), (&*second, relay.addr));
    let to = client
        .set_paths(server.local(), first, Some(second))
        .unwrap();
    let mut config = identity.client();
    let mut transport = TransportConfig::default();
    transport.initial_rtt(PATIENCE);
    config.transport_config(Arc::new(transport));
    let endpoint = client.endpoint(None).unwrap();
    let connecting = endpoint.connect_with(config, to, "tracker").unwrap();
    let connected = timeout(PATIENCE, connecting).await;
    ask(&connected.unwrap().unwrap(), "x").await;
    assert_eq!(count(&client, Counter::ScionResent), 1);
}

/// Forges a packet of the client, over another path and from another underlay address.
pub(crate) fn forge(from: ScionAddr, to: ScionAddr, path: &[u8], payload: &[u8]) -> Vec<u8> {
    let path = Path::parse(path).unwrap();
    let mut packet = Vec::new();
    let template = Template::new(from, to, path).unwrap();
    template.write(payload, &mut packet).unwrap();
    packet
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_packets_do_not_divert_a_connection() {
    let identity = Identity::new();
    let server = ScionSocket::bind(host(SERVER), loopback()).unwrap();
    serve(&server, identity.server(), Validation::Handshake);
    let client = ScionSocket::bind(host(CLIENT), loopback()).unwrap();
    let endpoint = client.endpoint(None).unwrap();
    let way = path(1);
    let to = client
        .set_paths(server.local(), (&way, server.underlay_addr()), None)
        .unwrap();
    let connection = connect(&endpoint, &identity, to).await;
    ask(&connection, "before").await;

    let forger = UdpSocket::bind(loopback()).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let forged = Arc::new(AtomicU64::new(0));
    let (stop, counted) = (Arc::clone(&done), Arc::clone(&forged));
    let (from, target, at) = (client.local(), server.local(), server.underlay_addr());
    let forging = thread::spawn(move || {
        let mut sent = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            let mut junk = [0x40; 100];
            junk[1..9].copy_from_slice(&sent.to_be_bytes());
            let packet = forge(from, target, &path(3 + (sent % 3) as u8), &junk);
            forger.send_to(&packet, at).unwrap();
            sent += 1;
            counted.store(sent, Ordering::Relaxed);
            // Few enough that the socket does not drop those of the client.
            thread::sleep(Duration::from_micros(200));
        }
        forger.set_nonblocking(true).unwrap();
        forger.recv(&mut [0; 2048]).map_err(|error| error.kind())
    });
    for round in 1..=8 {
        while forged.load(Ordering::Relaxed) < 20 * round {
            tokio::task::yield_now().await;
        }
        assert!(
            ask(&connection, "during").await.ends_with("during"),
            "round {round}"
        );
    }
    done.store(true, Ordering::Relaxed);
    let diverted = forging.join().unwrap();
    assert_eq!(diverted, Err(ErrorKind::WouldBlock));
    assert_eq!(count(&server, Counter::ScionPathsAdopted), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_forged_initials_leaves_the_table_bounded_and_connections_alive() {
    let identity = Identity::new();
    let limits = Limits {
        fresh: 64,
        established: 64,
    };
    let underlay = UdpSocket::bind(loopback()).unwrap();
    let server = ScionSocket::server(
        (underlay, None),
        host(SERVER),
        Routers::Unknown,
        limits,
        Arc::default(),
    )
    .unwrap();
    serve(&server, identity.server(), Validation::Retry);
    let client = ScionSocket::bind(host(CLIENT), loopback()).unwrap();
    let endpoint = client.endpoint(None).unwrap();
    let way = path(1);
    let to = client
        .set_paths(server.local(), (&way, server.underlay_addr()), None)
        .unwrap();
    let connection = connect(&endpoint, &identity, to).await;

    // Real first packets, as quinn makes them for a server that does not exist.
    let trap = UdpSocket::bind(loopback()).unwrap();
    let bait: ScionAddr = "9-9,[10.0.0.9]:31969".parse().unwrap();
    let lured = client
        .set_paths(bait, (&way, trap.local_addr().unwrap()), None)
        .unwrap();
    let attempts: Vec<_> = (0..16)
        .map(|_| {
            endpoint
                .connect_with(identity.client(), lured, "tracker")
                .unwrap()
        })
        .collect();
    trap.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let initials: Vec<Vec<u8>> = tokio::task::spawn_blocking(move || {
        let mut buffer = [0; 2048];
        let mut next = || {
            let length = trap.recv(&mut buffer).unwrap();
            match parse(&buffer[..length]).unwrap().message {
                Message::Udp(udp) => udp.payload.to_vec(),
                Message::Scmp(_) => unreachable!(),
            }
        };
        (0..16).map(|_| next()).collect()
    })
    .await
    .unwrap();
    drop(attempts);

    let (target, at) = (server.local(), server.underlay_addr());
    let over = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&over);
    let flood = thread::spawn(move || {
        let forger = UdpSocket::bind(loopback()).unwrap();
        for n in 0..1_000_000_u32 {
            if until.load(Ordering::Relaxed) {
                break;
            }
            let ip = Ipv4Addr::from_bits(0x0b00_0000 + n).into();
            let from = ScionAddr::new(host(CLIENT).ia, ip, 1000).unwrap();
            let initial = &initials[n as usize % initials.len()];
            forger
                .send_to(&forge(from, target, &path(3), initial), at)
                .unwrap();
            if n % 8 == 0 {
                thread::sleep(Duration::from_micros(500));
            }
        }
    });
    let mut asked = 0;
    while asked < 20 || count(&server, Counter::ScionRemotesAdded) < 2000 {
        ask(&connection, "during").await;
        assert!(server.remotes() <= 64 + 1, "{}", server.remotes());
        assert!(!flood.is_finished());
        asked += 1;
    }
    over.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    // New clients can still connect.
    let late = ScionSocket::bind(host("2-ff00:0:211,[10.0.0.2]"), loopback()).unwrap();
    let to = late
        .set_paths(server.local(), (&way, server.underlay_addr()), None)
        .unwrap();
    let connection = connect(&late.endpoint(None).unwrap(), &identity, to).await;
    ask(&connection, "after").await;
}

#[tokio::test]
async fn what_is_not_for_us_is_dropped_and_counted() {
    let server = ScionSocket::bind(host(SERVER), loopback()).unwrap();
    serve(&server, Identity::new().server(), Validation::Handshake);
    let raw = UdpSocket::bind(loopback()).unwrap();
    let from: ScionAddr = "2-ff00:0:210,[10.0.0.2]:1000".parse().unwrap();
    let at = server.local();
    let elsewhere = ScionAddr {
        port: at.port ^ 1,
        ..at
    };
    let mut damaged = forge(from, at, &path(1), b"x");
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    for packet in [
        b"junk".to_vec(),
        forge(from, elsewhere, &path(1), b"x"),
        forge(from, at, &[], b"x"),
        damaged,
    ] {
        raw.send_to(&packet, server.underlay_addr()).unwrap();
    }
    let seen = || {
        [
            Counter::ScionMalformed,
            Counter::ScionElsewhere,
            Counter::ScionWrongPath,
            Counter::ScionWrongChecksum,
        ]
        .map(|event| count(&server, event))
    };
    let all = async {
        while seen() != [1; 4] {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let done = timeout(Duration::from_secs(5), all).await;
    assert!(done.is_ok(), "{:?}", seen());
}
