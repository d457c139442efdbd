//! Tables of IP prefixes with longest-prefix match: the operator's places, trusted networks, proxies
//! and access rules.
//!
//! Tables are built once and only read afterwards, so the prefixes are cut into disjoint ranges of
//! addresses, and a lookup is one binary search over the starts of these ranges. 10,000 prefixes give
//! at most 20,000 ranges, which is 15 steps for either family. `cargo bench --bench prefix` measures it.
//!
//! Why this is not the crate prefix-trie 0.10, a TreeBitMap: among 10,000 neighbouring prefixes it takes
//! 440 instructions to look up an IPv4 address and 925 for IPv6. This file takes 105 and 172 (callgrind,
//! x86_64). A UDP announce takes 6,400 and may grow by 2 % when a table is full.
//!
//! What an operator can rely on:
//! - IPv4 and IPv6 are kept apart: `::/0` does not match an IPv4 address.
//! - IPv4-mapped IPv6 addresses and prefixes (RFC 4291 section 2.5.5.2) count as IPv4.
//! - Host bits of a prefix are ignored here. The configuration rejects them where it parses prefixes.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

/// Length of `::ffff:0:0/96`, the prefix of IPv4-mapped IPv6 addresses.
const MAPPED_LEN: u8 = 96;

/// Maps IP prefixes to values. A lookup finds the longest prefix that contains an address.
///
/// Built by collecting `(prefix, value)` pairs. The last value of a prefix that occurs twice wins.
#[derive(Debug, Clone)]
pub struct PrefixMap<V> {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    /// The values of both families.
    values: Vec<V>,
}

impl<V> PrefixMap<V> {
    /// Returns the value of the longest prefix that contains `ip`.
    #[inline]
    pub fn longest_match(&self, ip: IpAddr) -> Option<&V> {
        // Most trackers have no tables, and pay two instructions for each.
        if self.values.is_empty() {
            return None;
        }
        let value = match ip {
            IpAddr::V4(ip) => self.v4.find(ip.to_bits()),
            IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                Some(ip) => self.v4.find(ip.to_bits()),
                None => self.v6.find(ip.to_bits()),
            },
        };
        self.values.get(value as usize)
    }

    /// Whether there are no prefixes.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

impl<V> Default for PrefixMap<V> {
    fn default() -> Self {
        Self::from_iter([])
    }
}

impl<V> FromIterator<(IpNet, V)> for PrefixMap<V> {
    fn from_iter<I: IntoIterator<Item = (IpNet, V)>>(entries: I) -> Self {
        let (mut v4, mut v6, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (net, value) in entries {
            let index = values.len() as u32;
            values.push(value);
            match unmapped(net).trunc() {
                IpNet::V4(net) => v4.push(Prefix {
                    start: net.network().to_bits(),
                    end: net.broadcast().to_bits(),
                    value: index,
                }),
                IpNet::V6(net) => v6.push(Prefix {
                    start: net.network().to_bits(),
                    end: net.broadcast().to_bits(),
                    value: index,
                }),
            }
        }
        Self {
            v4: Ranges::new(v4, 0),
            v6: Ranges::new(v6, 0),
            values,
        }
    }
}

/// A set of IP prefixes. Built by collecting prefixes.
#[derive(Debug, Clone)]
pub struct PrefixSet {
    map: PrefixMap<()>,
    /// The IPv4 networks `0.0.0.0/8` to `255.0.0.0/8`. One look is enough for most addresses, because
    /// few of these networks are in a set only in part.
    slash8: Box<[Slash8; 256]>,
}

/// How much of a network `/8` the prefixes of a set contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slash8 {
    Nothing,
    Everything,
    /// The ranges have to be searched.
    Part,
}

impl PrefixSet {
    /// Whether any prefix contains `ip`.
    #[inline]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(v4) => match self.slash8[usize::from(v4.octets()[0])] {
                Slash8::Nothing => false,
                Slash8::Everything => true,
                Slash8::Part => self.map.longest_match(ip).is_some(),
            },
            IpAddr::V6(_) => self.map.longest_match(ip).is_some(),
        }
    }

    /// Whether there are no prefixes.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

impl Default for PrefixSet {
    fn default() -> Self {
        Self::from_iter([])
    }
}

impl FromIterator<IpNet> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        let map: PrefixMap<()> = nets.into_iter().map(|net| (net, ())).collect();
        let slash8 = std::array::from_fn(|octet| {
            let first = (octet as u32) << 24;
            let last = first | 0x00ff_ffff;
            // A range that begins behind the first address.
            let divided = map
                .v4
                .before
                .iter()
                .any(|before| (first..last).contains(before));
            match map.v4.find(first) {
                _ if divided => Slash8::Part,
                NO_VALUE => Slash8::Nothing,
                _ => Slash8::Everything,
            }
        });
        Self {
            map,
            slash8: Box::new(slash8),
        }
    }
}

/// Returns the IPv4 prefix that an IPv4-mapped IPv6 prefix stands for, and any other prefix as it is.
pub fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let mapped = v6.addr().to_ipv4_mapped();
    mapped
        .zip(v6.prefix_len().checked_sub(MAPPED_LEN))
        .and_then(|(addr, len): (Ipv4Addr, u8)| IpNet::new(addr.into(), len).ok())
        .unwrap_or(net)
}

/// An address as a number.
trait Bits: Copy + Ord {
    /// The next address. `None` after the last one.
    fn next(self) -> Option<Self>;

    /// The previous address. `None` before the first one.
    fn previous(self) -> Option<Self>;

    /// The number of addresses from `other` to this one, zero if that is larger.
    fn since(self, other: Self) -> Self;

    /// How many bits the number has, without leading zeros.
    fn bits(self) -> u32;

    /// The number without its lowest bits; the largest `usize` if it is larger.
    fn shifted(self, bits: u32) -> usize;
}

macro_rules! bits {
    ($($number:ty),*) => {
        $(impl Bits for $number {
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }

            fn previous(self) -> Option<Self> {
                self.checked_sub(1)
            }

            #[inline]
            fn since(self, other: Self) -> Self {
                self.saturating_sub(other)
            }

            fn bits(self) -> u32 {
                Self::BITS - self.leading_zeros()
            }

            #[inline]
            fn shifted(self, bits: u32) -> usize {
                usize::try_from(self >> bits).unwrap_or(usize::MAX)
            }
        })*
    };
}
bits!(u32, u128);

/// A prefix by its first and last address.
#[derive(Debug, Clone, Copy)]
struct Prefix<K> {
    start: K,
    end: K,
    value: u32,
}

/// Stands for "no prefix contains these addresses": no table has so many values.
const NO_VALUE: u32 = u32::MAX;

/// Buckets of a table. With 10,000 prefixes spread evenly, a bucket has 80 ranges.
const BUCKETS: usize = 256;

/// The address space of one family, cut into ranges that share their longest prefix.
///
/// The part of the address space that has prefixes is divided into equal buckets. A search looks up
/// the bucket of an address, and then searches the ranges that begin there.
#[derive(Debug, Clone)]
struct Ranges<K> {
    /// Last address before each range, sorted. The range before all others has none.
    before: Vec<K>,
    /// Index of each range's value, or [`NO_VALUE`]; first that of the range before all others.
    values: Vec<u32>,
    /// Number of ranges that begin before each bucket, and of all.
    buckets: Box<[u32; BUCKETS + 1]>,
    /// Where the first bucket begins.
    start: K,
    /// Bits of an address inside its bucket.
    shift: u32,
}

impl<K: Bits> Ranges<K> {
    fn new(prefixes: Vec<Prefix<K>>, zero: K) -> Self {
        let mut before = Vec::new();
        let mut values = vec![NO_VALUE];
        for (start, value) in cut(prefixes) {
            match start.previous() {
                Some(previous) => {
                    before.push(previous);
                    values.push(value);
                }
                None => values[0] = value,
            }
        }
        let start = before.first().copied().unwrap_or(zero);
        let span = before.last().map_or(zero, |last| last.since(start));
        let mut ranges = Self {
            values,
            buckets: Box::new([0; BUCKETS + 1]),
            start,
            shift: span.bits().saturating_sub(BUCKETS.ilog2()),
            before,
        };
        for at in 0..ranges.before.len() {
            ranges.buckets[ranges.bucket(ranges.before[at]) + 1] += 1;
        }
        for bucket in 0..BUCKETS {
            ranges.buckets[bucket + 1] += ranges.buckets[bucket];
        }
        ranges
    }

    #[inline]
    fn bucket(&self, address: K) -> usize {
        let bucket = address.since(self.start).shifted(self.shift);
        bucket.min(BUCKETS - 1)
    }

    /// Returns the value of the last range that starts at or before `address`.
    #[inline]
    fn find(&self, address: K) -> u32 {
        let bucket = self.bucket(address);
        let first = self.buckets[bucket] as usize;
        let until = self.buckets[bucket + 1] as usize;
        let here = &self.before[first..until];
        self.values[first + here.partition_point(|before| *before < address)]
    }
}

/// Cuts prefixes into disjoint ranges: the start of each and its value, sorted.
fn cut<K: Bits>(mut prefixes: Vec<Prefix<K>>) -> Vec<(K, u32)> {
    // An outer prefix before the inner ones. The sort is stable: of equal ones the last stays last.
    prefixes.sort_by_key(|prefix| (prefix.start, std::cmp::Reverse(prefix.end)));
    let mut ranges = Vec::with_capacity(2 * prefixes.len());
    // The prefixes that contain the current address, outermost first.
    let mut open = Vec::new();
    for prefix in prefixes {
        close(&mut open, &mut ranges, |outer| outer.end < prefix.start);
        push(&mut ranges, prefix.start, prefix.value);
        open.push(prefix);
    }
    close(&mut open, &mut ranges, |_| true);
    ranges
}

/// Ends open prefixes, innermost first. The one around each goes on behind it.
fn close<K: Bits>(
    open: &mut Vec<Prefix<K>>,
    ranges: &mut Vec<(K, u32)>,
    ends: impl Fn(&Prefix<K>) -> bool,
) {
    while let Some(closed) = open.pop_if(|prefix| ends(prefix)) {
        if let Some(after) = closed.end.next() {
            let value = open.last().map_or(NO_VALUE, |outer| outer.value);
            push(ranges, after, value);
        }
    }
}

/// Adds a range. It replaces one with the same start, which is empty.
fn push<K: Bits>(ranges: &mut Vec<(K, u32)>, start: K, value: u32) {
    match ranges.last_mut() {
        Some(last) if last.0 == start => last.1 = value,
        _ => ranges.push((start, value)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    fn map(nets: &[&str]) -> PrefixMap<String> {
        nets.iter()
            .map(|net| (net.parse().unwrap(), (*net).to_owned()))
            .collect()
    }

    #[test]
    fn the_longest_prefix_wins() {
        let table = map(&[
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.0.0.0/16",
            "10.0.0.1/32",
            "10.0.255.0/24",
            "255.255.255.255/32",
            "2001:db8::/32",
            "2001:db8::1/128",
            "ffff::/16",
            "::ffff:192.0.2.0/120",
        ]);
        for (ip, net) in [
            ("0.0.0.0", "0.0.0.0/0"),
            ("9.255.255.255", "0.0.0.0/0"),
            ("10.0.0.0", "10.0.0.0/16"),
            ("10.0.0.1", "10.0.0.1/32"),
            ("10.0.0.2", "10.0.0.0/16"),
            ("10.0.255.255", "10.0.255.0/24"),
            ("10.1.0.0", "10.0.0.0/8"),
            ("11.0.0.0", "0.0.0.0/0"),
            ("255.255.255.255", "255.255.255.255/32"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
            ("192.0.2.7", "::ffff:192.0.2.0/120"),
            ("::ffff:192.0.2.7", "::ffff:192.0.2.0/120"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("2001:db8::2", "2001:db8::/32"),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff::/16"),
        ] {
            let found = table.longest_match(ip.parse().unwrap());
            assert_eq!(found.map(String::as_str), Some(net), "{ip}");
        }
        for ip in ["::", "2001:db9::", "2001:db7:ffff::"] {
            assert_eq!(table.longest_match(ip.parse().unwrap()), None, "{ip}");
        }
    }

    #[test]
    fn families_are_kept_apart() {
        let table: PrefixSet = ["::/0".parse().unwrap()].into_iter().collect();
        assert!(table.contains("2001:db8::1".parse().unwrap()));
        assert!(!table.contains("192.0.2.1".parse().unwrap()));
        assert!(!table.contains("::ffff:192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn an_empty_table_matches_nothing() {
        let table = PrefixSet::default();
        assert!(table.is_empty());
        for ip in ["0.0.0.0", "255.255.255.255", "::", "2001:db8::1"] {
            assert!(!table.contains(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn the_last_of_equal_prefixes_wins_and_host_bits_do_not_count() {
        let table: PrefixMap<u8> = [("10.0.0.1/8", 1), ("10.0.0.0/8", 2), ("10.9.9.9/8", 3)]
            .into_iter()
            .map(|(net, value)| (net.parse().unwrap(), value))
            .collect();
        assert_eq!(table.longest_match("10.1.1.1".parse().unwrap()), Some(&3));
    }

    /// Addresses that differ in few bits, so that prefixes nest and touch.
    fn address() -> impl Strategy<Value = IpAddr> {
        let bits = || prop_oneof![0..16u32, any::<u32>(), (0..16u32).prop_map(|n| !n)];
        prop_oneof![
            bits().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
            bits().prop_map(|bits| Ipv4Addr::from_bits(bits).to_ipv6_mapped().into()),
            (bits(), any::<bool>(), bits()).prop_map(|(high, ones, low)| {
                let middle = if ones { u128::from(u64::MAX) << 32 } else { 0 };
                let bits = u128::from(high) << 96 | middle | u128::from(low);
                Ipv6Addr::from_bits(bits).into()
            }),
        ]
    }

    fn net() -> impl Strategy<Value = IpNet> {
        (address(), 0..=128u8).prop_map(|(ip, len)| {
            let longest = if ip.is_ipv4() { 32 } else { 128 };
            IpNet::new(ip, len % (longest + 1)).unwrap()
        })
    }

    /// What the table has to find, by a linear search.
    fn linear(nets: &[IpNet], ip: IpAddr) -> Option<usize> {
        let nets = nets.iter().map(|net| unmapped(*net)).enumerate();
        nets.filter(|(_, net)| net.contains(&ip.to_canonical()))
            .max_by_key(|(index, net)| (net.prefix_len(), *index))
            .map(|(index, _)| index)
    }

    proptest! {
        #[test]
        fn a_linear_search_finds_the_same(
            nets in prop::collection::vec(net(), 0..64),
            others in prop::collection::vec(address(), 16),
        ) {
            let table: PrefixMap<usize> = nets.iter().copied().zip(0..).collect();
            let set: PrefixSet = nets.iter().copied().collect();
            let edges = nets.iter().flat_map(|net| [net.addr(), net.network(), net.broadcast()]);
            for ip in others.into_iter().chain(edges) {
                let found = linear(&nets, ip);
                prop_assert_eq!(table.longest_match(ip).copied(), found, "{}", ip);
                prop_assert_eq!(set.contains(ip), found.is_some(), "{}", ip);
            }
        }
    }
}
