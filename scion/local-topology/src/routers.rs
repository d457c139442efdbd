//! The border routers, one per AS. Each has a UDP socket for the hosts of its AS. A packet from one
//! router to the next is a function call.
//!
//! Paths are followed as defined by the [SCION data
//! plane](https://datatracker.ietf.org/doc/draft-dekater-scion-dataplane/), including peering,
//! MACs, expiry and SCMP errors. MTUs, router alerts (SCMP traceroute) and one-hop paths, which
//! hosts do not send, are not implemented.

mod hop;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use scion_tracker_core::address::IsdAs;
use sciparse::address::addr::ScionAddr;
use sciparse::core::model::Model as _;
use sciparse::core::view::View as _;
use sciparse::dataplane_path::standard::mac::ForwardingKey;
use sciparse::dataplane_path::view::{ScionDpPathViewExt as _, ScionDpPathViewRefMut};
use sciparse::identifier::isd_asn::IsdAsn;
use sciparse::packet::classify::ClassifiedPacketView;
use sciparse::packet::model::ScionScmpPacket;
use sciparse::packet::view::ScionRawPacketView;
use sciparse::payload::scmp::model::{
    ScmpExternalInterfaceDown, ScmpMessage, ScmpParameterProblem,
};
use sciparse::payload::scmp::types::ScmpParameterProblemCode as Code;
use sciparse::payload::scmp::view::ScmpMessageExt as _;
use tokio::net::UdpSocket;

use crate::config::{Config, LinkKind, Ports};
use hop::{Neighbour, Next, Problem, Router};

/// Largest datagram, in bytes.
const LONGEST: usize = 65_535;
/// Port of the dispatcher. Packets for ports that routers do not deliver to go there.
const DISPATCHER: u16 = 30_041;

/// Whether a link carries packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// The link carries packets.
    Up,
    /// Routers at its ends answer packets for it with an SCMP message (external interface down).
    Down,
    /// Packets for it are dropped without a message.
    Mute,
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Mute => "mute",
        })
    }
}

/// All routers, and the links between them.
pub(crate) struct Routers {
    /// In the order of the file, like the links.
    ases: Vec<As>,
    /// The other end of each interface.
    links: HashMap<(usize, u16), Lead>,
    states: RwLock<Vec<State>>,
}

/// The state of a link, and the packets that it carries before it fails by itself.
struct State {
    link: LinkState,
    /// [`u64::MAX`] if it does not fail by itself.
    packets: AtomicU64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            link: LinkState::Up,
            packets: AtomicU64::new(u64::MAX),
        }
    }
}

impl State {
    /// The state that a packet finds.
    fn next(&self) -> LinkState {
        let count = |left: u64| match left {
            u64::MAX => Some(u64::MAX),
            left => left.checked_sub(1),
        };
        match self.link {
            LinkState::Up if self.packets.fetch_update(Relaxed, Relaxed, count).is_err() => {
                LinkState::Down
            }
            state => state,
        }
    }
}

/// A router and its AS.
struct As {
    ia: IsdAsn,
    router: Router,
    socket: UdpSocket,
    /// The address of the socket, from which SCMP messages are sent.
    address: SocketAddr,
    ports: Ports,
}

/// The other end of an interface.
#[derive(Debug, Clone, Copy)]
struct Lead {
    link: usize,
    /// The AS there, and its interface.
    to: (usize, u16),
}

impl Routers {
    /// Binds the addresses of the routers.
    pub(crate) async fn bind(
        config: &Config,
        key: impl Fn(IsdAs) -> Option<ForwardingKey>,
    ) -> anyhow::Result<Self> {
        let mut ases = Vec::with_capacity(config.ases.len());
        for it in &config.ases {
            let bound = UdpSocket::bind(it.router).await;
            let socket = bound.with_context(|| format!("cannot listen on UDP {}", it.router))?;
            let interfaces = config.interfaces(it.ia).map(|(own, link, _)| {
                let neighbour = match link.kind {
                    LinkKind::Core => Neighbour::Core,
                    LinkKind::Peer => Neighbour::Peer,
                    LinkKind::Child if own == link.from => Neighbour::Child,
                    LinkKind::Child => Neighbour::Parent,
                };
                (own.number.get(), neighbour)
            });
            ases.push(As {
                ia: IsdAsn(it.ia.to_u64()),
                router: Router {
                    key: key(it.ia).with_context(|| format!("{} has no forwarding key", it.ia))?,
                    interfaces: interfaces.collect(),
                },
                address: socket.local_addr()?,
                socket,
                ports: it.ports,
            });
        }
        let place = |ia| {
            let found = config.ases.iter().position(|it| it.ia == ia);
            found.with_context(|| format!("there is no AS {ia}"))
        };
        let mut links = HashMap::new();
        for (link, it) in config.links.iter().enumerate() {
            let [from, to] = [it.from, it.to].map(|end| (end.ia, end.number.get()));
            let (from, to) = ((place(from.0)?, from.1), (place(to.0)?, to.1));
            links.insert(from, Lead { link, to });
            links.insert(to, Lead { link, to: from });
        }
        Ok(Self {
            ases,
            links,
            states: RwLock::new(config.links.iter().map(|_| State::default()).collect()),
        })
    }

    /// The addresses of the routers, in the order of the file.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.ases.iter().map(|it| it.address)
    }

    /// Changes the state of a link, given its index in the file.
    pub(crate) fn set(&self, link: usize, state: LinkState) {
        let mut states = self.states.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(it) = states.get_mut(link) {
            *it = State {
                link: state,
                ..State::default()
            };
        }
    }

    /// Has a link carry this number of packets and then fail.
    pub(crate) fn fail_after(&self, link: usize, packets: u64) {
        let mut states = self.states.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(it) = states.get_mut(link) {
            *it = State {
                link: LinkState::Up,
                packets: packets.into(),
            };
        }
    }

    /// Forwards the packets of hosts, on the current runtime, until that ends.
    pub(crate) fn spawn(self: &Arc<Self>) {
        for at in 0..self.ases.len() {
            let routers = Arc::clone(self);
            tokio::spawn(async move {
                let error = routers.serve(at).await;
                tracing::error!(%error, ia = %routers.ases[at].ia, "a border router stopped");
            });
        }
    }

    async fn serve(&self, at: usize) -> io::Error {
        let socket = &self.ases[at].socket;
        let mut buffer = vec![0; LONGEST];
        loop {
            if let Err(error) = socket.readable().await {
                return error;
            }
            match socket.try_recv_from(&mut buffer) {
                Ok((length, from)) => {
                    match ScionRawPacketView::try_from_mut_slice(&mut buffer[..length]) {
                        Ok((packet, _)) => self.forward(at, 0, packet),
                        Err(error) => tracing::debug!(%error, %from, "dropped: not a SCION packet"),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // An error that concerns an earlier packet.
                Err(error) => tracing::debug!(%error, "cannot receive"),
            }
        }
    }

    /// Carries a packet to its host. The packet is in AS `at`: it came from another AS through
    /// interface `ingress`, or from inside if `ingress` is 0.
    fn forward(&self, mut at: usize, mut ingress: u16, packet: &mut ScionRawPacketView) {
        // Each round advances by a hop field, so the loop ends.
        loop {
            let here = &self.ases[at];
            match here.arrive(packet, ingress) {
                Ok(Next::Here) => return here.deliver(packet),
                Ok(Next::Out(egress)) => match self.lead(at, egress) {
                    (LinkState::Up, Some(to)) => {
                        if let ScionDpPathViewRefMut::Standard(path) =
                            packet.header_mut().path_mut()
                        {
                            hop::leave(path);
                        }
                        (at, ingress) = to;
                    }
                    (LinkState::Down, _) => {
                        let quote = packet.as_slice().to_vec();
                        let down = ScmpExternalInterfaceDown::new(here.ia, egress, quote);
                        return self.answer(at, ingress, packet, down.into());
                    }
                    _ => return,
                },
                Err(Problem::Malformed) => {
                    return tracing::debug!(ia = %here.ia, "dropped: malformed path");
                }
                Err(Problem::Parameter(code)) => {
                    tracing::debug!(ia = %here.ia, ?code, "refused");
                    // The pointer (an offset in the packet) is always 0.
                    let quote = packet.as_slice().to_vec();
                    let problem = ScmpParameterProblem::new(code, 0, quote);
                    return self.answer(at, ingress, packet, problem.into());
                }
            }
        }
    }

    /// Sends an SCMP error to the source of a packet, back through the interface that it came in
    /// by. An SCMP error is not answered.
    fn answer(&self, at: usize, ingress: u16, packet: &ScionRawPacketView, error: ScmpMessage) {
        if let Ok(ClassifiedPacketView::Scmp(it)) = packet.try_classify()
            && it.scmp().message().is_error()
        {
            return;
        }
        let here = &self.ases[at];
        let from = ScionAddr::new(here.ia, here.address.ip().into());
        let mut path = packet.header().path().to_model();
        let (Ok(to), Ok(())) = (packet.src_scion_addr(), path.try_reverse()) else {
            return;
        };
        let answer = ScionScmpPacket::new(from, to, path, error).into_raw();
        let mut answer = match answer.try_encode_to_owned_view() {
            Ok(answer) => answer,
            Err(error) => return tracing::debug!(%error, "cannot write the SCMP error"),
        };
        if ingress == 0 {
            if to.isd_asn() == here.ia {
                here.deliver(&answer);
            }
        } else if let (LinkState::Up, Some((at, ingress))) = self.lead(at, ingress) {
            if let ScionDpPathViewRefMut::Standard(path) = answer.header_mut().path_mut() {
                hop::turn_back(path);
            }
            self.forward(at, ingress, &mut answer);
        }
    }

    /// The other end of an interface, and the state of the link for one packet.
    fn lead(&self, at: usize, interface: u16) -> (LinkState, Option<(usize, u16)>) {
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        match self.links.get(&(at, interface)) {
            Some(lead) => (states[lead.link].next(), Some(lead.to)),
            None => (LinkState::Down, None),
        }
    }
}

impl As {
    /// Processes a packet in this AS. It came from another AS through interface `ingress`, or from
    /// inside if `ingress` is 0.
    fn arrive(&self, packet: &mut ScionRawPacketView, ingress: u16) -> Result<Next, Problem> {
        let header = packet.header_mut();
        let (source, destination) = (header.src_ia(), header.dst_ia());
        let next = match header.path_mut() {
            ScionDpPathViewRefMut::Empty => Next::Here,
            ScionDpPathViewRefMut::Standard(path) => {
                // SCMP errors of routers start in the middle of a path.
                let starts = ingress == 0 && path.curr_hop_field_idx() == 0;
                let next = self.router.arrive(path, ingress, now())?;
                if starts && source != self.ia || ingress != 0 && source == self.ia {
                    return Err(Problem::Parameter(Code::InvalidSourceAddress));
                }
                next
            }
            _ => return Err(Problem::Malformed),
        };
        match next {
            Next::Here if destination != self.ia => Err(Problem::Parameter(Code::NonLocalDelivery)),
            Next::Out(_) if destination == self.ia => {
                Err(Problem::Parameter(Code::InvalidDestinationAddress))
            }
            next => Ok(next),
        }
    }

    /// Delivers a packet to its host and UDP port; an SCMP error to the source port of the packet
    /// that it quotes.
    fn deliver(&self, packet: &ScionRawPacketView) {
        let to = packet.try_classify().ok();
        let Some(mut to) = to.and_then(|it| it.dst_socket_addr()?.socket_addr()) else {
            return tracing::debug!(ia = %self.ia, "dropped: no IP address and port");
        };
        if !(self.ports.first..=self.ports.last).contains(&to.port()) {
            to.set_port(DISPATCHER);
        }
        // A full queue drops packets.
        if let Err(error) = self.socket.try_send_to(packet.as_slice(), to) {
            tracing::debug!(%error, %to, "cannot deliver");
        }
    }
}

/// Seconds since 1970.
fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
    })
}

#[cfg(test)]
mod tests;
