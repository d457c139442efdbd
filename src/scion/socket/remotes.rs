//! Tracks remotes and the paths of answers to them, without a socket or clock.
//!
//! SCION authenticates neither source hosts nor paths. Anyone can send a packet with a forged
//! source, over any path. These rules limit the harm:
//! - The table has a size limit. A remote without proof is *fresh*. The oldest fresh remotes are
//!   removed first. A remote that has sent back a connection id that we gave it is *established*:
//!   it receives our packets, so its address is not forged. Fresh remotes never push out
//!   established ones.
//! - A connection id proves a remote only if we gave it to this very remote ([`ConnectionIds`]).
//!   Ids that are merely seen in packets are not stored.
//! - An answer to a fresh remote takes the path of its latest packet, back to where the request
//!   came from. An established remote keeps its path while the path works.
//! - An SCMP error counts only if it quotes a packet to an established remote over the path in use.
//!   Only QUIC packets that it quotes are sent again: once, to that remote.

mod path_state;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use scion_tracker_core::address::{IsdAs, ScionAddr};
use scion_tracker_core::codec::scion::{BuildError, Packet, Path, Quoted, Scmp, Template};

use super::cids::ConnectionIds;
use super::quic::{self, Token};
use super::synthetic::SyntheticAddrs;
use path_state::PathState;
pub(super) use path_state::shared;

/// An established remote may change its path when nothing has come over the current one for this
/// long. The time is between a round trip and the time after which a QUIC client sends lost packets
/// again.
const SILENT: Duration = Duration::from_millis(300);
/// The same, if the packet over the other path has no known connection id. A client that changes
/// its id together with its path is answered again after this time. A forger is too, but only until
/// the next packet with a known id.
const LOST: Duration = Duration::from_secs(1);
/// A remote may change its path when the current one expires within this many seconds.
const EXPIRING: u32 = 60;
/// Established remotes that are silent for this long are removed. QUIC connections end earlier.
const FORGET: Duration = Duration::from_secs(120);
/// The same when the table is full.
const FORGET_WHEN_FULL: Duration = Duration::from_secs(30);
/// Interval of removing silent remotes, normally and when the table is full.
const SWEEP: Duration = Duration::from_secs(30);
const SWEEP_WHEN_FULL: Duration = Duration::from_secs(1);
/// Stored connection ids per remote, as seen in our handshake packets. They identify the remotes of
/// endpoints without [`ConnectionIds`].
const TOKENS: usize = 4;
/// SCMP parameter problem: path expired.
const PATH_EXPIRED: u8 = 52;

/// The time on two clocks: a monotonic one, and the time of day for the expiry of paths.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) since_start: Duration,
    pub(super) unix: u32,
}

/// How packets reach a remote.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) template: Template,
    pub(super) next_hop: SocketAddr,
}

/// How a packet arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival<'a> {
    /// Its path.
    pub(super) path: Path<'a>,
    /// Its underlay source, if answers go there. The same path from another underlay source then
    /// counts as another path.
    pub(super) via: Option<SocketAddr>,
    /// Its connection id.
    pub(super) token: Option<Token>,
    /// Its time of arrival.
    pub(super) now: Now,
}

#[derive(Debug)]
struct Remote {
    addr: ScionAddr,
    /// Distinguishes this entry from later ones with the same address.
    id: u64,
    standing: Standing,
    current: PathState,
    other: Option<PathState>,
    tokens: [Option<Token>; TOKENS],
    next_token: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It has sent packets but proven nothing.
    Fresh,
    /// It has proven that it receives our packets.
    Established,
    /// We opened the connection, over paths that we chose.
    Dialed,
}

/// Size limits of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Most fresh remotes.
    pub(crate) fresh: usize,
    /// Most established remotes.
    pub(crate) established: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fresh: 4096,
            established: 65536,
        }
    }
}

/// What a packet changed in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// Its sender was added.
    Added,
    /// Answers now take its path.
    PathAdopted,
}

/// The part of a path that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The link at this interface of the reporting AS.
    Link(u64),
    /// The connection between these two interfaces, through the reporting AS.
    Crossing(u64, u64),
    /// The path has expired.
    Expired,
    /// The path does not carry packets of the size that QUIC needs.
    Narrow,
}

/// The failure of a path to a remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The remote.
    pub(crate) remote: ScionAddr,
    /// The AS that reported the failure.
    pub(crate) reporter: IsdAs,
    /// The part that failed, according to the report.
    pub(crate) cause: Cause,
    /// Whether packets already take another path.
    pub(crate) switched: bool,
}

/// What to do after a valid SCMP error.
#[derive(Debug)]
pub(super) struct Report<'a> {
    /// The failure, if it concerns the path in use.
    pub(super) failure: Option<Failure>,
    /// The returned datagram, and the route to send it again. QUIC accepts a datagram that arrives
    /// late or twice, but waits long before it sends one again.
    pub(super) again: Option<(Arc<Route>, Returned<'a>)>,
    /// The returned packet, if no working path to its receiver is known.
    pub(super) unsent: Option<Unsent<'a>>,
}

/// A returned packet that cannot be sent again over a known path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unsent<'a> {
    /// Its receiver.
    pub(super) to: ScionAddr,
    /// The synthetic address of the receiver.
    pub(super) name: SocketAddr,
    /// The path that it took.
    pub(super) path: Path<'a>,
    pub(super) returned: Returned<'a>,
}

/// The part of a datagram that an SCMP error quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Returned<'a> {
    /// The whole datagram.
    Whole(&'a [u8]),
    /// Its beginning.
    Beginning(&'a [u8]),
}

/// The table of remotes.
#[derive(Debug)]
pub(super) struct Remotes {
    limits: Limits,
    ids: ConnectionIds,
    by_addr: HashMap<SocketAddr, Remote>,
    /// Fresh remotes, the oldest first, with the id of their entry. May contain remotes that were
    /// removed or established.
    fresh_queue: VecDeque<(SocketAddr, u64)>,
    fresh: usize,
    next_id: u64,
    swept: Duration,
}

impl Remotes {
    /// `ids` checks the connection ids of packets.
    pub(super) fn new(limits: Limits, ids: ConnectionIds) -> Self {
        Self {
            limits,
            ids,
            by_addr: HashMap::new(),
            fresh_queue: VecDeque::new(),
            fresh: 0,
            next_id: 0,
            swept: Duration::ZERO,
        }
    }

    /// Number of remotes in the table.
    pub(super) fn len(&self) -> usize {
        self.by_addr.len()
    }

    /// Returns the endpoint behind a synthetic address. For IPv4 hosts the table is not needed.
    pub(super) fn endpoint(&self, name: SocketAddr) -> Option<ScionAddr> {
        SyntheticAddrs::endpoint(name).or_else(|| self.by_addr.get(&name).map(|remote| remote.addr))
    }

    /// Returns the route to a remote. `issued` is the connection id that the packet gives to the
    /// remote, if any.
    pub(super) fn route(&mut self, name: SocketAddr, issued: Option<Token>) -> Option<Arc<Route>> {
        let remote = self.by_addr.get_mut(&name)?;
        if let Some(token) = issued {
            remote.learn(token);
        }
        Some(Arc::clone(&remote.current.route))
    }

    /// Handles a packet from `addr`, which has the synthetic address `name`. `answer` makes the
    /// route of the answers.
    pub(super) fn packet_received(
        &mut self,
        (name, addr): (SocketAddr, ScionAddr),
        arrival: &Arrival<'_>,
        answer: impl FnOnce() -> Result<Route, BuildError>,
    ) -> Result<Change, BuildError> {
        let Some(remote) = self.by_addr.get_mut(&name) else {
            let way = PathState::received(arrival, answer()?);
            self.add(name, addr, way, arrival.now);
            return Ok(Change::Added);
        };
        // This check costs more than the rest. Most packets come over a proven path and do not need
        // it.
        let known = remote.needs_proof(arrival)
            && arrival
                .token
                .is_some_and(|token| remote.knows(token) || self.ids.given_to(name, token));
        let change = remote.packet_received(arrival, known, answer)?;
        if known && remote.standing == Standing::Fresh {
            self.establish(name, arrival.now);
        }
        Ok(change)
    }

    /// Sets the paths to a remote: `route`, and `spare` for when that fails. Packets of the remote
    /// do not change them.
    pub(super) fn set_paths(
        &mut self,
        (name, addr): (SocketAddr, ScionAddr),
        route: Route,
        spare: Option<Route>,
        now: Now,
    ) {
        self.remove(name);
        let current = PathState::chosen(route, now);
        let other = spare.map(|route| PathState::chosen(route, now));
        let remote = Remote {
            other,
            ..Remote::new(addr, 0, Standing::Dialed, current)
        };
        self.by_addr.insert(name, remote);
    }

    /// Time since the last packet of a remote, or since its paths were set.
    pub(super) fn silent_for(&self, name: SocketAddr, now: Now) -> Option<Duration> {
        let remote = self.by_addr.get(&name)?;
        Some(now.since_start.saturating_sub(remote.current.last_received))
    }

    /// Handles an SCMP error that reached `local`. SCMP is not authenticated, so an error counts
    /// only if it quotes a packet of ours to an established remote, over the path in use.
    pub(super) fn scmp_error<'a>(
        &mut self,
        addrs: &SyntheticAddrs,
        local: ScionAddr,
        packet: &Packet<'_>,
        scmp: &Scmp<'a>,
        now: Now,
    ) -> Option<Report<'a>> {
        let (reporter, cause) = match *scmp {
            Scmp::ExternalInterfaceDown { ia, interface, .. } => (ia, Cause::Link(interface)),
            Scmp::InternalConnectivityDown {
                ia,
                ingress,
                egress,
                ..
            } => (ia, Cause::Crossing(ingress, egress)),
            Scmp::ParameterProblem {
                code: PATH_EXPIRED, ..
            } => (packet.source.ia, Cause::Expired),
            Scmp::PacketTooBig { .. } => (packet.source.ia, Cause::Narrow),
            _ => return None,
        };
        let quoted = Quoted::parse(scmp.quote()?).ok()?;
        let (from, to) = quoted.ports?;
        if quoted.source != local.host || from != local.port {
            return None;
        }
        let destination = quoted.destination;
        let addr = ScionAddr::new(destination.ia, destination.ip(), to).ok()?;
        let name = addrs.of(addr);
        let remote = self.by_addr.get_mut(&name)?;
        if remote.standing == Standing::Fresh {
            return None;
        }
        let same = |way: &PathState| {
            way.route.template.path().is_same_way(quoted.path)
                && !matches!(*scmp, Scmp::PacketTooBig { mtu, .. } if way.fits(mtu))
        };
        // A forger can have us send the datagram that it quotes. QUIC detects that; other protocols
        // may not.
        let returned = match quoted.whole {
            true => Returned::Whole(quoted.payload),
            false => Returned::Beginning(quoted.payload),
        };
        let returned = quic::is_quic(quoted.payload).then_some(returned);
        // Both may be the same way, from two underlay sources.
        let other_failed = remote.other.as_ref().is_some_and(same);
        if let Some(other) = &mut remote.other {
            other.failed |= other_failed;
        }
        let report = |failure, working: Option<&PathState>| {
            let route = working.map(|way| Arc::clone(&way.route));
            Report {
                failure,
                unsent: returned.filter(|_| route.is_none()).map(|returned| Unsent {
                    to: addr,
                    name,
                    path: quoted.path,
                    returned,
                }),
                again: route.zip(returned),
            }
        };
        if same(&remote.current) {
            remote.current.failed = true;
            // An unproven path may be a forger's. The next packet adds another one.
            let usable = |other: &PathState| other.proven && other.works(now);
            let switched = remote.other.as_ref().is_some_and(usable);
            if switched {
                remote.swap();
            }
            let failure = Failure {
                remote: addr,
                reporter,
                cause,
                switched,
            };
            return Some(report(Some(failure), switched.then_some(&remote.current)));
        }
        if !other_failed {
            return None;
        }
        let works = !remote.current.failed;
        Some(report(None, works.then_some(&remote.current)))
    }

    /// Has packets to an established remote whose path has failed take this one, over which packets of
    /// its AS arrived. The next packet of the remote may change it again. Returns whether they do.
    pub(super) fn adopt(&mut self, name: SocketAddr, arrival: &Arrival<'_>, route: Route) -> bool {
        let Some(remote) = self.by_addr.get_mut(&name) else {
            return false;
        };
        if remote.standing != Standing::Established || !remote.current.failed {
            return false;
        }
        remote.other = Some(PathState::received(arrival, route));
        remote.swap();
        true
    }

    fn add(&mut self, name: SocketAddr, addr: ScionAddr, way: PathState, now: Now) {
        if now.since_start.saturating_sub(self.swept) >= SWEEP {
            self.sweep(FORGET, now);
        }
        self.next_id += 1;
        let remote = Remote::new(addr, self.next_id, Standing::Fresh, way);
        self.by_addr.insert(name, remote);
        self.fresh_queue.push_back((name, self.next_id));
        self.fresh += 1;
        while self.fresh > self.limits.fresh {
            let Some((name, id)) = self.fresh_queue.pop_front() else {
                break;
            };
            if self.is_fresh(name, id) {
                self.remove(name);
            }
        }
        // The queue still has remotes that were established or removed.
        if self.fresh_queue.len() > 2 * self.limits.fresh {
            let mut queue = std::mem::take(&mut self.fresh_queue);
            queue.retain(|(name, id)| self.is_fresh(*name, *id));
            self.fresh_queue = queue;
        }
    }

    fn is_fresh(&self, name: SocketAddr, id: u64) -> bool {
        let found = self.by_addr.get(&name);
        found.is_some_and(|remote| remote.id == id && remote.standing == Standing::Fresh)
    }

    fn establish(&mut self, name: SocketAddr, now: Now) {
        if self.by_addr.len() - self.fresh >= self.limits.established {
            if now.since_start.saturating_sub(self.swept) < SWEEP_WHEN_FULL {
                return;
            }
            self.sweep(FORGET_WHEN_FULL, now);
            if self.by_addr.len() - self.fresh >= self.limits.established {
                // The remote stays fresh.
                return;
            }
        }
        if let Some(remote) = self.by_addr.get_mut(&name) {
            remote.standing = Standing::Established;
            self.fresh -= 1;
        }
    }

    fn remove(&mut self, name: SocketAddr) {
        let removed = self.by_addr.remove(&name);
        if removed.is_some_and(|remote| remote.standing == Standing::Fresh) {
            self.fresh -= 1;
        }
    }

    fn sweep(&mut self, silent: Duration, now: Now) {
        self.swept = now.since_start;
        let fresh = &mut self.fresh;
        self.by_addr.retain(|_, remote| {
            let keep = remote.standing == Standing::Dialed || remote.silent(now) < silent;
            if !keep && remote.standing == Standing::Fresh {
                *fresh -= 1;
            }
            keep
        });
    }
}

impl Remote {
    const fn new(addr: ScionAddr, id: u64, standing: Standing, current: PathState) -> Self {
        Self {
            addr,
            id,
            standing,
            current,
            other: None,
            tokens: [None; TOKENS],
            next_token: 0,
        }
    }

    fn packet_received(
        &mut self,
        arrival: &Arrival<'_>,
        known: bool,
        answer: impl FnOnce() -> Result<Route, BuildError>,
    ) -> Result<Change, BuildError> {
        let now = arrival.now;
        if self.standing == Standing::Dialed {
            self.current.last_received = now.since_start;
            return Ok(Change::None);
        }
        if self.current.is_of(arrival) {
            self.current.packet_received(known, now);
            return Ok(Change::None);
        }
        let adopts = self.adopts(arrival.path.expiry(), known, now);
        if let Some(other) = &mut self.other
            && other.is_of(arrival)
        {
            other.packet_received(known, now);
        } else if adopts || self.may_replace_other(arrival, known) {
            let mut way = PathState::received(arrival, answer()?);
            way.proven = known;
            self.other = Some(way);
        }
        if adopts {
            self.swap();
            return Ok(Change::PathAdopted);
        }
        Ok(Change::None)
    }

    /// Whether answers must take the path of a new packet.
    fn adopts(&self, expiry: Option<u32>, known: bool, now: Now) -> bool {
        let current = &self.current;
        let silent = now.since_start.saturating_sub(current.last_received);
        let lasts = |until: u32| expiry.is_none_or(|expiry| expiry > until);
        let expires_by = |time: u32| current.expires_by(time) && lasts(time);
        if self.standing == Standing::Fresh || current.failed {
            return true;
        }
        if known {
            !current.proven || silent >= SILENT || expires_by(now.unix.saturating_add(EXPIRING))
        } else {
            silent >= LOST || expires_by(now.unix)
        }
    }

    /// Whether a new path may replace the spare one. A forged packet must not replace the path that
    /// is needed after the next failure, and neither must a path that shares more interfaces with the
    /// current one.
    fn may_replace_other(&self, arrival: &Arrival<'_>, known: bool) -> bool {
        let now = arrival.now;
        self.other.as_ref().is_none_or(|other| {
            let silent = now.since_start.saturating_sub(other.last_received);
            if silent >= LOST || !other.proven || !other.works(now) {
                return true;
            }
            let received = Path::parse(&other.received);
            let current = Path::parse(&self.current.received);
            known
                && current.is_ok_and(|current| {
                    let kept = received.map_or(usize::MAX, |it| shared(it, current));
                    shared(arrival.path, current) <= kept
                })
        })
    }

    fn swap(&mut self) {
        if let Some(other) = &mut self.other {
            std::mem::swap(&mut self.current, other);
        }
    }

    /// Whether the connection id of a packet must be checked. Not if the packet came over the path
    /// in use and that path is proven.
    fn needs_proof(&self, arrival: &Arrival<'_>) -> bool {
        match self.standing {
            Standing::Fresh => true,
            Standing::Established => !(self.current.proven && self.current.is_of(arrival)),
            Standing::Dialed => false,
        }
    }

    fn knows(&self, token: Token) -> bool {
        self.tokens.contains(&Some(token))
    }

    fn learn(&mut self, token: Token) {
        if !self.knows(token) {
            self.tokens[self.next_token] = Some(token);
            self.next_token = (self.next_token + 1) % TOKENS;
        }
    }

    fn silent(&self, now: Now) -> Duration {
        let other = self
            .other
            .as_ref()
            .map_or(Duration::ZERO, |way| way.last_received);
        now.since_start
            .saturating_sub(self.current.last_received.max(other))
    }
}

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;

#[cfg(test)]
mod tests;
