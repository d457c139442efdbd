//! UDP (BEP 15, BEP 41) against a running tracker.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use scion_tracker::core::address::IsdAs;
use scion_tracker::core::codec::bep15::{
    Reply, TransactionId, parse_reply, write_announce_request, write_connect_request,
    write_scrape_request,
};
use scion_tracker::core::codec::compact::Layout;
use scion_tracker::core::codec::connection::ConnectionId;
use scion_tracker::core::request::{AnnounceRequest, Event, ScionClaim};
use scion_tracker::core::response::Refusal;
use scion_tracker::core::types::{InfoHash, PeerId};
use scion_tracker::server::Kind;
use scion_tracker::{Config, Counter};

use crate::common::{self, Running};

const TRANSACTION: TransactionId = TransactionId(0x5c10);
const HASH: InfoHash = InfoHash([1; 20]);

/// A client with its own address.
struct Client {
    socket: UdpSocket,
    layout: Layout,
    connection: ConnectionId,
}

impl Client {
    fn connect(tracker: SocketAddr, ip: &str) -> Self {
        let ip: IpAddr = ip.parse().unwrap();
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket.connect(tracker).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let layout = if ip.is_ipv4() {
            Layout::Ip4
        } else {
            Layout::Ip6
        };
        let mut client = Self {
            socket,
            layout,
            connection: ConnectionId(0),
        };
        let mut request = Vec::new();
        write_connect_request(TRANSACTION, &mut request);
        client.connection = client.ask(&request, |reply| match reply {
            Reply::Connect { connection, .. } => connection,
            other => panic!("{other:?}"),
        });
        client
    }

    fn ask<T>(&self, request: &[u8], then: impl FnOnce(Reply<'_>) -> T) -> T {
        self.socket.send(request).unwrap();
        let mut buffer = [0; 2048];
        let length = self.socket.recv(&mut buffer).unwrap();
        let reply = parse_reply(&buffer[..length], self.layout).unwrap();
        assert_eq!(reply.transaction(), TRANSACTION);
        then(reply)
    }

    fn announce_with(&self, announce: &AnnounceRequest, path: &str) -> Result<Answer, String> {
        let mut request = Vec::new();
        write_announce_request(self.connection, TRANSACTION, announce, path, &mut request);
        self.ask(&request, |reply| match reply {
            Reply::Announce {
                interval,
                leechers,
                seeders,
                peers,
                ..
            } => Ok(Answer {
                interval,
                leechers,
                seeders,
                peers: peers.map(|peer| peer.addr).collect(),
            }),
            Reply::Error { message, .. } => Err(String::from_utf8_lossy(message).into_owned()),
            other => panic!("{other:?}"),
        })
    }

    fn announce(&self, announce: &AnnounceRequest) -> Answer {
        self.announce_with(announce, "/announce").unwrap()
    }

    /// Sends a datagram that must not be answered, then one that is answered: only the second reply
    /// arrives.
    fn is_met_with_silence(&self, request: &[u8]) {
        self.socket.send(request).unwrap();
        let mut known = Vec::new();
        write_scrape_request(self.connection, TRANSACTION, &[HASH], &mut known);
        self.ask(&known, |reply| {
            assert!(matches!(reply, Reply::Scrape { .. }), "{reply:?}");
        });
    }
}

#[derive(Debug)]
struct Answer {
    interval: u32,
    leechers: u32,
    seeders: u32,
    peers: Vec<SocketAddr>,
}

fn peer(port: u16) -> AnnounceRequest {
    let mut id = *b"-XX0001-000000000000";
    id[18..].copy_from_slice(&port.to_be_bytes());
    AnnounceRequest::new(HASH, PeerId(id), port, 1000)
}

fn at(port: u16, ia: &str) -> AnnounceRequest {
    let mut announce = peer(port);
    announce.claim.ia = Some(ia.parse::<IsdAs>().unwrap());
    announce
}

fn start() -> (Running, SocketAddr) {
    let running = common::start(common::config());
    let address = running.address(Kind::Udp);
    (running, address)
}

#[test]
fn peers_find_each_other() {
    let (_running, tracker) = start();
    let one = Client::connect(tracker, "127.0.0.1");
    let two = Client::connect(tracker, "127.0.0.2");
    let first = one.announce(&peer(1001));
    assert_eq!((first.leechers, first.seeders), (1, 0));
    assert!((1800..=1980).contains(&first.interval), "{first:?}");
    assert!(first.peers.is_empty());
    let mut seed = peer(1002);
    two.announce(&seed);
    seed.left = 0;
    seed.event = Event::Completed;
    let second = two.announce(&seed);
    assert_eq!((second.leechers, second.seeders), (1, 1));
    assert_eq!(second.peers, ["127.0.0.1:1001".parse().unwrap()]);
    let mut leaving = peer(1001);
    leaving.event = Event::Stopped;
    assert_eq!(one.announce(&leaving).leechers, 0);
    let mut request = Vec::new();
    let unknown = InfoHash([9; 20]);
    write_scrape_request(
        one.connection,
        TRANSACTION,
        &[unknown, HASH, HASH],
        &mut request,
    );
    one.ask(&request, |reply| {
        let Reply::Scrape { counts, .. } = reply else {
            panic!("{reply:?}");
        };
        let counts: Vec<_> = counts
            .map(|c| (c.seeders, c.completed, c.leechers))
            .collect();
        assert_eq!(counts, [(0, 0, 0), (1, 1, 0), (1, 1, 0)]);
    });
}

#[test]
fn each_family_gets_its_own_form() {
    let mut config = common::config();
    config.listen.udp = vec!["[::]:0".parse().unwrap()];
    let running = common::start(config);
    let port = running.address(Kind::Udp).port();
    let four = SocketAddr::new("127.0.0.1".parse().unwrap(), port);
    let six = SocketAddr::new("::1".parse().unwrap(), port);
    let fours = ["127.0.0.1", "127.0.0.2"].map(|ip| Client::connect(four, ip));
    let sixes = [1003, 1004].map(|_| Client::connect(six, "::1"));
    fours[0].announce(&peer(1001));
    sixes[0].announce(&peer(1003));
    let answer = fours[1].announce(&peer(1002));
    assert_eq!(answer.peers, ["127.0.0.1:1001".parse().unwrap()]);
    assert_eq!(answer.leechers, 3);
    let answer = sixes[1].announce(&peer(1004));
    assert_eq!(answer.peers, ["[::1]:1003".parse().unwrap()]);
}

#[test]
fn url_data_places_a_peer() {
    let mut config = common::config();
    // All peers have one address.
    config.registry.peers_per_source_in_torrent = u32::MAX;
    let running = common::start(config);
    let tracker = running.address(Kind::Udp);
    let client = Client::connect(tracker, "127.0.0.1");
    for port in 0..60 {
        client.announce(&at(2000 + port, "1-ff00:0:111"));
        client.announce(&at(3000 + port, "1-ff00:0:112"));
        client.announce(&at(4000 + port, "2-ff00:0:211"));
        client.announce(&peer(5000 + port));
    }
    let count = |answer: &Answer, base: u16| {
        let here = base..base + 1000;
        answer
            .peers
            .iter()
            .filter(|peer| here.contains(&peer.port()))
            .count()
    };
    let answer = client.announce(&at(2000, "1-ff00:0:111"));
    let got = [2000, 3000, 4000, 5000].map(|base| count(&answer, base));
    assert_eq!(got, [42, 4, 2, 2], "{answer:?}");
    // The same request with URL data that has no claim, from a client that does not know places.
    let answer = client
        .announce_with(&peer(6000), "/announce?ia=2-ff00:0:211")
        .unwrap();
    // No other AS of ISD 2 is present, so its reserve is not used.
    assert_eq!(count(&answer, 4000), 46);
    // The same IP address and port in two ASes are two peers.
    let before = answer.leechers;
    assert_eq!(
        client.announce(&at(6000, "1-ff00:0:112")).leechers,
        before + 1
    );
}

#[test]
fn malformed_requests_with_a_valid_connection_id_get_errors() {
    let (running, tracker) = start();
    let client = Client::connect(tracker, "127.0.0.1");
    for path in [
        "/announce?ia=0-0",
        "/announce?ia=1-0",
        "/announce?ia=x",
        "/?scion=1-1",
    ] {
        let error = client.announce_with(&peer(1001), path).unwrap_err();
        assert!(
            error.starts_with("ia") || error.starts_with("scion"),
            "{path}: {error}"
        );
    }
    let stats = running.handle.stats();
    assert_eq!(stats.counters.get(Counter::UdpErrors), 4);
    assert_eq!(stats.registry.torrents, 0);
}

#[test]
fn a_peer_without_a_port_gets_peers_and_is_not_stored() {
    let (running, tracker) = start();
    let client = Client::connect(tracker, "127.0.0.1");
    assert_eq!(client.announce(&peer(0)).leechers, 0);
    assert_eq!(running.handle.stats().registry.torrents, 0);
    Client::connect(tracker, "127.0.0.2").announce(&peer(1001));
    for event in [Event::Started, Event::Completed, Event::None] {
        let answer = client.announce(&AnnounceRequest { event, ..peer(0) });
        assert_eq!((answer.seeders, answer.leechers), (0, 1));
        assert_eq!(answer.peers, ["127.0.0.2:1001".parse().unwrap()]);
    }
    let stopped = AnnounceRequest {
        event: Event::Stopped,
        ..peer(0)
    };
    assert_eq!(client.announce(&stopped).peers, []);
    let registry = running.handle.stats().registry;
    assert_eq!((registry.seeders, registry.leechers), (0, 1));
}

#[test]
fn requests_without_a_valid_connection_id_are_dropped() {
    let (running, tracker) = start();
    let client = Client::connect(tracker, "127.0.0.1");
    let stranger = Client::connect(tracker, "127.0.0.2");
    let mut request = Vec::new();
    for connection in [
        ConnectionId(0),
        ConnectionId(0x0417_2710_1980),
        stranger.connection,
        ConnectionId(client.connection.0 ^ 1),
    ] {
        request.clear();
        write_announce_request(connection, TRANSACTION, &peer(1), "", &mut request);
        client.is_met_with_silence(&request);
        request.clear();
        write_scrape_request(connection, TRANSACTION, &[HASH], &mut request);
        client.is_met_with_silence(&request);
    }
    request.clear();
    write_announce_request(client.connection, TRANSACTION, &peer(1), "", &mut request);
    for length in 0..98 {
        client.is_met_with_silence(&request[..length]);
    }
    for action in [3u32, 4, 255, u32::MAX] {
        request[8..12].copy_from_slice(&action.to_be_bytes());
        client.is_met_with_silence(&request);
    }
    client.is_met_with_silence(&[0; 65_000]);
    let stats = running.handle.stats();
    assert_eq!(stats.counters.get(Counter::UdpBadConnectionId), 8);
    assert_eq!(stats.registry.torrents, 0);
}

#[test]
fn connection_ids_survive_a_restart() {
    let data_dir = tempfile::tempdir().unwrap();
    let mut config = common::config();
    config.listen.http.clear();
    config.listen.https.clear();
    config.listen.http3.clear();
    config.data_dir = Some(data_dir.path().to_owned());
    let secrets = data_dir.path().join("udp-secrets");
    let running = common::start(config.clone());
    let tracker = running.address(Kind::Udp);
    let client = Client::connect(tracker, "127.0.0.1");
    assert_eq!(client.announce(&peer(1)).leechers, 1);
    running.stop();
    // The same port, as after a restart of the service. The swarm is gone.
    config.listen.udp = vec![tracker.into()];
    for _ in 0..3 {
        let running = common::start(config.clone());
        assert_eq!(client.announce(&peer(1)).leechers, 1);
        running.stop();
    }
    let mut request = Vec::new();
    write_announce_request(client.connection, TRANSACTION, &peer(1), "", &mut request);
    // Its secret ended when the next run began, longer ago than ids live.
    let text = std::fs::read_to_string(&secrets).unwrap();
    let aged: String = text
        .lines()
        .filter_map(|line| line.split_once(' ').filter(|_| !line.starts_with('#')))
        .map(|(start, key)| format!("{} {key}\n", start.parse::<u64>().unwrap() - 1000))
        .collect();
    std::fs::write(&secrets, aged).unwrap();
    check_refused(&config, tracker, &request);
    std::fs::remove_file(&secrets).unwrap();
    check_refused(&config, tracker, &request);
    // A directory that cannot be written.
    config.data_dir = Some("/proc/nowhere".into());
    check_refused(&config, tracker, &request);
}

/// Starts a tracker, and checks that it refuses the connection id of this request, but serves a client that
/// connects.
fn check_refused(config: &Config, tracker: SocketAddr, request: &[u8]) {
    let running = common::start(config.clone());
    // An id is bound to the host, not to its port.
    let client = Client::connect(tracker, "127.0.0.1");
    client.is_met_with_silence(request);
    assert_eq!(client.announce(&peer(1)).leechers, 1);
    let stats = running.handle.stats();
    assert_eq!(stats.counters.get(Counter::UdpBadConnectionId), 1);
    running.stop();
}

#[test]
fn a_flood_of_garbage_does_not_block_valid_clients() {
    let (running, tracker) = start();
    let flood = std::thread::spawn(move || {
        let socket = UdpSocket::bind("127.0.0.9:0").unwrap();
        let mut state = 1u64;
        for _ in 0..200_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let length = (state >> 40) as usize % 200;
            let _ = socket.send_to(&[(state >> 56) as u8; 200][..length], tracker);
        }
    });
    // A full receive buffer drops valid requests as well, so the client repeats them (BEP 15).
    let client = Client::connect(tracker, "127.0.0.1");
    client
        .socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut request = Vec::new();
    write_announce_request(client.connection, TRANSACTION, &peer(1), "", &mut request);
    let mut served = 0;
    for _ in 0..200 {
        client.socket.send(&request).unwrap();
        served += usize::from(client.socket.recv(&mut [0; 2048]).is_ok());
        if served >= 50 {
            break;
        }
    }
    flood.join().unwrap();
    assert!(served >= 50, "{served}");
    let totals = running.handle.stats().registry;
    assert_eq!((totals.torrents, totals.leechers), (1, 1));
}

#[test]
fn limits_are_reported_as_errors() {
    let mut config = common::config();
    config.registry.peers_per_source = 2;
    let running = common::start(config);
    let client = Client::connect(running.address(Kind::Udp), "127.0.0.1");
    client.announce(&peer(1));
    client.announce(&peer(2));
    let error = client.announce_with(&peer(3), "").unwrap_err();
    assert_eq!(error, "too many peers from your address");
    client.announce(&peer(1));
    let refused = running.handle.stats().counters;
    assert_eq!(refused.refused(Refusal::SourceLimit), 1);
}

#[test]
fn a_trusted_host_announces_another() {
    let mut config = common::config();
    config.places.trusted = vec!["127.0.0.3/32".parse().unwrap()];
    let running = common::start(config);
    let tracker = running.address(Kind::Udp);
    let mut named = peer(1001);
    named.named_ip = Some("192.0.2.7".parse().unwrap());
    named.claim.scion = ScionClaim::Absent;
    Client::connect(tracker, "127.0.0.3").announce(&named);
    named.port = 1002;
    Client::connect(tracker, "127.0.0.4").announce(&named);
    let mut peers = Client::connect(tracker, "127.0.0.5")
        .announce(&peer(1))
        .peers;
    peers.sort_unstable();
    let expected = ["127.0.0.4:1002", "192.0.2.7:1001"].map(|it| it.parse().unwrap());
    assert_eq!(peers, expected);
}

#[test]
fn replies_over_ipv6_fit_the_smallest_mtu() {
    let mut config = common::config();
    config.listen.udp = vec!["[::1]:0".parse().unwrap()];
    config.registry.peers_per_source_in_torrent = u32::MAX;
    let running = common::start(config);
    let client = Client::connect(running.address(Kind::Udp), "::1");
    for port in 1..=100 {
        client.announce(&peer(port));
    }
    let mut greedy = peer(1);
    greedy.numwant = Some(200);
    // (1280 - 40 - 8 - 20) / 18
    assert_eq!(client.announce(&greedy).peers.len(), 67);
}
