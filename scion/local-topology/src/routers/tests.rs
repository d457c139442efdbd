//! Tests every path of every pair of ASes, in a network with paths of every shape.

use std::net::Ipv4Addr;
use std::time::Duration;

use chrono::Utc;
use pocketscion::network::scion::routing::spec::SpecRoutingLogic;
use pocketscion::network::scion::routing::{LocalAsRoutingAction, ScionNetworkTime};
use pocketscion::network::scion::simulator::ScionNetworkSim;
use pocketscion::network::scion::topology::ScionTopology;
use sciparse::address::socket_addr::ScionSocketAddr;
use sciparse::dataplane_path::model::DpPath;
use sciparse::packet::model::ScionUdpPacket;
use sciparse::path::ScionPath;
use sciparse::payload::scmp::model::ScmpErrorMessage;
use sciparse::payload::scmp::view::ScmpMessageView;
use tokio::time::timeout;

use super::*;
use crate::paths::Paths;
use crate::topology::{isd_asn, simulated};

/// The network has segments of up to three hops, two core links between one pair of core ASes, a
/// shortcut (112 and 113 below 111), and peering in the middle of segments (111 with 211 and 121),
/// at their end (112 with 212), and between a core AS and a leaf.
const NETWORK: &str = r#"
as = [
    { isd_as = "1-ff00:0:110", router = "127.0.0.1:0", daemon = "127.0.0.1:0", core = true },
    { isd_as = "1-ff00:0:111", router = "127.0.0.1:0", daemon = "127.0.0.1:0" },
    { isd_as = "1-ff00:0:112", router = "127.0.0.1:0", daemon = "127.0.0.1:0" },
    { isd_as = "1-ff00:0:113", router = "127.0.0.1:0", daemon = "127.0.0.1:0" },
    { isd_as = "1-ff00:0:120", router = "127.0.0.1:0", daemon = "127.0.0.1:0", core = true },
    { isd_as = "1-ff00:0:121", router = "127.0.0.1:0", daemon = "127.0.0.1:0" },
    { isd_as = "2-ff00:0:210", router = "127.0.0.1:0", daemon = "127.0.0.1:0", core = true },
    { isd_as = "2-ff00:0:211", router = "127.0.0.1:0", daemon = "127.0.0.1:0" },
    { isd_as = "2-ff00:0:212", router = "127.0.0.1:0", daemon = "127.0.0.1:0" },
]
link = [
    { name = "a", type = "core", from = "1-ff00:0:110#1", to = "2-ff00:0:210#1" },
    { name = "b", type = "core", from = "1-ff00:0:110#2", to = "2-ff00:0:210#2" },
    { name = "c", type = "core", from = "1-ff00:0:110#3", to = "1-ff00:0:120#3" },
    { name = "d", type = "core", from = "1-ff00:0:120#4", to = "2-ff00:0:210#4" },
    { name = "e", type = "child", from = "1-ff00:0:110#5", to = "1-ff00:0:111#5" },
    { name = "f", type = "child", from = "1-ff00:0:111#6", to = "1-ff00:0:112#6" },
    { name = "g", type = "child", from = "1-ff00:0:111#7", to = "1-ff00:0:113#7" },
    { name = "h", type = "child", from = "1-ff00:0:120#8", to = "1-ff00:0:121#8" },
    { name = "i", type = "child", from = "2-ff00:0:210#9", to = "2-ff00:0:211#9" },
    { name = "j", type = "child", from = "2-ff00:0:211#10", to = "2-ff00:0:212#10" },
    { name = "k", type = "peer", from = "1-ff00:0:111#11", to = "2-ff00:0:211#11" },
    { name = "l", type = "peer", from = "1-ff00:0:112#12", to = "2-ff00:0:212#12" },
    { name = "m", type = "peer", from = "1-ff00:0:121#13", to = "1-ff00:0:111#13" },
    { name = "n", type = "peer", from = "1-ff00:0:120#14", to = "2-ff00:0:212#14" },
]
"#;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A loopback address for one test of this process. Its ports are free, as long as process ids are
/// below 65536.
fn own_address(test: u8) -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, test, high, low)
}

/// A network with a host in each AS.
struct Network {
    config: Config,
    routers: Arc<Routers>,
    paths: Paths,
    /// The routers of pocketscion.
    topology: ScionTopology,
    hosts: Vec<UdpSocket>,
}

/// A datagram that a host has received.
enum Received {
    /// The payload, and the path back.
    Datagram(Vec<u8>, Box<DpPath>),
    /// The source AS and the message.
    Error(IsdAsn, Complaint),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Complaint {
    Down(u16),
    Parameter(Code),
}

impl Network {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::parse("test.toml".as_ref(), NETWORK).unwrap();
        change(&mut config);
        let topology = simulated(&config).unwrap();
        let key = |ia| topology.get_as(&isd_asn(ia))?.forwarding_key();
        let routers = Arc::new(Routers::bind(&config, key).await.unwrap());
        routers.spawn();
        let mut hosts = Vec::new();
        for _ in &config.ases {
            hosts.push(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        }
        Self {
            paths: Paths::new(&config, topology.clone()).unwrap(),
            config,
            routers,
            topology,
            hosts,
        }
    }

    /// Every pair of ASes, as indices, with each path between them.
    fn all_paths(&self) -> Vec<(usize, usize, ScionPath)> {
        let ases = &self.routers.ases;
        let mut all_paths = Vec::new();
        for (from, it) in ases.iter().enumerate() {
            for (to, other) in ases.iter().enumerate().filter(|(to, _)| *to != from) {
                let paths = self.paths.between(it.ia, other.ia, Utc::now()).unwrap();
                assert!(!paths.is_empty(), "{} {}", it.ia, other.ia);
                all_paths.extend(paths.into_iter().map(|path| (from, to, path)));
            }
        }
        all_paths
    }

    fn host(&self, at: usize) -> ScionSocketAddr {
        let address = self.hosts[at].local_addr().unwrap();
        ScionSocketAddr::new(
            self.routers.ases[at].ia,
            address.ip().into(),
            address.port(),
        )
    }

    fn packet(
        &self,
        from: usize,
        to: usize,
        path: DpPath,
        payload: &[u8],
    ) -> Box<ScionRawPacketView> {
        let packet = ScionUdpPacket::new(self.host(from), self.host(to), path, payload.to_vec());
        packet.into_raw().try_encode_to_owned_view().unwrap()
    }

    /// Sends a datagram from the host of one AS to that of another.
    async fn send(&self, from: usize, to: usize, path: DpPath, payload: &[u8]) {
        let packet = self.packet(from, to, path, payload);
        let router = self.routers.ases[from].address;
        let sent = self.hosts[from].send_to(packet.as_slice(), router).await;
        assert_eq!(sent.unwrap(), packet.as_slice().len());
    }

    /// The next packet that the host of an AS receives from its router.
    async fn receive(&self, at: usize) -> Received {
        let mut buffer = [0; 2048];
        let receiving = self.hosts[at].recv_from(&mut buffer);
        let (length, router) = timeout(TIMEOUT, receiving).await.unwrap().unwrap();
        assert_eq!(router, self.routers.ases[at].address);
        let (packet, rest) = ScionRawPacketView::try_from_slice(&buffer[..length]).unwrap();
        assert!(rest.is_empty());
        let from = packet.header().src_ia();
        match packet.try_classify().unwrap() {
            ClassifiedPacketView::Udp(udp) => {
                let mut path = packet.header().path().to_model();
                path.try_reverse().unwrap();
                Received::Datagram(udp.udp().payload().to_vec(), path.into())
            }
            ClassifiedPacketView::Scmp(scmp) => {
                let complaint = match scmp.scmp().message() {
                    ScmpMessageView::ExternalInterfaceDown(it) => {
                        assert_eq!(it.isd_asn(), from);
                        Complaint::Down(it.interface_id().try_into().unwrap())
                    }
                    ScmpMessageView::ParameterProblem(it) => Complaint::Parameter(it.code()),
                    other => panic!("{other:?}"),
                };
                Received::Error(from, complaint)
            }
            ClassifiedPacketView::Other(_) => panic!("neither UDP nor SCMP"),
        }
    }

    async fn receive_datagram(&self, at: usize, what: &ScionPath) -> (Vec<u8>, DpPath) {
        match self.receive(at).await {
            Received::Datagram(payload, path) => (payload, *path),
            Received::Error(ia, complaint) => panic!("{ia} says {complaint:?}: {what:?}"),
        }
    }

    async fn receive_error(&self, at: usize, what: &ScionPath) -> (IsdAsn, Complaint) {
        match self.receive(at).await {
            Received::Error(ia, complaint) => (ia, complaint),
            Received::Datagram(..) => panic!("delivered: {what:?}"),
        }
    }

    /// The interfaces of a path in order, as AS and number.
    fn interfaces(path: &ScionPath) -> Vec<(IsdAsn, u16)> {
        let interfaces = path.metadata().unwrap().interfaces.as_ref().unwrap();
        let each = interfaces.iter().map(|it| it.interface);
        each.map(|it| (it.isd_asn, it.id)).collect()
    }
}

/// The routers of pocketscion support neither peering nor shortcuts such as between 112 and 113. On
/// all other paths these routers lead to the same host and change packets in the same way.
#[tokio::test]
async fn packets_arrive_as_with_the_routers_of_pocketscion() {
    let mut network = Network::new().await;
    let all_paths = network.all_paths();
    let mut buffer = [0; 2048];
    let mut compared = 0;
    for (link, it) in network.config.links.clone().into_iter().enumerate() {
        let own = network
            .topology
            .mut_scion_link(&isd_asn(it.from.ia), it.from.number.get());
        own.unwrap().set_is_up(false);
        network.routers.set(link, LinkState::Down);
        for (from, to, path) in &all_paths {
            let path = path.dp_path().to_model();
            let DpPath::Standard(standard) = &path else {
                panic!("{path:?}");
            };
            if standard.iter_info_fields().any(|it| it.flags.peering()) {
                continue;
            }
            network.send(*from, *to, path.clone(), b"x").await;
            let mut theirs = network.packet(*from, *to, path, b"x");
            let led = ScionNetworkSim::simulate_traversal::<SpecRoutingLogic>(
                &network.topology,
                &mut theirs,
                ScionNetworkTime::now(),
                network.routers.ases[*from].ia,
                0,
                false,
            );
            let led = led.unwrap();
            match led.action {
                LocalAsRoutingAction::ForwardLocal => {
                    assert_eq!(led.at_as, network.routers.ases[*to].ia);
                    let receiving = network.hosts[*to].recv(&mut buffer);
                    let length = timeout(TIMEOUT, receiving).await.unwrap().unwrap();
                    assert_eq!(&buffer[..length], theirs.as_slice());
                }
                LocalAsRoutingAction::SendSCMPErrorResponse(
                    ScmpErrorMessage::ExternalInterfaceDown(it),
                ) => match network.receive(*from).await {
                    Received::Error(ia, Complaint::Down(number)) => {
                        assert_eq!((ia, number), (it.isd_asn, it.interface_id));
                    }
                    _ => panic!("delivered, or refused for another reason: {it:?}"),
                },
                LocalAsRoutingAction::SendSCMPErrorResponse(
                    ScmpErrorMessage::ParameterProblem(_),
                ) => {
                    assert!([(2, 3), (3, 2)].contains(&(*from, *to)));
                    // One of the hosts receives the error; there is no packet to compare.
                    tokio::select! {
                        _ = network.receive(*from) => {}
                        _ = network.receive(*to) => {}
                    }
                    continue;
                }
                other => panic!("{other:?}"),
            }
            compared += 1;
        }
        let own = network
            .topology
            .mut_scion_link(&isd_asn(it.from.ia), it.from.number.get());
        own.unwrap().set_is_up(true);
        network.routers.set(link, LinkState::Up);
    }
    assert!(compared > 2000, "{compared}");
}

/// Sends a datagram over each path, and one back over the reversed path.
#[tokio::test]
async fn every_path_leads_there_and_back() {
    let network = Network::new().await;
    let all_paths = network.all_paths();
    let mut peering = 0;
    for (number, (from, to, path)) in all_paths.iter().enumerate() {
        let payload = number.to_be_bytes();
        network
            .send(*from, *to, path.dp_path().to_model(), &payload)
            .await;
        let (received, back) = network.receive_datagram(*to, path).await;
        assert_eq!(received, payload);
        if let DpPath::Standard(standard) = &back {
            let mut flags = standard.iter_info_fields().map(|it| it.flags);
            peering += usize::from(flags.any(|it| it.peering()));
        }
        network.send(*to, *from, back, &payload).await;
        let (received, _) = network.receive_datagram(*from, path).await;
        assert_eq!(received, payload);
    }
    assert!(all_paths.len() > 200, "{}", all_paths.len());
    // In both directions: three ASes with two (k), one with one (l), one with three (m), one with
    // one (n).
    assert_eq!(peering, 2 * (3 * 2 + 1 + 3 + 1));
}

/// Takes each link down in turn: the AS before it answers every packet that would cross it.
#[tokio::test]
async fn the_router_before_a_failed_link_reports_it() {
    let network = Network::new().await;
    let all_paths = network.all_paths();
    for (link, it) in network.config.links.iter().enumerate() {
        network.routers.set(link, LinkState::Down);
        let ends = [it.from, it.to].map(|end| (isd_asn(end.ia), end.number.get()));
        let mut told = 0;
        for (from, to, path) in &all_paths {
            network
                .send(*from, *to, path.dp_path().to_model(), b"x")
                .await;
            let interfaces = Network::interfaces(path);
            match interfaces.into_iter().find(|it| ends.contains(it)) {
                Some((ia, number)) => {
                    let error = network.receive_error(*from, path).await;
                    assert_eq!(error, (ia, Complaint::Down(number)), "{path:?}");
                    told += 1;
                }
                None => {
                    network.receive_datagram(*to, path).await;
                }
            }
        }
        assert!(told > 0, "{}", it.name);
        network.routers.set(link, LinkState::Up);
    }
}

/// Changes the last bit of each hop field of each path in turn. The AS that owns the hop field
/// refuses it, at any position.
#[tokio::test]
async fn a_forged_hop_field_is_refused_by_its_as() {
    let network = Network::new().await;
    for (from, to, path) in network.all_paths() {
        let DpPath::Standard(standard) = path.dp_path().to_model() else {
            panic!("{path:?}");
        };
        for hop in 0..standard.hop_field_count() {
            let mut forged = standard.clone();
            let mut fields = forged.segments.iter_mut().flat_map(|it| &mut it.hop_fields);
            fields.nth(hop).unwrap().mac.0[5] ^= 1;
            network.send(from, to, DpPath::Standard(forged), b"x").await;
            let (ia, complaint) = network.receive_error(from, &path).await;
            let wanted = Complaint::Parameter(Code::InvalidHopFieldMac);
            assert_eq!(complaint, wanted, "{path:?}");
            let mut on_path: Vec<_> = Network::interfaces(&path).iter().map(|it| it.0).collect();
            on_path.dedup();
            // Where two segments join, an AS has two hop fields; elsewhere it has one.
            let joins = standard.segments.iter().scan(0, |sum, it| {
                *sum += it.hop_fields.len();
                Some(*sum)
            });
            let peering = standard.iter_info_fields().any(|it| it.flags.peering());
            let before = if peering {
                0
            } else {
                joins.filter(|join| hop >= *join).count()
            };
            assert_eq!(ia, on_path[hop - before], "{hop} of {path:?}");
        }
    }
}

#[tokio::test]
async fn expired_paths_and_forged_sources_are_refused() {
    let network = Network::new().await;
    let (ases, ago) = (&network.routers.ases, chrono::Duration::days(2));
    let old = network
        .paths
        .between(ases[2].ia, ases[8].ia, Utc::now() - ago);
    let old = old.unwrap();
    assert!(old.len() > 3);
    for path in old {
        network.send(2, 8, path.dp_path().to_model(), b"x").await;
        let error = network.receive_error(2, &path).await;
        assert_eq!(error, (ases[2].ia, Complaint::Parameter(Code::PathExpired)));
    }

    // A host of AS 3 claims to be in AS 2 and uses a path of AS 2. Its router refuses the packet.
    let path = network
        .paths
        .between(ases[2].ia, ases[8].ia, Utc::now())
        .unwrap()
        .remove(0);
    let packet = network.packet(2, 8, path.dp_path().to_model(), b"forged");
    let sent = network.hosts[3]
        .send_to(packet.as_slice(), ases[3].address)
        .await;
    sent.unwrap();
    // The next packet to the same destination arrives first.
    network.send(2, 8, path.dp_path().to_model(), b"true").await;
    let (payload, _) = network.receive_datagram(8, &path).await;
    assert_eq!(payload, b"true");
}

/// The longest SCMP error has 1232 bytes, so it quotes the beginning of a long packet only (SCMP
/// specification, error messages).
#[tokio::test]
async fn errors_quote_the_beginning_of_long_packets() {
    let network = Network::new().await;
    let (from, to) = (network.routers.ases[2].ia, network.routers.ases[8].ia);
    let path = network
        .paths
        .between(from, to, Utc::now())
        .unwrap()
        .remove(0);
    let links = network.config.links.len();
    (0..links).for_each(|link| network.routers.set(link, LinkState::Down));
    for payload in [vec![7; 100], vec![7; 1200]] {
        let sent = network.packet(2, 8, path.dp_path().to_model(), &payload);
        network
            .send(2, 8, path.dp_path().to_model(), &payload)
            .await;
        let mut buffer = [0; 2048];
        let receiving = network.hosts[2].recv(&mut buffer);
        let length = timeout(TIMEOUT, receiving).await.unwrap().unwrap();
        let (packet, _) = ScionRawPacketView::try_from_slice(&buffer[..length]).unwrap();
        let ClassifiedPacketView::Scmp(scmp) = packet.try_classify().unwrap() else {
            panic!("not SCMP");
        };
        let ScmpMessageView::ExternalInterfaceDown(error) = scmp.scmp().message() else {
            panic!("another error");
        };
        let quote = error.offending_packet();
        // The hop fields may have been changed on the way.
        assert_eq!(quote[..24], sent.as_slice()[..24]);
        if payload.len() == 100 {
            assert_eq!(quote.len(), sent.as_slice().len());
        } else {
            assert!(quote.len() < sent.as_slice().len(), "{}", quote.len());
            assert_eq!(length, 1232);
        }
    }
}

/// Paths expire at the end of their lifetime, to the second, however many hops they have.
#[tokio::test]
async fn paths_expire_after_their_lifetime() {
    for lifetime in [1, 337, 338, 1000, 86_400] {
        let network = Network::with(|config| config.path_lifetime = lifetime).await;
        let (from, to) = (network.routers.ases[2].ia, network.routers.ases[8].ia);
        let at = Utc::now();
        for (age, expired) in [(0, false), (i64::from(lifetime) + 2, true)] {
            let created = at - chrono::Duration::seconds(age);
            for path in network.paths.between(from, to, created).unwrap() {
                let expiry = path.metadata().unwrap().expiration;
                let left = i64::try_from(expiry).unwrap() - created.timestamp();
                let wanted = i64::from(lifetime) - 1..=i64::from(lifetime);
                assert!(wanted.contains(&left), "{lifetime}: {left}");
                network.send(2, 8, path.dp_path().to_model(), b"x").await;
                match expired {
                    true => {
                        let error = network.receive_error(2, &path).await;
                        assert_eq!(error, (from, Complaint::Parameter(Code::PathExpired)));
                    }
                    false => {
                        network.receive_datagram(8, &path).await;
                    }
                }
            }
        }
    }
}

/// The MTU of a path is the smallest one of its ASes and links.
#[tokio::test]
async fn paths_have_the_mtu_of_their_links() {
    let network = Network::with(|config| {
        for (number, link) in config.links.iter_mut().enumerate() {
            link.mtu = 1300 + number as u16;
        }
        config.ases[4].mtu = 1290;
    })
    .await;
    let links = network.config.links.iter();
    let mtus: HashMap<_, _> = links
        .flat_map(|link| [(link.from, link.mtu), (link.to, link.mtu)])
        .map(|(end, mtu)| ((isd_asn(end.ia), end.number.get()), mtu))
        .collect();
    let small = network.routers.ases[4].ia;
    for (_, _, path) in network.all_paths() {
        let interfaces = Network::interfaces(&path);
        let narrowest = interfaces.iter().map(|it| match it.0 == small {
            true => 1290,
            false => mtus[it],
        });
        let mtu = path.metadata().unwrap().mtu;
        assert_eq!(Some(mtu), narrowest.min(), "{path:?}");
    }
}

/// Sends packets with some changed bytes, from a host and through every link. A router survives
/// them and forwards the next packet. The bytes of the host addresses stay, so that no other hosts
/// are sent anything.
#[tokio::test]
async fn broken_packets_do_no_harm() {
    let mut network = Network::new().await;
    // No host listens on a changed port.
    for host in &mut network.hosts {
        *host = UdpSocket::bind((own_address(1), 0)).await.unwrap();
    }
    let mut rng = fastrand::Rng::with_seed(3);
    for (from, to, path) in network.all_paths() {
        let whole = network.packet(from, to, path.dp_path().to_model(), b"x");
        for _ in 0..300 {
            let mut bytes = whole.as_slice().to_vec();
            for _ in 0..rng.usize(1..=4) {
                // The types of the host addresses, and the host addresses, both IPv4.
                if let at @ (..=8 | 10..=27 | 36..) = rng.usize(..bytes.len()) {
                    bytes[at] = rng.u8(..);
                }
            }
            bytes.truncate(rng.usize(bytes.len() / 2..=2 * bytes.len()));
            let Ok((packet, _)) = ScionRawPacketView::try_from_mut_slice(&mut bytes) else {
                continue;
            };
            let at = rng.usize(..network.routers.ases.len());
            // Each interface, and from inside.
            network.routers.forward(at, rng.u16(0..=14), packet);
        }
    }
    let fresh = Network {
        hosts: Network::new().await.hosts,
        ..network
    };
    let (from, to, path) = fresh.all_paths().remove(0);
    fresh
        .send(from, to, path.dp_path().to_model(), b"whole")
        .await;
    assert_eq!(fresh.receive_datagram(to, &path).await.0, b"whole");
}

#[tokio::test]
async fn packets_for_other_ports_go_to_the_dispatcher() {
    let dispatcher = UdpSocket::bind((own_address(2), DISPATCHER)).await.unwrap();
    let within = UdpSocket::bind((own_address(2), 0)).await.unwrap();
    let port = within.local_addr().unwrap().port();
    let ports = Ports {
        first: port,
        last: port,
    };
    let mut network = Network::with(|config| config.ases[8].ports = ports).await;
    network.hosts[8] = UdpSocket::bind((own_address(2), 0)).await.unwrap();
    let (from, to) = (network.routers.ases[2].ia, network.routers.ases[8].ia);
    let path = network
        .paths
        .between(from, to, Utc::now())
        .unwrap()
        .remove(0);
    network.send(2, 8, path.dp_path().to_model(), b"x").await;
    let mut buffer = [0; 2048];
    let received = timeout(TIMEOUT, dispatcher.recv(&mut buffer)).await;
    assert!(received.unwrap().unwrap() > 0);
    // A port in the range is delivered to directly.
    network.hosts[8] = within;
    network.send(2, 8, path.dp_path().to_model(), b"y").await;
    assert_eq!(network.receive_datagram(8, &path).await.0, b"y");
}
