//! Synthetic socket addresses of SCION endpoints, for use inside quinn. Each remote has its own,
//! and they are readable in logs.
//!
//! ```text
//! IPv4 host   fd5c:1004 (32 bits) | ISD (16) | AS (48) | IPv4 address (32)
//! IPv6 host   fd5c:1006 (32 bits) | keyed hash of ISD-AS and address (96)
//! ```
//!
//! The ISD-AS is part of the address instead of the flow info or the scope id, because quinn
//! includes only address and port in Retry tokens, and only the address in validation tokens. A
//! token of 10.0.0.1 in one AS must not be valid for 10.0.0.1 in another. A synthetic address has a
//! meaning only at the QUIC endpoint of a SCION socket. Other listeners take it as an ordinary
//! address.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use scion_tracker_core::address::{IsdAs, ScionAddr};

const V4: u128 = 0xfd5c_1004 << 96;
const V6: u128 = 0xfd5c_1006 << 96;
const PREFIX: u128 = 0xffff_ffff << 96;

/// Makes synthetic addresses. The key of the hash is random in each process, so nobody can prepare
/// two hosts with the same address.
#[derive(Debug, Clone, Default)]
pub(super) struct SyntheticAddrs {
    low: RandomState,
    high: RandomState,
}

impl SyntheticAddrs {
    /// The synthetic address of an endpoint.
    pub(super) fn of(&self, addr: ScionAddr) -> SocketAddr {
        let host = addr.host;
        let bits = match host.ip() {
            IpAddr::V4(ip) => V4 | u128::from(host.ia.to_u64()) << 32 | u128::from(ip.to_bits()),
            IpAddr::V6(_) => {
                let hash = u128::from(self.high.hash_one(host)) << 64
                    | u128::from(self.low.hash_one(host));
                V6 | (hash & !PREFIX)
            }
        };
        SocketAddr::new(Ipv6Addr::from_bits(bits).into(), addr.port)
    }

    /// The endpoint behind the synthetic address of an IPv4 host.
    pub(super) fn endpoint(synthetic: SocketAddr) -> Option<ScionAddr> {
        let SocketAddr::V6(synthetic) = synthetic else {
            return None;
        };
        let bits = synthetic.ip().to_bits();
        if bits & PREFIX != V4 {
            return None;
        }
        let ia = IsdAs::from_u64((bits >> 32) as u64);
        ScionAddr::new(
            ia,
            Ipv4Addr::from_bits(bits as u32).into(),
            synthetic.port(),
        )
        .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> ScionAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ipv4_hosts_can_be_read_back() {
        let addrs = SyntheticAddrs::default();
        let there = addr("19-ffaa:1:c3f,[10.0.0.1]:443");
        let synthetic = addrs.of(there);
        assert_eq!(synthetic.to_string(), "[fd5c:1004:13:ffaa:1:c3f:a00:1]:443");
        assert_eq!(SyntheticAddrs::endpoint(synthetic), Some(there));
        let elsewhere = addrs.of(addr("19-ffaa:1:c40,[10.0.0.1]:443"));
        assert_ne!(synthetic.ip(), elsewhere.ip());
    }

    #[test]
    fn ipv6_hosts_of_different_ases_have_different_addresses() {
        let addrs = SyntheticAddrs::default();
        let one = addrs.of(addr("1-ff00:0:110,[fd00::1]:443"));
        assert_eq!(one, addrs.of(addr("1-ff00:0:110,[fd00::1]:443")));
        assert_eq!(one.ip(), addrs.of(addr("1-ff00:0:110,[fd00::1]:444")).ip());
        assert_ne!(one.ip(), addrs.of(addr("1-ff00:0:111,[fd00::1]:443")).ip());
        assert_ne!(one.ip(), addrs.of(addr("1-ff00:0:110,[fd00::2]:443")).ip());
        assert_ne!(
            one,
            SyntheticAddrs::default().of(addr("1-ff00:0:110,[fd00::1]:443"))
        );
        assert_eq!(SyntheticAddrs::endpoint(one), None);
    }

    #[test]
    fn other_addresses_stand_for_nobody() {
        for name in [
            "10.0.0.1:1",
            "[::1]:1",
            "[fd5c:1004::a00:1]:1",
            "[fd5c:1005:1::1:a00:1]:1",
        ] {
            assert_eq!(
                SyntheticAddrs::endpoint(name.parse().unwrap()),
                None,
                "{name}"
            );
        }
    }
}
