//! Bans of hosts and networks, with an expiry and a reason.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};

use crate::address::{Host, IsdAs};
use crate::prefix::{PrefixMap, unmapped};

/// What is banned. Made by [`BanTarget::host`] and [`BanTarget::network`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BanTarget {
    ia: IsdAs,
    net: IpNet,
}

impl BanTarget {
    /// A host. Of an IPv6 host its /64 is banned, which is one subscriber. A SCION host is banned in its AS.
    pub fn host(host: Host) -> Self {
        let net = match host.ip() {
            IpAddr::V6(ip) => Ipv6Net::new(ip, 64).map_or_else(|_| host.ip().into(), IpNet::V6),
            ip => ip.into(),
        };
        Self {
            ia: host.ia,
            net: net.trunc(),
        }
    }

    /// A network of plain IP. IPv6 networks smaller than a /64 are banned as the /64 around them. One of
    /// IPv4-mapped addresses is the IPv4 network.
    pub fn network(net: IpNet) -> Self {
        let net = match unmapped(net) {
            IpNet::V6(v6) if v6.prefix_len() > 64 => {
                Ipv6Net::new(v6.addr(), 64).map_or(net, IpNet::V6)
            }
            net => net,
        };
        Self {
            ia: IsdAs::NONE,
            net: net.trunc(),
        }
    }
}

impl fmt::Display for BanTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ia.is_none() {
            true => write!(f, "{}", self.net),
            false => write!(f, "{},{}", self.ia, self.net),
        }
    }
}

/// What is known of a ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// When it ends, in seconds since 1970. `None`: never.
    pub until: Option<u64>,
    /// Why, for operators. The banned are not told.
    pub reason: String,
}

impl Ban {
    fn is_over(&self, unix: u64) -> bool {
        self.until.is_some_and(|until| until <= unix)
    }
}

/// All bans, and tables to look them up in.
#[derive(Debug, Clone, Default)]
pub(super) struct Bans {
    all: BTreeMap<BanTarget, Ban>,
    /// When the ban of each network ends. Built from `all`.
    networks: PrefixMap<Option<u64>>,
}

impl Bans {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether a host is banned at this time, in seconds since 1970.
    #[inline]
    pub(super) fn contains(&self, host: Host, unix: u64) -> bool {
        if !host.ia.is_none() {
            let ban = self.all.get(&BanTarget::host(host));
            return ban.is_some_and(|ban| !ban.is_over(unix));
        }
        match self.networks.longest_match(host.ip()) {
            None => false,
            Some(Some(until)) if *until <= unix => self.search(host.ip(), unix),
            Some(_) => true,
        }
    }

    /// Looks for a ban around one that is over. It lasts until [`Bans::remove_over`] has removed that.
    #[cold]
    fn search(&self, ip: IpAddr, unix: u64) -> bool {
        let mut bans = self.all.iter();
        bans.any(|(target, ban)| {
            target.ia.is_none() && target.net.contains(&ip) && !ban.is_over(unix)
        })
    }

    pub(super) fn insert(&mut self, target: BanTarget, ban: Ban) -> Option<Ban> {
        let old = self.all.insert(target, ban);
        self.build();
        old
    }

    pub(super) fn remove(&mut self, target: &BanTarget) -> Option<Ban> {
        let old = self.all.remove(target)?;
        self.build();
        Some(old)
    }

    pub(super) fn has_over(&self, unix: u64) -> bool {
        self.all.values().any(|ban| ban.is_over(unix))
    }

    pub(super) fn remove_over(&mut self, unix: u64) {
        self.all.retain(|_, ban| !ban.is_over(unix));
        self.build();
    }

    pub(super) fn extend(&mut self, bans: impl IntoIterator<Item = (BanTarget, Ban)>) {
        self.all.extend(bans);
        self.build();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&BanTarget, &Ban)> {
        self.all.iter()
    }

    fn build(&mut self) {
        let networks = self.all.iter().filter(|(target, _)| target.ia.is_none());
        self.networks = networks
            .map(|(target, ban)| (target.net, ban.until))
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ban(until: impl Into<Option<u64>>) -> Ban {
        Ban {
            until: until.into(),
            reason: "scans".into(),
        }
    }

    fn host(ia: &str, ip: &str) -> Host {
        Host::new(ia.parse().unwrap(), ip.parse().unwrap())
    }

    #[test]
    fn a_network_of_mapped_addresses_is_the_ipv4_network() {
        let network = |text: &str| BanTarget::network(text.parse().unwrap());
        for (mapped, v4) in [
            ("::ffff:192.0.2.1/128", "192.0.2.1/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
        ] {
            assert_eq!(network(mapped), network(v4));
            assert_eq!(network(mapped).to_string(), v4);
        }
        assert_eq!(
            network("192.0.2.1/32"),
            BanTarget::host(host("0-0", "::ffff:192.0.2.1"))
        );
        assert_eq!(network("2001:db8::1/128").to_string(), "2001:db8::/64");
    }

    #[test]
    fn bans_hosts_subscribers_and_networks_until_they_end() {
        let mut bans = Bans::default();
        bans.extend([
            (BanTarget::host(host("0-0", "192.0.2.1")), ban(None)),
            (BanTarget::host(host("0-0", "2001:db8::1")), ban(None)),
            (
                BanTarget::network("198.51.100.0/24".parse().unwrap()),
                ban(200),
            ),
            (
                BanTarget::network("198.51.100.7/32".parse().unwrap()),
                ban(100),
            ),
            (BanTarget::host(host("1-1", "10.0.0.1")), ban(100)),
        ]);
        for (ia, ip, at_99, at_100, at_200) in [
            ("0-0", "192.0.2.1", true, true, true),
            ("0-0", "::ffff:192.0.2.1", true, true, true),
            ("0-0", "192.0.2.2", false, false, false),
            ("0-0", "2001:db8::ffff", true, true, true),
            ("0-0", "2001:db8:0:1::1", false, false, false),
            ("0-0", "198.51.100.8", true, true, false),
            // The ban of the host ends before that of its network.
            ("0-0", "198.51.100.7", true, true, false),
            ("1-1", "10.0.0.1", true, false, false),
            ("1-2", "10.0.0.1", false, false, false),
            ("0-0", "10.0.0.1", false, false, false),
            // In another AS it is another host.
            ("1-1", "192.0.2.1", false, false, false),
        ] {
            for (unix, expected) in [(99, at_99), (100, at_100), (200, at_200)] {
                assert_eq!(
                    bans.contains(host(ia, ip), unix),
                    expected,
                    "{ia} {ip} {unix}"
                );
            }
        }
        assert!(!bans.has_over(99) && bans.has_over(100));
        bans.remove_over(100);
        assert_eq!(bans.iter().count(), 3);
        assert!(bans.contains(host("0-0", "198.51.100.7"), 150));
        let target = BanTarget::network("198.51.100.0/24".parse().unwrap());
        assert_eq!(bans.remove(&target), Some(ban(200)));
        assert_eq!(bans.remove(&target), None);
        assert!(!bans.contains(host("0-0", "198.51.100.7"), 150));
        assert_eq!(bans.insert(target, ban(None)), None);
        assert!(bans.contains(host("0-0", "198.51.100.7"), 1 << 40));
        assert!(!bans.is_empty());
    }
}
