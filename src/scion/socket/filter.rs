//! Decides which received packets are for this endpoint, and the next hop of their answers. Has no
//! socket and no state.

use std::net::SocketAddr;

use ipnet::IpNet;
use scion_tracker_core::address::{Host, IsdAs, ScionAddr};
use scion_tracker_core::codec::scion::{
    Answer, Message, Packet, PacketError, Path, Scmp, Unsealed, parse, write_echo_reply,
};
use scion_tracker_core::request::OriginIsdAs;

use super::batch::EchoRequest;
use crate::counters::Counter;
use crate::scion::topology::Topology;

/// Why a packet is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reject {
    /// The packet is malformed, or cannot be answered.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// The packet is for another host, port or AS.
    #[error("not addressed to this endpoint")]
    Elsewhere,
    /// The path is empty but the source is in another AS, or the reverse.
    #[error("path does not fit the source")]
    Path,
    /// The underlay source is neither the border router of the path nor the source host.
    #[error("not sent by the border router of its path")]
    Underlay,
    /// The source port is 0.
    #[error("source cannot be answered")]
    Unanswerable,
}

impl From<Reject> for Counter {
    fn from(reject: Reject) -> Self {
        match reject {
            Reject::Packet(_) => Self::ScionMalformed,
            Reject::Elsewhere => Self::ScionElsewhere,
            Reject::Path => Self::ScionWrongPath,
            Reject::Underlay => Self::ScionWrongUnderlay,
            Reject::Unanswerable => Self::ScionUnanswerable,
        }
    }
}

/// A packet for this endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) enum Admitted<'a> {
    /// A UDP datagram, and whether its checksum is right.
    Datagram(Datagram<'a>, bool),
    /// An SCMP message, within its packet.
    Control(Packet<'a>),
}

/// A UDP datagram for this endpoint, with the path and the underlay source of its packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Datagram<'a> {
    /// Source, as stated in the packet.
    pub(crate) source: ScionAddr,
    /// The payload of the datagram.
    pub(crate) payload: &'a [u8],
    /// Path of the packet.
    pub(super) path: Path<'a>,
    /// Underlay source of the packet.
    pub(super) underlay: SocketAddr,
}

/// UDP port on which end hosts without a dispatcher may also receive. Border routers deliver SCMP echo
/// requests to it, and packets for ports outside `dispatched_ports`; some programs send to it inside
/// their own AS. A dispatcher, if the host has one, receives there and sends from there.
pub(crate) const ENDHOST_PORT: u16 = 30041;

/// The known border routers of our AS. Each checks that packets come from its neighbour AS. A
/// packet from another underlay address may be from anyone.
#[derive(Debug, Clone)]
pub(crate) enum Routers {
    /// The router of each interface, from topology.json or the daemon. Packets must come from the
    /// router of the interface where their path enters the AS, and answers go there.
    Topology(Topology),
    /// The networks of the routers. Answers go back to the underlay source.
    Networks(Vec<IpNet>),
    /// Nothing is known. Packets from all addresses are accepted, and do not prove their ISD-AS.
    Unknown,
}

impl Routers {
    /// Uses the topology, or the networks if there is none.
    pub(crate) fn new(topology: Option<Topology>, networks: Vec<IpNet>) -> Self {
        match topology {
            Some(topology) => Self::Topology(topology),
            None if networks.is_empty() => Self::Unknown,
            None => Self::Networks(networks),
        }
    }
}

/// Longest answer over a path whose MTU is not known, in bytes with SCION headers: the smallest MTU of
/// SCION paths in use.
const PATH_MTU: usize = 1280;

/// Our own address, and the border routers of our AS.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    local: ScionAddr,
    routers: Routers,
    /// Longest packet inside our AS, in bytes.
    inside_mtu: usize,
}

impl Filter {
    pub(super) fn new(local: ScionAddr, routers: Routers) -> Self {
        let mtu = match &routers {
            Routers::Topology(topology) => topology.mtu(),
            _ => None,
        };
        Self {
            local,
            routers,
            inside_mtu: mtu.map_or(PATH_MTU, usize::from),
        }
    }

    /// Whether an admitted packet from this AS proves its ISD-AS.
    pub(super) fn proves(&self, ia: IsdAs) -> OriginIsdAs {
        match self.routers {
            Routers::Unknown if ia != self.local.host.ia => OriginIsdAs::Claimed,
            _ => OriginIsdAs::Proven,
        }
    }

    /// Our own address.
    pub(crate) const fn local(&self) -> ScionAddr {
        self.local
    }

    /// Reads a packet from this underlay address, and checks that it is for this endpoint.
    // Inlined, as its callers are: as functions they would hand the datagram on through memory.
    #[inline(always)]
    pub(super) fn admit<'a>(
        &self,
        bytes: &'a [u8],
        underlay: SocketAddr,
    ) -> Result<Admitted<'a>, Reject> {
        let parsed = parse(bytes);
        // Read where it is: a packet is long.
        let packet = match &parsed {
            Ok(packet) => packet,
            Err(error) => return Err((*error).into()),
        };
        if packet.destination != self.local.host {
            return Err(Reject::Elsewhere);
        }
        // Border routers drop packets from outside that claim to be from inside, and so do we. SCMP
        // errors from routers of our own AS are the exception: they have the reversed path of the
        // packet that they quote.
        let inside = packet.source.ia == self.local.host.ia;
        let quotes = matches!(&packet.message, Message::Scmp(scmp) if scmp.quote().is_some());
        if packet.path.is_empty() != inside && !(inside && quotes) {
            return Err(Reject::Path);
        }
        let fits = match (inside, quotes) {
            (true, true) => self.is_router(underlay),
            (true, false) => self.is_host(packet.source, underlay),
            (false, _) => self.is_router_of(packet.path, underlay),
        };
        if !fits {
            return Err(Reject::Underlay);
        }
        let udp = match &packet.message {
            Message::Udp(udp) => udp,
            Message::Scmp(_) => return Ok(Admitted::Control(*packet)),
        };
        if udp.destination_port != self.local.port {
            return Err(Reject::Elsewhere);
        }
        let (host, port) = (packet.source, udp.source_port);
        let source = ScionAddr::new(host.ia, host.ip(), port).map_err(|_| Reject::Unanswerable)?;
        let datagram = Datagram {
            source,
            payload: udp.payload,
            path: packet.path,
            underlay,
        };
        Ok(Admitted::Datagram(datagram, packet.checksum_is_right()))
    }

    /// Whether this is the underlay address of a host of our AS, or the dispatcher of our own host.
    ///
    /// Packets without a path are answered to their underlay source, so without this check anyone
    /// could direct answers to others.
    fn is_host(&self, host: Host, underlay: SocketAddr) -> bool {
        host.ip() == underlay.ip().to_canonical()
            || (host == self.local.host && self.is_dispatcher(underlay))
    }

    /// Whether this is the router of the interface where a path enters our AS. Ports are not
    /// compared: a router may send from several.
    fn is_router_of(&self, path: Path<'_>, underlay: SocketAddr) -> bool {
        match &self.routers {
            Routers::Topology(topology) => {
                let router = path.last_ingress().and_then(|it| topology.next_hop(it));
                let ip = underlay.ip().to_canonical();
                router.is_some_and(|it| it.ip() == ip || self.is_dispatcher(underlay))
            }
            _ => self.is_router(underlay),
        }
    }

    /// Whether this is one of the routers.
    fn is_router(&self, underlay: SocketAddr) -> bool {
        let ip = underlay.ip().to_canonical();
        let known = match &self.routers {
            Routers::Topology(topology) => topology.border_routers().any(|it| it == ip),
            Routers::Networks(networks) => networks.iter().any(|it| it.contains(&ip)),
            Routers::Unknown => true,
        };
        known || self.is_dispatcher(underlay)
    }

    /// Whether this is the dispatcher of this host. It forwards packets of routers, but also those
    /// of anyone else. The firewall must allow only the routers to reach its port and the port of
    /// the tracker.
    fn is_dispatcher(&self, underlay: SocketAddr) -> bool {
        let ip = underlay.ip().to_canonical();
        underlay.port() == ENDHOST_PORT && (ip.is_loopback() || ip == self.local.host.ip())
    }

    /// The next hop of an answer along this path to a packet from this underlay address.
    ///
    /// Inside the AS it is the host and port of the receiver: the packet may have come through a
    /// dispatcher. [`Filter::admit`] has checked that its host sent it. Between ASes it is the
    /// underlay source, which is a border router. With a topology it is the router in the topology,
    /// so that the answer also arrives if the dispatcher of this host forwarded the packet.
    pub(super) fn next_hop(
        &self,
        answer: Path<'_>,
        to: ScionAddr,
        underlay: SocketAddr,
    ) -> SocketAddr {
        if answer.is_empty() {
            return receiver(to, underlay);
        }
        match &self.routers {
            Routers::Topology(topology) => router(topology, answer).unwrap_or(underlay),
            _ => underlay,
        }
    }

    /// Writes the answer to an echo request. The answer is not longer than the request. Returns its
    /// next hop.
    pub(super) fn answer_echo(
        &self,
        request: &EchoRequest<'_>,
        out: &mut Vec<u8>,
    ) -> Result<SocketAddr, Reject> {
        let packet = parse(request.bytes)?;
        let Message::Scmp(Scmp::EchoRequest(echo)) = packet.message else {
            return Err(Reject::Unanswerable);
        };
        write_echo_reply(&packet, &echo, out).map_err(|_| Reject::Unanswerable)?;
        let path = parse(out)?.path;
        Ok(match &self.routers {
            Routers::Topology(topology) => router(topology, path).unwrap_or(request.underlay),
            // SCMP has no ports: inside the AS the sender receives where it sends from.
            _ => request.underlay,
        })
    }

    /// The underlay source of a packet, if its answers go there.
    pub(super) fn via(&self, path: Path<'_>, underlay: SocketAddr) -> Option<SocketAddr> {
        let named = matches!(self.routers, Routers::Topology(_)) || path.is_empty();
        (!named).then_some(underlay)
    }

    /// Writes the answer to one datagram without any state. It uses the path of the request, so no
    /// forged packet can divert it.
    ///
    /// `serve` writes the payload of the answer and returns its length, 0 for no answer. The answer
    /// fits the MTU of the AS, or 1280 bytes between ASes, where the MTU is not known. The packet is
    /// then at the start of `reply`, must be sealed, and is returned with its next hop.
    #[inline]
    pub(super) fn answer(
        &self,
        request: &Datagram<'_>,
        reply: &mut [u8],
        serve: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<Option<(Unsealed, SocketAddr)>, Reject> {
        let Datagram { source, path, .. } = *request;
        let mtu = if path.is_empty() {
            self.inside_mtu
        } else {
            PATH_MTU
        };
        let longest = mtu.min(reply.len());
        let reply = &mut reply[..longest];
        let mut answer =
            Answer::between(self.local, source, path, reply).map_err(|_| Reject::Unanswerable)?;
        let room = answer.room();
        let space = room.len();
        let length = serve(room).min(space);
        if length == 0 {
            return Ok(None);
        }
        let next_hop = self.next_hop(answer.path(), source, request.underlay);
        let unsealed = answer.written(length).map_err(|_| Reject::Unanswerable)?;
        Ok(Some((unsealed, next_hop)))
    }
}

/// The underlay address of a host of our AS that sent a packet from `underlay`.
fn receiver(to: ScionAddr, mut underlay: SocketAddr) -> SocketAddr {
    // An IPv6 address of a link also has a scope, which only the underlay address tells.
    if underlay.ip().to_canonical() != to.host.ip() {
        underlay.set_ip(to.host.ip());
    }
    underlay.set_port(to.port);
    underlay
}

/// The border router where a path leaves our AS.
fn router(topology: &Topology, path: Path<'_>) -> Option<SocketAddr> {
    topology.next_hop(path.first_egress()?)
}

#[cfg(test)]
mod tests {
    use scion_tracker_core::codec::scion::{Echo, Template, write_echo_request};

    use super::*;

    fn addr(text: &str) -> ScionAddr {
        text.parse().unwrap()
    }

    /// The underlay address of a host.
    fn addr_of(text: &str) -> SocketAddr {
        let addr = addr(text);
        SocketAddr::new(addr.host.ip(), addr.port)
    }

    fn packet(from: &str, to: &str, path: &[u8]) -> Vec<u8> {
        let path = Path::parse(path).unwrap();
        let mut out = Vec::new();
        let template = Template::new(addr(from), addr(to), path).unwrap();
        template.write(b"request", &mut out).unwrap();
        out
    }

    /// One segment, down from interface 6 of one AS to interface 7 of another.
    pub(super) fn path() -> Vec<u8> {
        let mut path = vec![1, 0, 0x20, 0, 1, 0, 0, 1, 0x70, 0, 0, 0];
        path.extend_from_slice(&[0, 63, 0, 0, 0, 6, 1, 2, 3, 4, 5, 6]);
        path.extend_from_slice(&[0, 63, 0, 7, 0, 0, 6, 5, 4, 3, 2, 1]);
        path
    }

    /// An SCMP message of this type, with a path.
    fn control(from: &str, to: &str, kind: u8) -> Vec<u8> {
        let (path, mut out) = (path(), Vec::new());
        let echo = Echo {
            identifier: 0,
            sequence: 0,
            data: &[0; 40],
        };
        let path = Path::parse(&path).unwrap();
        write_echo_request(addr(from).host, addr(to).host, path, &echo, &mut out).unwrap();
        let upper = 4 * usize::from(out[5]);
        out[upper] = kind;
        out
    }

    /// Admits and answers a packet.
    fn answer(
        filter: &Filter,
        request: &[u8],
        underlay: SocketAddr,
        reply: &mut [u8],
        serve: impl FnOnce(&Datagram<'_>, &mut [u8]) -> usize,
    ) -> Result<Option<(usize, SocketAddr)>, Reject> {
        let Ok(Admitted::Datagram(request, _)) = filter.admit(request, underlay) else {
            panic!("not admitted");
        };
        let answered = filter.answer(&request, reply, |out| serve(&request, out))?;
        Ok(answered.map(|(unsealed, next_hop)| {
            let length = unsealed.packet_len();
            unsealed.seal(&mut reply[..length]);
            (length, next_hop)
        }))
    }

    const SERVER: &str = "1-ff00:0:110,[10.0.0.1]:31969";
    const NEAR: &str = "1-ff00:0:110,[10.0.0.2]:40000";
    const FAR: &str = "2-ff00:0:210,[10.0.0.2]:40000";

    #[test]
    fn only_what_is_for_us_and_can_be_answered_comes_in() {
        let filter = Filter::new(addr(SERVER), Routers::Unknown);
        let underlay = "10.0.0.2:1".parse().unwrap();
        let admit = |bytes: &[u8]| filter.admit(bytes, underlay).map(|_| ());
        assert_eq!(admit(&packet(NEAR, SERVER, &[])), Ok(()));
        assert_eq!(admit(&packet(FAR, SERVER, &path())), Ok(()));
        assert_eq!(admit(&packet(FAR, SERVER, &[])), Err(Reject::Path));
        assert_eq!(admit(&packet(NEAR, SERVER, &path())), Err(Reject::Path));
        let (echo, down) = (128, 5);
        assert_eq!(admit(&control(NEAR, SERVER, echo)), Err(Reject::Path));
        assert_eq!(admit(&control(NEAR, SERVER, down)), Ok(()));
        assert_eq!(admit(&control(FAR, SERVER, echo)), Ok(()));
        assert_eq!(admit(&control(FAR, SERVER, down)), Ok(()));
        for elsewhere in [
            "1-ff00:0:110,[10.0.0.1]:31970",
            "1-ff00:0:110,[10.0.0.3]:31969",
            "1-ff00:0:111,[10.0.0.1]:31969",
        ] {
            let bytes = packet(FAR, elsewhere, &path());
            assert_eq!(admit(&bytes), Err(Reject::Elsewhere), "{elsewhere}");
        }
        let mut no_port = packet(NEAR, SERVER, &[]);
        no_port[36..38].fill(0);
        assert_eq!(admit(&no_port), Err(Reject::Unanswerable));
        assert_eq!(admit(b"x"), Err(Reject::Packet(PacketError::Truncated)));
    }

    #[test]
    fn answers_go_back_where_packets_come_from_unless_the_topology_knows_better() {
        let underlay: SocketAddr = "127.0.0.1:30041".parse().unwrap();
        let host: SocketAddr = "10.0.0.2:7".parse().unwrap();
        let topology = r#"{"isd_as": "1-ff00:0:110", "border_routers":
            {"br": {"internal_addr": "10.0.0.254:30001", "interfaces": {"7": {}}}}}"#;
        let known = Filter::new(addr(SERVER), Routers::Topology(topology.parse().unwrap()));
        let unknown = Filter::new(addr(SERVER), Routers::Unknown);
        let next_hop = |filter: &Filter, from: &str, path: &[u8], underlay| {
            let request = packet(from, SERVER, path);
            let mut reply = [0; 256];
            let serve = |request: &Datagram<'_>, out: &mut [u8]| {
                assert_eq!(request.source, addr(from));
                assert_eq!(request.payload, b"request");
                out[..5].copy_from_slice(b"reply");
                5
            };
            let answered = answer(filter, &request, underlay, &mut reply, serve);
            let (length, next_hop) = answered.unwrap().unwrap();
            let reply = parse(&reply[..length]).unwrap();
            assert!(reply.checksum_is_right());
            assert!(matches!(reply.message, Message::Udp(udp) if udp.payload == b"reply"));
            assert_eq!(reply.destination, addr(from).host);
            next_hop.to_string()
        };
        // Inside the AS to the port in the packet, also if it came through our dispatcher.
        let own = "1-ff00:0:110,[10.0.0.1]:40001";
        assert_eq!(next_hop(&unknown, NEAR, &[], host), "10.0.0.2:40000");
        assert_eq!(next_hop(&unknown, own, &[], underlay), "10.0.0.1:40001");
        assert_eq!(
            next_hop(&unknown, FAR, &path(), underlay),
            "127.0.0.1:30041"
        );
        assert_eq!(next_hop(&known, NEAR, &[], host), "10.0.0.2:40000");
        assert_eq!(next_hop(&known, FAR, &path(), underlay), "10.0.0.254:30001");
    }

    #[test]
    fn packets_come_from_the_router_of_their_path_or_from_their_own_host() {
        let topology = r#"{"isd_as": "1-ff00:0:110", "border_routers": {
            "br-1": {"internal_addr": "10.0.0.254:30001", "interfaces": {"7": {}}},
            "br-2": {"internal_addr": "10.0.0.253:30001", "interfaces": {"8": {}}}}}"#;
        let topology = Routers::Topology(topology.parse().unwrap());
        let networks = Routers::Networks(vec!["10.0.0.252/30".parse().unwrap()]);
        let by = |interface| {
            let mut path = path();
            path[27] = interface;
            path
        };
        let (far, other, unknown) = (
            packet(FAR, SERVER, &by(7)),
            packet(FAR, SERVER, &by(8)),
            packet(FAR, SERVER, &by(9)),
        );
        let near = packet(NEAR, SERVER, &[]);
        let mapped = "[::ffff:10.0.0.254]:30001";
        let own = packet("1-ff00:0:110,[10.0.0.1]:40000", SERVER, &[]);
        let echo = control(FAR, SERVER, 128);
        let down = control(NEAR, SERVER, 5);
        for (routers, bytes, underlay, fits) in [
            (&topology, &far, "10.0.0.254:30001", true),
            (&topology, &far, "10.0.0.254:5", true),
            (&topology, &far, mapped, true),
            (&topology, &far, "10.0.0.253:30001", false),
            (&topology, &far, "10.0.0.66:30001", false),
            (&topology, &far, "127.0.0.1:30041", true),
            (&topology, &far, "10.0.0.1:30041", true),
            (&topology, &far, "10.0.0.66:30041", false),
            (&topology, &far, "127.0.0.1:30042", false),
            (&topology, &other, "10.0.0.253:30001", true),
            (&topology, &unknown, "10.0.0.254:30001", false),
            (&topology, &unknown, "127.0.0.1:30041", false),
            (&topology, &echo, "10.0.0.254:30001", true),
            (&topology, &echo, "10.0.0.66:30001", false),
            (&topology, &down, "10.0.0.253:30001", true),
            (&topology, &down, "10.0.0.66:30001", false),
            (&networks, &far, "10.0.0.254:30001", true),
            (&networks, &unknown, "10.0.0.253:30001", true),
            (&networks, &far, "10.0.0.66:30001", false),
            (&networks, &down, "10.0.0.66:30001", false),
            (&Routers::Unknown, &far, "10.0.0.66:1", true),
            (&topology, &near, "10.0.0.2:1", true),
            (&topology, &near, "10.0.0.66:40000", false),
            (&topology, &near, "10.0.0.254:30001", false),
            (&topology, &near, "127.0.0.1:30041", false),
            (&networks, &near, "10.0.0.66:40000", false),
            (&Routers::Unknown, &near, "10.0.0.66:40000", false),
            (&Routers::Unknown, &near, "10.0.0.2:1", true),
            (&topology, &own, "127.0.0.1:30041", true),
            (&topology, &own, "127.0.0.1:30042", false),
        ] {
            let filter = Filter::new(addr(SERVER), routers.clone());
            let admitted = filter.admit(bytes, underlay.parse().unwrap()).map(|_| ());
            let expected = if fits { Ok(()) } else { Err(Reject::Underlay) };
            assert_eq!(admitted, expected, "{routers:?}, {underlay}, {bytes:02x?}");
        }
    }

    #[test]
    fn only_known_routers_and_the_own_as_prove_an_isd_as() {
        let topology = Routers::Topology(r#"{"isd_as": "1-ff00:0:110"}"#.parse().unwrap());
        let networks = Routers::Networks(vec!["10.0.0.252/30".parse().unwrap()]);
        let (near, far) = (addr(NEAR).host.ia, addr(FAR).host.ia);
        for (routers, expected) in [
            (topology, OriginIsdAs::Proven),
            (networks, OriginIsdAs::Proven),
            (Routers::Unknown, OriginIsdAs::Claimed),
        ] {
            let filter = Filter::new(addr(SERVER), routers);
            assert_eq!(filter.proves(far), expected);
            assert_eq!(filter.proves(near), OriginIsdAs::Proven);
        }
    }

    #[test]
    fn answers_fit_the_mtu_of_the_path() {
        let topology = |mtu| {
            let topology = format!(r#"{{"isd_as": "1-ff00:0:110"{mtu}}}"#);
            Routers::Topology(topology.parse().unwrap())
        };
        // An IPv4 header of 44 bytes, with a path of 36.
        for (routers, inside) in [
            (Routers::Unknown, 1280 - 44),
            (topology(""), 1280 - 44),
            (topology(r#", "mtu": 1400"#), 1400 - 44),
            (topology(r#", "mtu": 9000"#), 1472 - 44),
            (topology(r#", "mtu": 1100"#), 1100 - 44),
        ] {
            let filter = Filter::new(addr(SERVER), routers);
            for (from, path, expected) in [(NEAR, vec![], inside), (FAR, path(), 1280 - 80)] {
                let request = packet(from, SERVER, &path);
                let request = parse(&request).unwrap();
                let datagram = Datagram {
                    source: addr(from),
                    payload: b"",
                    path: request.path,
                    underlay: addr_of(from),
                };
                let mut room = 0;
                let serve = |out: &mut [u8]| {
                    room = out.len();
                    0
                };
                let silent = filter.answer(&datagram, &mut [0; 1472], serve);
                assert!(matches!(silent, Ok(None)));
                assert_eq!(room, expected, "{filter:?}, {from}");
            }
        }
    }

    #[test]
    fn no_answer_and_no_room_are_no_packet() {
        let filter = Filter::new(addr(SERVER), Routers::Unknown);
        let underlay: SocketAddr = "10.0.0.2:1".parse().unwrap();
        let request = packet(NEAR, SERVER, &[]);
        let silent = answer(&filter, &request, underlay, &mut [0; 100], |_, _| 0);
        assert_eq!(silent, Ok(None));
        let cramped = answer(&filter, &request, underlay, &mut [0; 20], |_, _| 1);
        assert_eq!(cramped, Err(Reject::Unanswerable));
        let eager = answer(&filter, &request, underlay, &mut [0; 50], |_, out| {
            out.len() + 1
        });
        assert_eq!(eager, Ok(Some((50, addr_of(NEAR)))));
    }
}
