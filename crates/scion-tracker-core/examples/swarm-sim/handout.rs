//! The tracker of a simulated swarm: the real one, with the variants that it is compared with.

use scion_tracker_core::Tracker;
use scion_tracker_core::address::{CompactAddr, IsdAs};
use scion_tracker_core::place::{PlacePolicy, Places};
use scion_tracker_core::registry::memory::{Ceilings, Memory, Sweep};
use scion_tracker_core::request::{AnnounceRequest, Carries, Event, Origin};
use scion_tracker_core::response::{Peer, PeerSink};
use scion_tracker_core::select::{Census, Mode, Policy, Standing, Tier, Want, plan};
use scion_tracker_core::tracker::{Context, Rules, Terms};
use scion_tracker_core::types::{InfoHash, PeerId, Rng, Time};

use crate::paths::Estimate;
use crate::world::{self, TICK, World};

/// Peers per announce: the tracker's default.
const NUMWANT: usize = 50;

/// A way to hand out peers.
#[derive(Debug, Clone)]
pub struct Variant {
    pub name: String,
    pub policy: Policy,
    pub twist: Twist,
}

/// What a variant changes besides the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Twist {
    /// Nothing: uses the tracker's reply.
    None,
    /// Removes peers of other ASes from the reply.
    AsOnly,
    /// Follows the tracker's plan, but draws each peer independently instead of by strata.
    Independent,
    /// Follows the tracker's plan, but takes peers of other ISDs in the order of their distance.
    ByPath(Estimate),
    /// The same for one half of them. The other half is drawn as ever.
    HalfByPath(Estimate),
}

impl Variant {
    fn new(name: &str, policy: Policy, twist: Twist) -> Self {
        Self {
            name: name.into(),
            policy,
            twist,
        }
    }

    /// The variants of the goals.
    pub fn main() -> Vec<Self> {
        let [random, prefer, cap] = [Mode::Random, Mode::Prefer, Mode::Cap].map(by_mode);
        let alone = without_reserve(prefer);
        vec![
            Self::new("random", random, Twist::None),
            Self::new("prefer", prefer, Twist::None),
            Self::new("cap", cap, Twist::None),
            Self::new("no-reserve", alone, Twist::None),
            Self::new("as-only", alone, Twist::AsOnly),
        ]
    }

    /// The variants that answer questions about the design.
    pub fn studies() -> Vec<Self> {
        let [random, prefer, cap] = [Mode::Random, Mode::Prefer, Mode::Cap].map(by_mode);
        let two = |policy| Policy {
            reserve_unplaced: 0,
            ..policy
        };
        vec![
            Self::new("random-independent", random, Twist::Independent),
            Self::new("prefer-independent", prefer, Twist::Independent),
            Self::new("prefer-two-reserves", two(prefer), Twist::None),
            Self::new("cap-two-reserves", two(cap), Twist::None),
            Self::new("cap-no-reserve", without_reserve(cap), Twist::None),
        ]
    }

    /// `prefer`, with peers of other ISDs in the order of their distance.
    pub fn by_path() -> Vec<Self> {
        let prefer = by_mode(Mode::Prefer);
        vec![
            Self::new("prefer-path", prefer, Twist::ByPath(Estimate::Tree)),
            Self::new(
                "prefer-half-path",
                prefer,
                Twist::HalfByPath(Estimate::Tree),
            ),
            Self::new("prefer-true-path", prefer, Twist::ByPath(Estimate::Truth)),
            Self::new(
                "prefer-half-true",
                prefer,
                Twist::HalfByPath(Estimate::Truth),
            ),
        ]
    }

    /// Parses `NAME=MODE,ISD,WORLD,UNPLACED,PERCENT,FLOOR`.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, policy) = text.split_once('=')?;
        let (mode, numbers) = policy.split_once(',')?;
        let numbers: Result<Vec<u16>, _> = numbers.split(',').map(str::parse).collect();
        let [isd, world, unplaced, percent, floor] = numbers.ok()?.try_into().ok()?;
        let policy = Policy {
            mode: mode.parse().ok()?,
            reserve_isd: isd,
            reserve_world: world,
            reserve_unplaced: unplaced,
            cap_percent: percent,
            cap_floor: floor,
        };
        Some(Self::new(name, policy, Twist::None))
    }
}

fn by_mode(mode: Mode) -> Policy {
    Policy {
        mode,
        ..Policy::default()
    }
}

fn without_reserve(policy: Policy) -> Policy {
    Policy {
        reserve_isd: 0,
        reserve_world: 0,
        reserve_unplaced: 0,
        ..policy
    }
}

/// The reply to an announce.
#[derive(Debug, Default)]
pub struct Handed {
    /// Indices of peers, in the order of the reply.
    pub peers: Vec<usize>,
    /// Ticks until the next announce.
    pub interval: u32,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Time,
    seeder: bool,
}

/// A tracker with one swarm.
pub struct Handout<'w> {
    world: &'w World,
    tracker: Tracker<Memory>,
    rules: Rules,
    variant: &'w Variant,
    /// The contents of the registry, for the twists that draw themselves.
    mirror: Vec<Option<Seen>>,
}

impl<'w> Handout<'w> {
    pub fn new(world: &'w World, variant: &'w Variant) -> Self {
        // The operator's table places peers that announce over IP.
        let prefixes = world
            .peers
            .iter()
            .skip(1)
            .filter(|peer| peer.host.ia.is_none())
            .map(|peer| (peer.host.ip().into(), peer.home))
            .collect();
        let mut terms = Terms {
            policy: variant.policy,
            places: Places::new(PlacePolicy::PrefixOnly, prefixes, Vec::new()),
            ..Terms::default()
        };
        if variant.twist == Twist::AsOnly {
            // Request the whole AS, and cut the reply later.
            terms.numwant_default = 500;
            terms.numwant_max = 500;
        }
        Self {
            world,
            tracker: Tracker::new(Memory::new(Ceilings::default(), [1, 2, 3, 4])),
            rules: Rules::public(terms),
            variant,
            mirror: vec![None; world.peers.len()],
        }
    }

    pub fn announce(
        &mut self,
        me: usize,
        left: u64,
        event: Event,
        tick: u32,
        rng: &mut Rng,
    ) -> Handed {
        let now = Time::from_secs(tick * TICK);
        let mut id = *b"-SIM000-000000000000";
        id[12..].copy_from_slice(&(me as u64).to_be_bytes());
        let port = 6881;
        let mut announce = AnnounceRequest::new(InfoHash([7; 20]), PeerId(id), port, left);
        announce.event = event;
        let origin = Origin::scion(self.world.peers[me].host);
        let mut got = Numbers(Vec::new());
        let mut context = Context {
            rules: &self.rules,
            now,
            rng,
        };
        let reply = self
            .tracker
            .announce(&mut context, &origin, &announce, Carries::All, &mut got);
        let Ok(reply) = reply else {
            return Handed::default();
        };
        self.mirror[me] = (event != Event::Stopped).then_some(Seen {
            at: now,
            seeder: left == 0,
        });
        let mut peers = got.0;
        match self.variant.twist {
            Twist::None => {}
            Twist::AsOnly => {
                let home = self.world.peers[me].home;
                peers.retain(|peer| self.world.peers[*peer].home == home);
                peers.truncate(NUMWANT);
            }
            Twist::Independent | Twist::ByPath(_) | Twist::HalfByPath(_) => {
                peers = self.draw(me, left == 0, event, now, rng)
            }
        }
        Handed {
            peers,
            interval: reply.interval / TICK,
        }
    }

    /// Lets the registry forget silent peers.
    pub fn sweep(&self, tick: u32) {
        let mut sweep = Sweep::default();
        let now = Time::from_secs(tick * TICK);
        while !self.tracker.registry().sweep(&mut sweep, now, 1 << 20) {}
    }

    /// The place of a peer, as the tracker knows it.
    fn known_place(&self, peer: usize) -> IsdAs {
        let born = &self.world.peers[peer];
        if peer == 0 { born.host.ia } else { born.home }
    }

    /// Draws as the registry would, but shuffles instead of using strata.
    fn draw(&self, me: usize, seeder: bool, event: Event, now: Time, rng: &mut Rng) -> Vec<usize> {
        let lifetime = self.tracker.registry().ceilings().peer_lifetime;
        let place = self.known_place(me);
        let mut pools: [[Vec<usize>; 2]; 4] = Default::default();
        let mut census = Census::default();
        if event == Event::Stopped {
            return Vec::new();
        }
        for (peer, seen) in self.mirror.iter().enumerate() {
            let Some(seen) = seen.filter(|seen| now.since(seen.at) <= lifetime) else {
                continue;
            };
            if peer == me || (seeder && seen.seeder) {
                continue;
            }
            let tier = Tier::between(place, self.known_place(peer));
            pools[tier as usize][usize::from(!seen.seeder)].push(peer);
            let tally = census.tally_mut(tier, Standing::Proven);
            if seen.seeder {
                tally.seeds += 1;
            } else {
                tally.leechers += 1;
            }
        }
        let mut chosen = Vec::new();
        let (estimate, every) = match self.variant.twist {
            Twist::ByPath(how) => (Some(how), 1),
            Twist::HalfByPath(how) => (Some(how), 2),
            Twist::None | Twist::AsOnly | Twist::Independent => (None, 1),
        };
        let isd = |peer: usize| usize::from(self.known_place(peer).isd().0);
        let mut take = |from: &mut Vec<usize>, count: u32| {
            for nth in 0..count.min(from.len() as u32) {
                let any = rng.usize(0..from.len());
                let at = match estimate {
                    // In the nearest ISD that is left. The start is random, and the first of the nearest
                    // is taken: all peers of one ISD are equally near.
                    Some(how) if nth % every == 0 && from.iter().all(|it| isd(*it) != isd(me)) => {
                        let far = |at: &usize| {
                            let peer = from[(any + at) % from.len()];
                            self.world.core.estimate(how, isd(me), isd(peer))
                        };
                        let near = (0..from.len()).min_by(|a, b| far(a).total_cmp(&far(b)));
                        (any + near.unwrap_or(0)) % from.len()
                    }
                    _ => any,
                };
                chosen.push(from.swap_remove(at));
            }
        };
        if !self.variant.policy.by_tiers(place) {
            let mut everyone = pools.into_iter().flatten().flatten().collect();
            take(&mut everyone, NUMWANT as u32);
            return chosen;
        }
        let want = if seeder { Want::Leechers } else { Want::Anyone };
        let plan = plan(&self.variant.policy, NUMWANT, want, &census);
        for (tier, [mut seeds, mut leechers]) in Tier::ALL.into_iter().zip(pools) {
            let quota = plan.quota(tier, Standing::Proven);
            take(&mut seeds, quota.seeds);
            take(&mut leechers, quota.leechers);
            seeds.append(&mut leechers);
            take(&mut seeds, quota.any);
        }
        rng.shuffle(&mut chosen);
        chosen
    }
}

struct Numbers(Vec<usize>);

impl PeerSink for Numbers {
    fn push(&mut self, peer: Peer<'_>) {
        let at: CompactAddr = peer.addr.to_compact();
        self.0.push(world::number(at.socket_addr().ip()));
    }
}
