//! Simulates a swarm in ticks of ten seconds: peers announce, dial, choke, transfer, finish and
//! leave.
//!
//! docs/selection.md describes the model and its limits.

use std::collections::VecDeque;

use scion_tracker_core::request::Event;
use scion_tracker_core::types::Rng;

use crate::handout::{Handout, Variant};
use crate::pieces::{PIECES, Pieces};
use crate::world::{Arrival, TICK, World};

/// Most connections of a peer.
const LINKS: usize = 60;
/// Connection attempts of a peer per tick.
const DIALS: usize = 8;
/// Upload slots. The last slot of a leecher is the optimistic one.
const SLOTS: usize = 4;
/// Ticks between changes of the optimistic unchoke, and of a seed's choice.
const ROTATION: u32 = 3;
/// A swarm without any transfer for this many ticks is dead. Every peer announces twice in this
/// time.
const DEAD: u32 = 2 * 198;
/// Longest simulation: a week.
const WEEK: u32 = 7 * 86_400 / TICK;
/// Bytes per piece, for `left`.
const PIECE_BYTES: u64 = 4 << 20;

/// The result of a simulated swarm.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Percent of the volume transferred.
    pub cross_as: f64,
    pub cross_isd: f64,
    /// Links between ISDs, and latency in ms, that a piece takes in the mean, of those that cross ISDs.
    pub isd_links: f64,
    pub isd_ms: f64,
    /// Seconds from joining to completion; infinite if too many peers never finish.
    pub median: f64,
    pub p95: f64,
    /// The 95th percentile of the peers in the late AS.
    pub late_p95: f64,
    /// Peers that never finish.
    pub unfinished: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Online,
    Gone,
}

struct State {
    phase: Phase,
    have: Pieces,
    /// Number of connections that transfer each piece.
    in_flight: [u8; PIECES],
    /// Received share of each piece.
    progress: [f32; PIECES],
    /// Number of connected peers that have each piece.
    copies: [u16; PIECES],
    links: Vec<usize>,
    unchoked: Vec<usize>,
    candidates: VecDeque<usize>,
    next_announce: u32,
    joined: u32,
    finished: Option<u32>,
    leaves: Option<u32>,
}

impl State {
    fn is_seed(&self) -> bool {
        self.finished.is_some()
    }
}

/// A transfer from an uploader to a downloader.
#[derive(Debug, Clone, Copy, Default)]
struct Flow {
    /// Pieces received recently; halved each tick.
    rate: f32,
    /// The piece in transfer.
    piece: Option<u16>,
}

struct Offer {
    from: usize,
    to: usize,
    pieces: f32,
}

struct Swarm<'w> {
    world: &'w World,
    handout: Handout<'w>,
    rng: Rng,
    tick: u32,
    peers: Vec<State>,
    /// Indexed by downloader and uploader.
    flows: Vec<Flow>,
    /// The tick at which the arrival of the late AS was triggered.
    late_start: Option<u32>,
    last_move: u32,
    moved: f64,
    moved_as: f64,
    moved_isd: f64,
    /// Pieces times links between ISDs, and times ms.
    moved_links: f64,
    moved_ms: f64,
}

/// Simulates a swarm.
pub fn run(world: &World, variant: &Variant, seed: u64) -> Outcome {
    let peers = world.peers.iter().enumerate();
    let mut swarm = Swarm {
        world,
        handout: Handout::new(world, variant),
        rng: Rng::with_seed(seed),
        tick: 0,
        peers: peers
            .map(|(number, _)| State {
                phase: Phase::Waiting,
                have: if number == 0 {
                    Pieces::ALL
                } else {
                    Pieces::NONE
                },
                in_flight: [0; PIECES],
                progress: [0.0; PIECES],
                copies: [0; PIECES],
                links: Vec::new(),
                unchoked: Vec::new(),
                candidates: VecDeque::new(),
                next_announce: 0,
                joined: 0,
                finished: (number == 0).then_some(0),
                leaves: None,
            })
            .collect(),
        flows: vec![Flow::default(); world.peers.len() * world.peers.len()],
        late_start: None,
        last_move: 0,
        moved: 0.0,
        moved_as: 0.0,
        moved_isd: 0.0,
        moved_links: 0.0,
        moved_ms: 0.0,
    };
    while swarm.step() {}
    swarm.outcome()
}

impl Swarm<'_> {
    /// Simulates one tick. Returns false when the simulation ends.
    fn step(&mut self) -> bool {
        self.come_and_go();
        self.handout.sweep(self.tick);
        for me in 0..self.peers.len() {
            if self.peers[me].phase == Phase::Online && self.peers[me].next_announce <= self.tick {
                self.announce(me, Event::None);
            }
        }
        for me in 0..self.peers.len() {
            self.dial(me);
        }
        for me in 0..self.peers.len() {
            self.choke(me);
        }
        self.transfer();
        self.tick += 1;
        let finished = self.peers.iter().all(State::is_seed);
        !finished && self.tick < WEEK && !(self.late_start.is_some() && self.is_dead())
    }

    fn is_dead(&self) -> bool {
        self.tick - self.last_move > DEAD
    }

    fn come_and_go(&mut self) {
        if self.late_start.is_none() {
            let finished = self.peers.iter().filter(|peer| peer.is_seed()).count() - 1;
            let left = self.peers.iter().filter(|peer| peer.phase == Phase::Gone);
            // A dead swarm only moves again when the late AS arrives, so do not wait longer.
            if self.world.late_as_arrives(finished, left.count()) || self.is_dead() {
                self.late_start = Some(self.tick);
                self.last_move = self.tick;
            }
        }
        for me in 0..self.peers.len() {
            let peer = &self.peers[me];
            let due = match (self.world.peers[me].arrival, self.late_start) {
                (Arrival::At(tick), _) => tick <= self.tick,
                (Arrival::Late(after), Some(late_start)) => late_start + after <= self.tick,
                (Arrival::Late(_), None) => false,
            };
            if peer.phase == Phase::Waiting && due {
                self.peers[me].phase = Phase::Online;
                self.peers[me].joined = self.tick;
                self.announce(me, Event::Started);
            } else if peer.phase == Phase::Online
                && peer.leaves.is_some_and(|tick| tick <= self.tick)
            {
                self.leave(me);
            }
        }
    }

    fn leave(&mut self, me: usize) {
        self.peers[me].phase = Phase::Gone;
        while let Some(peer) = self.peers[me].links.last().copied() {
            self.unlink(me, peer);
        }
        if !self.world.peers[me].silent {
            self.announce(me, Event::Stopped);
        }
    }

    fn announce(&mut self, me: usize, event: Event) {
        let missing = PIECES - self.peers[me].have.len();
        let left = missing as u64 * PIECE_BYTES;
        let handed = self
            .handout
            .announce(me, left, event, self.tick, &mut self.rng);
        let state = &mut self.peers[me];
        state.next_announce = self.tick + handed.interval;
        for peer in handed.peers {
            if !state.links.contains(&peer) && !state.candidates.contains(&peer) {
                state.candidates.push_back(peer);
            }
        }
    }

    fn dial(&mut self, me: usize) {
        if self.peers[me].phase != Phase::Online {
            return;
        }
        for _ in 0..DIALS {
            if self.peers[me].links.len() >= LINKS {
                return;
            }
            let Some(peer) = self.peers[me].candidates.pop_front() else {
                return;
            };
            let (mine, its) = (&self.peers[me], &self.peers[peer]);
            let linked = mine.links.contains(&peer);
            let useless = mine.is_seed() && its.is_seed();
            if its.phase != Phase::Online || self.world.peers[peer].nat || linked || useless {
                continue;
            }
            if its.links.len() >= LINKS {
                // Try again after the others.
                self.peers[me].candidates.push_back(peer);
                continue;
            }
            self.link(me, peer);
        }
    }

    fn flow(&mut self, to: usize, from: usize) -> &mut Flow {
        let peers = self.peers.len();
        &mut self.flows[to * peers + from]
    }

    fn link(&mut self, one: usize, other: usize) {
        for (me, peer) in [(one, other), (other, one)] {
            let have = self.peers[peer].have;
            let mine = &mut self.peers[me];
            mine.links.push(peer);
            have.iter().for_each(|piece| mine.copies[piece] += 1);
        }
    }

    fn unlink(&mut self, one: usize, other: usize) {
        for (me, peer) in [(one, other), (other, one)] {
            self.release(me, peer);
            let have = self.peers[peer].have;
            let mine = &mut self.peers[me];
            mine.links.retain(|linked| *linked != peer);
            mine.unchoked.retain(|unchoked| *unchoked != peer);
            have.iter().for_each(|piece| mine.copies[piece] -= 1);
            *self.flow(me, peer) = Flow::default();
        }
    }

    /// Stops the transfer from a peer, and keeps the received part of the piece.
    fn release(&mut self, me: usize, from: usize) {
        if let Some(piece) = self.flow(me, from).piece.take() {
            self.peers[me].in_flight[usize::from(piece)] -= 1;
        }
    }

    /// Chooses the peers to upload to. A leecher chooses those that gave it most recently, and one
    /// at random, kept for three ticks. A seed chooses at random, and keeps its choice for three
    /// ticks.
    fn choke(&mut self, me: usize) {
        let mine = &self.peers[me];
        if mine.phase != Phase::Online {
            return;
        }
        let mut interested: Vec<usize> = mine
            .links
            .iter()
            .copied()
            .filter(|peer| !mine.have.minus(&self.peers[*peer].have).is_empty())
            .collect();
        self.rng.shuffle(&mut interested);
        let before = std::mem::take(&mut self.peers[me].unchoked);
        let rotates = (self.tick + me as u32).is_multiple_of(ROTATION);
        let mut chosen: Vec<usize> = Vec::with_capacity(SLOTS);
        if self.peers[me].is_seed() {
            if !rotates {
                chosen.extend(before.iter().filter(|peer| interested.contains(peer)));
            }
        } else {
            let peers = self.peers.len();
            let rate = |peer: &usize| self.flows[me * peers + peer].rate;
            interested.sort_by(|one, other| rate(other).total_cmp(&rate(one)));
            chosen.extend(interested.iter().take(SLOTS - 1));
            // The last slot is the optimistic one.
            let kept = before
                .get(SLOTS - 1)
                .filter(|_| !rotates)
                .filter(|peer| interested.contains(peer) && !chosen.contains(peer));
            chosen.extend(kept);
            let rest = interested.get(chosen.len()..).unwrap_or_default().to_vec();
            interested = rest;
            self.rng.shuffle(&mut interested);
        }
        for peer in interested {
            if chosen.len() < SLOTS && !chosen.contains(&peer) {
                chosen.push(peer);
            }
        }
        for peer in before.into_iter().filter(|peer| !chosen.contains(peer)) {
            self.release(peer, me);
        }
        for at in 0..self.peers[me].links.len() {
            let peer = self.peers[me].links[at];
            self.flow(me, peer).rate *= 0.5;
        }
        self.peers[me].unchoked = chosen;
    }

    /// Chooses the piece to fetch from a peer: one that is partly received, then the rarest among
    /// the connected peers, then, if all remaining pieces are in transfer, one of these.
    fn pick(&mut self, me: usize, from: usize) -> Option<usize> {
        let wanted = self.peers[from].have.minus(&self.peers[me].have);
        if wanted.is_empty() {
            return None;
        }
        let mine = &self.peers[me];
        let start = self.rng.usize(0..PIECES);
        let mut best: Option<((u16, usize), usize)> = None;
        for piece in wanted.iter() {
            let class = if mine.in_flight[piece] > 0 {
                u16::MAX
            } else if mine.progress[piece] > 0.0 {
                0
            } else {
                mine.copies[piece]
            };
            // Break ties by the distance from a random piece.
            let key = (class, (piece + PIECES - start) % PIECES);
            if best.is_none_or(|(least, _)| key < least) {
                best = Some((key, piece));
            }
        }
        let (_, piece) = best?;
        self.release(me, from);
        self.flow(me, from).piece = Some(piece as u16);
        self.peers[me].in_flight[piece] += 1;
        Some(piece)
    }

    /// The piece in transfer, or a new one.
    fn piece(&mut self, me: usize, from: usize) -> Option<usize> {
        if let Some(piece) = self.flow(me, from).piece {
            let piece = usize::from(piece);
            if !self.peers[me].have.contains(piece) {
                return Some(piece);
            }
            self.release(me, from);
        }
        self.pick(me, from)
    }

    fn transfer(&mut self) {
        let count = self.peers.len();
        let mut offers = Vec::new();
        let mut inflow = vec![0.0; count];
        let first = self.rng.usize(0..count);
        for from in (first..count).chain(0..first) {
            let mut takers = self.peers[from].unchoked.clone();
            takers.retain(|to| self.piece(*to, from).is_some());
            let pieces = self.world.peers[from].up / takers.len().max(1) as f32;
            for to in takers {
                inflow[to] += pieces;
                offers.push(Offer { from, to, pieces });
            }
        }
        for Offer { from, to, pieces } in offers {
            let fits = (self.world.peers[to].down / inflow[to]).min(1.0);
            self.deliver(to, from, pieces * fits);
        }
    }

    fn deliver(&mut self, to: usize, from: usize, mut pieces: f32) {
        while pieces > 1e-4 {
            // Another peer may have delivered the last piece in this tick.
            let Some(piece) = self.piece(to, from) else {
                return;
            };
            let progress = &mut self.peers[to].progress[piece];
            let share = pieces.min(1.0 - *progress);
            *progress += share;
            pieces -= share;
            let complete = *progress > 1.0 - 1e-4;
            self.book(to, from, share);
            if complete {
                self.complete(to, piece);
            }
        }
    }

    fn book(&mut self, to: usize, from: usize, pieces: f32) {
        self.flow(to, from).rate += pieces;
        self.last_move = self.tick;
        let [here, there] = [to, from].map(|peer| self.world.peers[peer].home);
        self.moved += f64::from(pieces);
        if here != there {
            self.moved_as += f64::from(pieces);
        }
        if here.isd() != there.isd() {
            self.moved_isd += f64::from(pieces);
            let [a, b] = [here, there].map(|it| usize::from(it.isd().0));
            let cost = self.world.core.cost(a, b);
            self.moved_links += f64::from(pieces * cost.links);
            self.moved_ms += f64::from(pieces * cost.ms);
        }
    }

    fn complete(&mut self, me: usize, piece: usize) {
        self.peers[me].have.insert(piece);
        for at in 0..self.peers[me].links.len() {
            let peer = self.peers[me].links[at];
            self.peers[peer].copies[piece] += 1;
        }
        if self.peers[me].have != Pieces::ALL {
            return;
        }
        self.peers[me].finished = Some(self.tick);
        let linger = self.world.peers[me].linger;
        self.peers[me].leaves = linger.map(|ticks| self.tick + ticks);
        for peer in self.peers[me].links.clone() {
            if self.peers[peer].is_seed() {
                self.unlink(me, peer);
            }
        }
        self.announce(me, Event::Completed);
    }

    fn outcome(&self) -> Outcome {
        let mut times = Vec::new();
        let mut late = Vec::new();
        for (peer, born) in self.peers.iter().zip(&self.world.peers).skip(1) {
            let time = peer.finished.map_or(f64::INFINITY, |finished| {
                f64::from((finished + 1 - peer.joined) * TICK)
            });
            times.push(time);
            if matches!(born.arrival, Arrival::Late(_)) {
                late.push(time);
            }
        }
        let percent = |part: f64| 100.0 * part / self.moved.max(1.0);
        Outcome {
            cross_as: percent(self.moved_as),
            cross_isd: percent(self.moved_isd),
            isd_links: self.moved_links / self.moved_isd.max(1.0),
            isd_ms: self.moved_ms / self.moved_isd.max(1.0),
            median: quantile(&mut times, 0.5),
            p95: quantile(&mut times, 0.95),
            late_p95: quantile(&mut late, 0.95),
            unfinished: self.peers.iter().filter(|peer| !peer.is_seed()).count(),
        }
    }
}

/// The quantile at `share`: that share of the values is at most the result.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share).ceil() as usize;
    values[at.clamp(1, values.len()) - 1]
}
