//! Limits the announces of each host by a token bucket, in constant memory.
//!
//! A bucket holds `burst` tokens and gains `per_second`. An announce takes one. All buckets are in one table
//! of fixed size: sets of eight slots, one cache line each. A slot is 64 bits:
//!
//! ```text
//! bits 40-63   tag: a part of the keyed hash of the host
//! bits  0-39   when the bucket is full again, in tokens gained since the start (modulo 2^40)
//! ```
//!
//! A bucket that is full says nothing, so its slot is free: the table needs room only for hosts that are
//! busy right now. If a set is full of others, the newcomer takes the slot of the one that has used least,
//! so a flood of many hosts displaces those that do little, and not those that are limited. Whoever is
//! displaced starts with a full bucket. Hosts are known by addresses that have answered (TCP, QUIC, UDP
//! connection ids), so a flood needs as many real addresses. The exception is a SCION host whose ISD-AS is
//! only claimed: it can take any name, and is not held by its bucket.
//!
//! A host whose preferred slot becomes free again moves there with a full bucket, which it can do once per
//! refill of the other host's bucket.
//!
//! Two hosts of a set share a bucket if their tags are the same: one pair of 16 million.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use parking_lot::Mutex;

use crate::address::Host;
use crate::prefix::PrefixSet;
use crate::registry::host_identity;
use crate::types::{Rng, Time};

/// Sets of the table: 512 KiB, for 65,536 hosts that are busy at once.
const SETS: usize = 1 << 13;
/// Slots of a set.
const WAYS: usize = 8;
/// Bits of a slot that hold its time.
const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// One in so many announces is noted for [`Rates::busiest`].
const SAMPLE: u32 = 64;
/// Hosts that are noted.
const NOTED: usize = 256;
/// Notes lose half of their weight after so many seconds.
const HALF_LIFE: u32 = 60;

/// How many announces a host may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Announces per second in the long run, at most [`Rate::MOST`].
    pub per_second: u32,
    /// Announces at once, at most [`Rate::MOST`].
    pub burst: u32,
}

impl Rate {
    /// The largest rate and burst.
    pub const MOST: u32 = 1_000_000;
}

/// The announces of one host, about as many as in the last minute or two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusyHost {
    /// The host: an address, of IPv6 the first one of its /64.
    pub host: Host,
    /// Announces. An estimate from one in 64.
    pub announces: u64,
    /// Announces that were refused for their rate. Also an estimate.
    pub refused: u64,
}

#[derive(Debug)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

/// The announces of all hosts.
#[derive(Debug)]
pub struct Rates {
    rate: Rate,
    /// Hosts that are never refused.
    unlimited: PrefixSet,
    keys: RandomState,
    sets: Box<[Set]>,
    notes: Mutex<Notes>,
}

impl Rates {
    /// Buckets that are full. Hosts with an address in `unlimited`, also SCION hosts, are not limited. `seeds`
    /// key the hash function and must be unpredictable to peers.
    pub fn new(rate: Rate, unlimited: PrefixSet, seeds: [u64; 4]) -> Self {
        let [a, b, c, d] = seeds;
        Self {
            rate: Rate {
                per_second: rate.per_second.min(Rate::MOST),
                burst: rate.burst.clamp(1, Rate::MOST),
            },
            unlimited,
            keys: RandomState::with_seeds(a, b, c, d),
            sets: (0..SETS)
                .map(|_| Set([const { AtomicU64::new(0) }; WAYS]))
                .collect(),
            notes: Mutex::default(),
        }
    }

    /// The rate in force.
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes a token of the host. Returns false if there is none.
    #[inline]
    pub fn take(&self, host: Host, now: Time, rng: &mut Rng) -> bool {
        let hash = self.keys.hash_one(host_identity(host));
        let set = &self.sets[hash as usize % SETS].0;
        let preferred = &set[(hash >> 13) as usize % WAYS];
        let tag = hash & !TIME_MASK;
        let time = u64::from(now.as_secs()) * u64::from(self.rate.per_second) + 1;
        let word = preferred.load(Ordering::Relaxed);
        let served = if word & !TIME_MASK == tag || self.used(word, time) == 0 {
            self.take_from(preferred, tag, time)
        } else {
            self.take_elsewhere(set, tag, time)
        };
        // Looked up only for those who exceed the rate.
        let served = served || self.unlimited.contains(host.ip());
        if rng.u32(..) < u32::MAX / SAMPLE {
            self.note(host, now, served);
        }
        served
    }

    /// Tokens that a bucket lacks. None if the word is older or younger than a bucket can be.
    #[inline]
    fn used(&self, word: u64, time: u64) -> u64 {
        let used = word.wrapping_sub(time) & TIME_MASK;
        match used <= u64::from(self.rate.burst) {
            true => used,
            false => 0,
        }
    }

    /// Takes a token from the bucket of this tag, which is in this slot or gets it.
    #[inline]
    fn take_from(&self, slot: &AtomicU64, tag: u64, time: u64) -> bool {
        let taken = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let used = match word & !TIME_MASK == tag {
                true => self.used(word, time),
                false => 0,
            };
            let full_at = time.wrapping_add(used + 1) & TIME_MASK;
            (used < u64::from(self.rate.burst)).then_some(tag | full_at)
        });
        taken.is_ok()
    }

    /// The preferred slot belongs to another host.
    #[cold]
    fn take_elsewhere(&self, set: &[AtomicU64; WAYS], tag: u64, time: u64) -> bool {
        let mut least = (&set[0], u64::MAX);
        for slot in set {
            let word = slot.load(Ordering::Relaxed);
            if word & !TIME_MASK == tag {
                return self.take_from(slot, tag, time);
            }
            let used = self.used(word, time);
            if used < least.1 {
                least = (slot, used);
            }
        }
        self.take_from(least.0, tag, time)
    }

    #[cold]
    fn note(&self, host: Host, now: Time, served: bool) {
        // Whoever holds the lock is noting another one of many.
        if let Some(mut notes) = self.notes.try_lock() {
            notes.add(subscriber(host), now, !served);
        }
    }

    /// The hosts that announce most, busiest first. Estimates of what they did in the last minute or two.
    pub fn busiest(&self, most: usize, now: Time) -> Vec<BusyHost> {
        let mut notes = self.notes.lock();
        notes.fade(now);
        let weight = |(host, announces, refused): &(Host, u32, u32)| BusyHost {
            host: *host,
            announces: u64::from(*announces) * u64::from(SAMPLE),
            refused: u64::from(*refused) * u64::from(SAMPLE),
        };
        let mut hosts: Vec<_> = notes.hosts.iter().map(weight).collect();
        hosts.sort_by_key(|it| (std::cmp::Reverse(it.announces), it.host));
        hosts.truncate(most);
        hosts
    }
}

/// The host by which others of the same subscriber are counted, too.
fn subscriber(host: Host) -> Host {
    match host.ip() {
        IpAddr::V4(_) => host,
        IpAddr::V6(ip) => {
            let network = u128::from(ip) >> 64 << 64;
            Host::new(host.ia, IpAddr::V6(network.into()))
        }
    }
}

/// Hosts of sampled announces: as many as there is room for, those with the fewest leave first.
#[derive(Debug, Default)]
struct Notes {
    /// Announces, and refused ones among them.
    hosts: Vec<(Host, u32, u32)>,
    faded: Time,
}

impl Notes {
    fn add(&mut self, host: Host, now: Time, refused: bool) {
        self.fade(now);
        let at = self.hosts.iter().position(|it| it.0 == host);
        let at = at.unwrap_or_else(|| {
            if self.hosts.len() == NOTED {
                let least = (0..NOTED).min_by_key(|at| self.hosts[*at].1);
                self.hosts.swap_remove(least.unwrap_or_default());
            }
            self.hosts.push((host, 0, 0));
            self.hosts.len() - 1
        });
        let (_, announces, refusals) = &mut self.hosts[at];
        *announces = announces.saturating_add(1);
        *refusals = refusals.saturating_add(refused.into());
    }

    fn fade(&mut self, now: Time) {
        let halvings = now.since(self.faded) / HALF_LIFE;
        if halvings == 0 {
            return;
        }
        self.faded = now;
        self.hosts.retain_mut(|(_, announces, refused)| {
            *announces = announces.checked_shr(halvings).unwrap_or(0);
            *refused = refused.checked_shr(halvings).unwrap_or(0);
            *announces > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u32) -> Host {
        Host::ip_only(IpAddr::V4((0x0a00_0000 + number).into()))
    }

    fn rates(per_second: u32, burst: u32) -> Rates {
        let unlimited = ["127.0.0.0/8".parse().unwrap()].into_iter().collect();
        Rates::new(Rate { per_second, burst }, unlimited, [1, 2, 3, 4])
    }

    /// How many of these announces are served.
    fn served(rates: &Rates, host: Host, second: u32, announces: usize) -> usize {
        let mut rng = Rng::with_seed(second.into());
        let now = Time::from_secs(second);
        let announces = (0..announces).map(|_| rates.take(host, now, &mut rng));
        announces.filter(|served| *served).count()
    }

    #[test]
    fn a_bucket_empties_and_fills() {
        let rates = rates(5, 20);
        assert_eq!(served(&rates, host(1), 0, 30), 20);
        assert_eq!(served(&rates, host(2), 0, 30), 20);
        assert_eq!(served(&rates, host(1), 1, 30), 5);
        assert_eq!(served(&rates, host(1), 3, 30), 10);
        assert_eq!(served(&rates, host(1), 3, 30), 0);
        assert_eq!(served(&rates, host(1), 1000, 30), 20);
    }

    #[test]
    fn an_unlimited_host_is_never_refused() {
        let rates = rates(1, 3);
        let local = Host::ip_only([127, 0, 0, 9].into());
        assert_eq!(served(&rates, local, 0, 100), 100);
    }

    #[test]
    fn one_subscriber_has_one_bucket() {
        let rates = rates(1, 3);
        let at = |ia: &str, ip: &str| Host::new(ia.parse().unwrap(), ip.parse().unwrap());
        assert_eq!(served(&rates, at("0-0", "2001:db8::1"), 0, 2), 2);
        assert_eq!(served(&rates, at("0-0", "2001:db8::2"), 0, 2), 1);
        assert_eq!(served(&rates, at("0-0", "2001:db8:0:1::2"), 0, 2), 2);
        assert_eq!(served(&rates, at("1-1", "10.0.0.1"), 0, 9), 3);
        assert_eq!(served(&rates, at("1-2", "10.0.0.1"), 0, 9), 3);
    }

    #[test]
    fn the_clock_of_a_slot_goes_round() {
        let rates = rates(Rate::MOST, 10);
        // 2^40 tokens are 1,099,511 seconds.
        for second in [
            1_099_511,
            1_099_512,
            2_199_023,
            2_199_024,
            549_755,
            4_000_000_000,
        ] {
            assert_eq!(served(&rates, host(1), second, 30), 10, "{second}");
            assert_eq!(served(&rates, host(1), second, 30), 0, "{second}");
        }
    }

    #[test]
    fn a_flood_of_hosts_frees_nobody_who_is_limited() {
        let rates = rates(1, 1000);
        assert_eq!(served(&rates, host(0), 0, 2000), 1000);
        // Three times as many as there are slots.
        for number in 1..200_000 {
            assert!(served(&rates, host(number), 0, 1) == 1);
        }
        assert_eq!(served(&rates, host(0), 0, 10), 0);
    }

    #[test]
    fn concurrent_announces_take_no_more_than_there_is() {
        let rates = rates(1, 10_000);
        let total: usize = std::thread::scope(|scope| {
            let threads = (0..4).map(|_| scope.spawn(|| served(&rates, host(1), 7, 5_000)));
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|it| it.join().unwrap()).sum()
        });
        assert_eq!(total, 10_000);
    }

    #[test]
    fn the_busiest_come_first_and_fade() {
        let rates = rates(10, 8_000);
        let mut rng = Rng::with_seed(1);
        let now = Time::from_secs(10);
        for _ in 0..10_000 {
            rates.take(host(1), now, &mut rng);
        }
        for _ in 0..3_000 {
            rates.take(host(2), now, &mut rng);
        }
        for number in 1000..4000 {
            rates.take(host(number), now, &mut rng);
        }
        let busiest = rates.busiest(2, now);
        assert_eq!(
            busiest.iter().map(|it| it.host).collect::<Vec<_>>(),
            [host(1), host(2)]
        );
        assert!(
            (8_000..12_000).contains(&busiest[0].announces),
            "{busiest:?}"
        );
        assert!((1_200..2_800).contains(&busiest[0].refused), "{busiest:?}");
        assert_eq!(busiest[1].refused, 0);
        let later = rates.busiest(1, Time::from_secs(70));
        assert_eq!(later[0].announces / 64, busiest[0].announces / 128);
        assert_eq!(rates.busiest(1, Time::from_secs(7000)), []);
    }
}
