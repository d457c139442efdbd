//! Peer selection: how many peers of each tier a requester gets, and the draw inside a tier.
//!
//! A requester sees four tiers: its own AS, its own ISD, the other ISDs, and peers without a place.
//! Inside a tier, proven places come before claimed ones, so that nobody displaces the proven peers
//! of an AS by naming it.
//!
//! A store counts its tiers into a [`Census`], asks [`plan`] how many to take of each, and draws
//! them with [`Draw`]. The plan takes constant time and the draw O(1) per peer. Looking up a drawn
//! peer costs what the store needs for it.
//!
//! The constants come from the simulation in `docs/selection.md`.

mod draw;

use std::str::FromStr;

use crate::address::IsdAs;
use crate::types::Rng;

pub use draw::Draw;

/// Peers reserved for the other ASes of the requester's ISD. With 2 instead of 4 the slowest
/// twentieth of a swarm takes one to three percent longer, and as many pieces cross ISDs.
pub const RESERVE_ISD: u16 = 4;
/// Peers reserved for the other ISDs. In [`Mode::Prefer`] half of it suffices if the requester's
/// own ISD has a seed: the ISD is then not cut off, and a third of the traffic of this reserve
/// across ISDs is saved.
pub const RESERVE_WORLD: u16 = 2;
/// Peers reserved for those without a place. Without this reserve, a swarm whose only seed is on
/// the plain Internet is cut off from it as soon as one AS fills a reply.
pub const RESERVE_UNPLACED: u16 = 2;
/// The most seeds that a seed gets where leechers leave room, unless it is known to have been a
/// leecher. Some clients (aria2, rqbit) say that nothing is left while they have only a magnet link.
/// If half of the seeds accept no connections, one such client in a thousand reaches none of ten. A
/// real seed pays for them with 60 bytes in an IPv4 reply.
pub const SEEDS_FOR_SEEDS: usize = 10;
/// [`Mode::Cap`]: same-AS peers, in percent of `numwant`.
pub const CAP_PERCENT: u16 = 80;
/// [`Mode::Cap`]: a smaller reply is filled up to this many peers, nearest first. With 10,
/// unreachable peers of small ASes get too few neighbours.
pub const CAP_FLOOR: u16 = 15;

/// How peers are chosen by place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The reserves, then peers of the nearest tiers up to `numwant`.
    #[default]
    Prefer,
    /// A quota of same-AS peers, the reserves as the *limit* on remote peers, and a floor.
    Cap,
    /// Ignores places. The baseline.
    Random,
}

/// The text does not name a selection mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a selection mode is prefer, cap or random")]
pub struct ModeError;

impl FromStr for Mode {
    type Err = ModeError;

    fn from_str(s: &str) -> Result<Self, ModeError> {
        match s {
            "prefer" => Ok(Self::Prefer),
            "cap" => Ok(Self::Cap),
            "random" => Ok(Self::Random),
            _ => Err(ModeError),
        }
    }
}

/// The parameters of a selection.
///
/// No reserve takes more than a quarter of a reply, so that a requester that wants few peers gets
/// near ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How peers are chosen.
    pub mode: Mode,
    /// See [`RESERVE_ISD`].
    pub reserve_isd: u16,
    /// See [`RESERVE_WORLD`].
    pub reserve_world: u16,
    /// See [`RESERVE_UNPLACED`].
    pub reserve_unplaced: u16,
    /// See [`CAP_PERCENT`].
    pub cap_percent: u16,
    /// See [`CAP_FLOOR`].
    pub cap_floor: u16,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::Prefer,
            reserve_isd: RESERVE_ISD,
            reserve_world: RESERVE_WORLD,
            reserve_unplaced: RESERVE_UNPLACED,
            cap_percent: CAP_PERCENT,
            cap_floor: CAP_FLOOR,
        }
    }
}

impl Policy {
    /// Whether a requester at this place is served by tiers. Without a place, and always in
    /// [`Mode::Random`], it gets a uniform draw of all the peers that it can reach.
    pub fn by_tiers(&self, ia: IsdAs) -> bool {
        self.mode != Mode::Random && !ia.is_none()
    }

    /// Whether a requester at this place gets a uniform draw of all reachable peers: if it is not
    /// served [by tiers](Policy::by_tiers), or in [`Mode::Prefer`] if all of them fit into the
    /// reply.
    pub fn draws_from_all(&self, ia: IsdAs, numwant: usize, reachable: usize) -> bool {
        let all_fit = self.mode == Mode::Prefer && reachable <= numwant;
        all_fit || !self.by_tiers(ia)
    }
}

/// Distance of a peer from the requester.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// In the same AS.
    SameAs,
    /// In another AS of the same ISD.
    SameIsd,
    /// In another ISD.
    OtherIsd,
    /// Without a place.
    Unplaced,
}

impl Tier {
    /// All tiers, nearest first.
    pub const ALL: [Self; 4] = [Self::SameAs, Self::SameIsd, Self::OtherIsd, Self::Unplaced];

    /// The tier of a peer at `peer` for a requester at `requester`. The requester must have a
    /// place.
    pub fn between(requester: IsdAs, peer: IsdAs) -> Self {
        if peer.is_none() {
            Self::Unplaced
        } else if peer == requester {
            Self::SameAs
        } else if peer.isd() == requester.isd() {
            Self::SameIsd
        } else {
            Self::OtherIsd
        }
    }
}

/// Whether a place is proven or claimed. Peers without a place count as proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Proven by the SCION packet or the operator's table.
    Proven,
    /// Claimed by the client.
    Claimed,
}

impl Standing {
    /// Both standings, in order of preference.
    pub const ALL: [Self; 2] = [Self::Proven, Self::Claimed];
}

/// Numbers of seeds and leechers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Peers that have the complete torrent.
    pub seeds: u32,
    /// All others.
    pub leechers: u32,
}

impl Tally {
    /// Seeds and leechers together.
    pub const fn total(self) -> u32 {
        self.seeds + self.leechers
    }

    /// The number of peers of a kind.
    #[inline]
    pub const fn of(self, kind: Kind) -> u32 {
        match kind {
            Kind::Anyone => self.seeds + self.leechers,
            Kind::Seeds => self.seeds,
            Kind::Leechers => self.leechers,
        }
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.leechers += other.leechers;
    }
}

impl std::ops::Sub for Tally {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            seeds: self.seeds - other.seeds,
            leechers: self.leechers - other.leechers,
        }
    }
}

/// Selects peers of a tally.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Seeds, then leechers.
    Anyone,
    /// Only seeds.
    Seeds,
    /// Only leechers.
    Leechers,
}

/// The peers that a requester can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A leecher can use all peers.
    Anyone,
    /// A seed or a partial seed can use only leechers.
    Leechers,
    /// Fills the reply of a seed that may be a leecher. See [`SEEDS_FOR_SEEDS`].
    Seeds,
}

impl From<Want> for Kind {
    fn from(want: Want) -> Self {
        match want {
            Want::Anyone => Self::Anyone,
            Want::Leechers => Self::Leechers,
            Want::Seeds => Self::Seeds,
        }
    }
}

/// The peers of a swarm that one requester can reach, counted by tier and standing, without the
/// requester itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    tallies: [[Tally; 2]; 4],
}

impl Census {
    /// The tally of a tier and standing.
    pub const fn tally(&self, tier: Tier, standing: Standing) -> Tally {
        self.tallies[tier as usize][standing as usize]
    }

    /// The tally of a tier and standing, to count into.
    pub const fn tally_mut(&mut self, tier: Tier, standing: Standing) -> &mut Tally {
        &mut self.tallies[tier as usize][standing as usize]
    }

    fn tier(&self, tier: Tier) -> Tally {
        let [mut sum, claimed] = self.tallies[tier as usize];
        sum += claimed;
        sum
    }
}

/// Number of peers to take of a tier and standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// From seeds and leechers together.
    pub any: u32,
    /// From the seeds. Not combined with `any`.
    pub seeds: u32,
    /// From the leechers. Not combined with `any`.
    pub leechers: u32,
}

impl Quota {
    /// The total number.
    pub const fn total(self) -> u32 {
        self.any + self.seeds + self.leechers
    }
}

/// Number of peers to take of each tier and standing: never more than the census has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plan {
    quotas: [[Quota; 2]; 4],
}

impl Plan {
    /// The quota of a tier and standing.
    pub const fn quota(&self, tier: Tier, standing: Standing) -> Quota {
        self.quotas[tier as usize][standing as usize]
    }

    /// Number of peers in the reply.
    pub fn total(&self) -> u32 {
        self.quotas
            .iter()
            .flatten()
            .map(|quota| quota.total())
            .sum()
    }
}

/// Decides how many peers of each tier a requester with a place gets.
pub fn plan(policy: &Policy, numwant: usize, want: Want, census: &Census) -> Plan {
    let numwant = u32::try_from(numwant).unwrap_or(u32::MAX);
    let has = Tier::ALL.map(|tier| census.tier(tier).of(want.into()));
    let reserve = reserves(policy, want, census).map(|peers| u32::from(peers).min(numwant / 4));

    let mut take = [0; 4];
    let mut left = numwant;
    for tier in 1..4 {
        take[tier] = has[tier].min(reserve[tier]).min(left);
        left -= take[tier];
    }
    let reserved = take;
    match policy.mode {
        Mode::Cap => {
            let quota = numwant.saturating_mul(u32::from(policy.cap_percent)) / 100;
            take[0] = has[0].min(quota).min(left);
            let floor = u32::from(policy.cap_floor).min(numwant);
            left = floor.saturating_sub(take.iter().sum());
        }
        Mode::Prefer | Mode::Random => {}
    }
    for tier in 0..4 {
        let more = (has[tier] - take[tier]).min(left);
        take[tier] += more;
        left -= more;
    }

    let mut plan = Plan::default();
    let mut seeds_nearer = 0;
    for (index, tier) in Tier::ALL.into_iter().enumerate() {
        let mut sure_seeds = 0;
        if want == Want::Anyone && index > 0 && seeds_nearer == 0 {
            sure_seeds = reserved[index].div_ceil(2);
        }
        plan.quotas[index] = split(&census.tallies[index], take[index], want, sure_seeds);
        seeds_nearer += census.tier(tier).seeds;
    }
    plan
}

/// Peers reserved for each tier. A seed has no reserves. Leechers must not be cut off, and each of
/// them has reserves of its own, with seeds in them.
fn reserves(policy: &Policy, want: Want, census: &Census) -> [u16; 4] {
    if want == Want::Leechers {
        return [0; 4];
    }
    let seeds_in_isd = census.tier(Tier::SameAs).seeds + census.tier(Tier::SameIsd).seeds;
    let world = if policy.mode == Mode::Prefer && seeds_in_isd > 0 {
        policy.reserve_world.div_ceil(2)
    } else {
        policy.reserve_world
    };
    [0, policy.reserve_isd, world, policy.reserve_unplaced]
}

/// Splits the share of a tier: proven places first, and `sure_seeds` of it from the seeds if there
/// are any.
fn split(tallies: &[Tally; 2], take: u32, want: Want, sure_seeds: u32) -> [Quota; 2] {
    let mut quotas = [Quota::default(); 2];
    let mut left = take;
    let mut sure_seeds = sure_seeds.min(take);
    let by_kind = sure_seeds > 0;
    for (quota, tally) in quotas.iter_mut().zip(tallies) {
        quota.seeds = tally.seeds.min(sure_seeds);
        sure_seeds -= quota.seeds;
        left -= quota.seeds;
    }
    for (quota, tally) in quotas.iter_mut().zip(tallies) {
        match want {
            Want::Leechers => {
                quota.leechers = tally.leechers.min(left);
                left -= quota.leechers;
            }
            Want::Seeds => {
                quota.seeds = tally.seeds.min(left);
                left -= quota.seeds;
            }
            Want::Anyone if by_kind => {
                quota.leechers = tally.leechers.min(left);
                left -= quota.leechers;
                let seeds = (tally.seeds - quota.seeds).min(left);
                quota.seeds += seeds;
                left -= seeds;
            }
            Want::Anyone => {
                quota.any = tally.total().min(left);
                left -= quota.any;
            }
        }
    }
    quotas
}

/// The peers of a swarm that one requester can reach, without the requester itself, as numbered
/// pools. A store implements this to have peers chosen from it; they are added to a `C`.
pub trait Pools<C> {
    /// The tally of a pool.
    fn tally(&self, pool: Pool) -> Tally;

    /// Adds the drawn peers of a pool to `chosen`. The draw gives their numbers among the peers of
    /// `kind`.
    fn take(&self, pool: Pool, kind: Kind, draw: Draw, rng: &mut Rng, chosen: &mut C);
}

/// A set of peers to draw from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pool {
    /// All peers that the requester can reach.
    Everyone,
    /// Those of a tier and standing.
    Of(Tier, Standing),
}

/// Chooses up to `numwant` peers for a requester at `ia`.
pub fn choose<C, P: Pools<C>>(
    policy: &Policy,
    ia: IsdAs,
    numwant: usize,
    want: Want,
    pools: &P,
    rng: &mut Rng,
    chosen: &mut C,
) {
    let mut draw = |pool: Pool, kind: Kind, count: u32, rng: &mut Rng| {
        if count == 0 {
            return;
        }
        let draw = Draw::new(pools.tally(pool).of(kind), count, rng);
        pools.take(pool, kind, draw, rng, chosen);
    };
    let reachable = pools.tally(Pool::Everyone).of(want.into());
    let count = u32::try_from(numwant).unwrap_or(u32::MAX).min(reachable);
    if policy.draws_from_all(ia, numwant, reachable as usize) {
        return draw(Pool::Everyone, want.into(), count, rng);
    }
    let mut census = Census::default();
    for tier in Tier::ALL {
        for standing in Standing::ALL {
            *census.tally_mut(tier, standing) = pools.tally(Pool::Of(tier, standing));
        }
    }
    let plan = plan(policy, numwant, want, &census);
    for tier in Tier::ALL {
        for standing in Standing::ALL {
            let quota = plan.quota(tier, standing);
            let pool = Pool::Of(tier, standing);
            draw(pool, Kind::Anyone, quota.any, rng);
            draw(pool, Kind::Seeds, quota.seeds, rng);
            draw(pool, Kind::Leechers, quota.leechers, rng);
        }
    }
}

#[cfg(test)]
mod tests;
