//! Stateless UDP connection ids (BEP 15). They prove that a requester receives what is sent to its
//! address, without storing anything per requester.

use std::hash::Hasher as _;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;
use subtle::ConstantTimeEq;

use crate::address::Host;
use crate::types::Time;

/// The 64-bit id that a client receives for a `connect` and repeats in each request.
///
/// ```text
/// byte 0      low 8 bits of the number of the window in which it was issued
/// bytes 1-7   56 bits of SipHash-2-4, keyed, over
///             ISD-AS 8 bytes, without it nothing | IPv4 4 bytes or IPv6 16 | window number 4 bytes,
///             all big endian
/// ```
///
/// No two of the forms that are hashed have the same length.
///
/// 56 bits suffice. The only attack is to guess online, with one announce per guess, for one
/// spoofed source and window. At a million guesses per second the first success comes after some
/// 1100 years, and adds one peer, whose address then times out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub u64);

/// Most windows per validity period. More windows make an id outlive its validity by less. The
/// number is well below 256, so that 8 bits identify a window.
const WINDOWS: u32 = 128;

/// Issues and checks connection ids.
///
/// An id is valid for the validity period and up to one window longer. A window is a 128th of the
/// validity, but at least one second. Ids from before a restart are valid only with the secret that they
/// were issued with: see [`ConnectionIds::accepting`].
#[derive(Clone)]
pub struct ConnectionIds {
    key: Key,
    /// Length of a window in seconds.
    window: u32,
    /// Validity in windows.
    max_age: u32,
    past: Vec<Past>,
}

/// The secret of an earlier run of the tracker.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PastSecret {
    /// The key of [`ConnectionIds::new`].
    pub key: [u8; 16],
    /// Seconds from the [`Time`] zero of that run to the time zero of this one, rounded up. If it is one
    /// second too large, ids expire one second earlier; if it is too small, the newest ids are refused.
    pub age: u32,
}

impl std::fmt::Debug for PastSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Do not print the key.
        f.debug_struct("PastSecret")
            .field("age", &self.age)
            .finish_non_exhaustive()
    }
}

/// The two halves of the key of SipHash, as it takes them: little endian.
#[derive(Clone, Copy)]
struct Key(u64, u64);

impl Key {
    fn new(key: [u8; 16]) -> Self {
        let bits = u128::from_le_bytes(key);
        Self(bits as u64, (bits >> 64) as u64)
    }
}

#[derive(Clone)]
struct Past {
    key: Key,
    age: u32,
}

impl std::fmt::Debug for ConnectionIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Do not print the key.
        f.debug_struct("ConnectionIds")
            .field("window", &self.window)
            .field("max_age", &self.max_age)
            .finish_non_exhaustive()
    }
}

impl ConnectionIds {
    /// `key` must be random, and the same for all sockets that may receive packets of one client.
    pub fn new(key: [u8; 16], validity_secs: u32) -> Self {
        let window = validity_secs.div_ceil(WINDOWS).max(1);
        Self {
            key: Key::new(key),
            window,
            max_age: validity_secs.div_ceil(window),
            past: Vec::new(),
        }
    }

    /// Also accepts ids that were issued with these secrets, if the validity was the same. They expire as
    /// they would have without a restart. The secrets are not used longer than their last ids can live.
    #[must_use]
    pub fn accepting(mut self, secrets: &[PastSecret]) -> Self {
        let past = |secret: &PastSecret| Past {
            key: Key::new(secret.key),
            age: secret.age,
        };
        self.past = secrets.iter().map(past).collect();
        self
    }

    /// The id of this host, issued at `now`.
    pub fn issue(&self, host: &Host, now: Time) -> ConnectionId {
        let window = now.as_secs() / self.window;
        ConnectionId(u64::from(window) << 56 | mac(&self.key, host, window))
    }

    /// Whether the id was issued to this host and has not expired. One hash; constant-time
    /// comparison. Shortly after a restart, an id that is not valid costs one more hash per earlier secret.
    pub fn check(&self, id: ConnectionId, host: &Host, now: Time) -> bool {
        self.is_of(&self.key, id, host, now) || self.check_past(id, host, now)
    }

    #[cold]
    fn check_past(&self, id: ConnectionId, host: &Host, now: Time) -> bool {
        // By then all of them have expired.
        if now.as_secs() > (self.max_age + 1) * self.window {
            return false;
        }
        self.past.iter().any(|past| {
            let now = Time::from_secs(now.as_secs().saturating_add(past.age));
            self.is_of(&past.key, id, host, now)
        })
    }

    fn is_of(&self, key: &Key, id: ConnectionId, host: &Host, now: Time) -> bool {
        let current = now.as_secs() / self.window;
        let age = u32::from((current as u8).wrapping_sub((id.0 >> 56) as u8));
        if age > self.max_age || age > current {
            return false;
        }
        let mac = mac(key, host, current - age);
        (id.0 & MAC_MASK).ct_eq(&mac).into()
    }
}

fn mac(key: &Key, host: &Host, window: u32) -> u64 {
    // A new hasher, so that the compiler knows that it is empty. It then leaves out the tests for a word that is
    // not complete.
    let Key(first, second) = *key;
    let mut hasher = SipHasher24::new_with_keys(first, second);
    // Integers are hashed as they stand in memory.
    if !host.ia.is_none() {
        hasher.write_u64(host.ia.to_u64().to_be());
    }
    match host.ip() {
        IpAddr::V4(ip) => {
            hasher.write_u64((u64::from(ip.to_bits()) << 32 | u64::from(window)).to_be());
        }
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            hasher.write_u64(((bits >> 64) as u64).to_be());
            hasher.write_u64((bits as u64).to_be());
            hasher.write_u32(window.to_be());
        }
    }
    hasher.finish() & MAC_MASK
}

const MAC_MASK: u64 = (1 << 56) - 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 16] = *b"sixteen key byte";

    fn host(ia: &str, ip: &str) -> Host {
        Host::new(ia.parse().unwrap(), ip.parse().unwrap())
    }

    /// The values come from an implementation of SipHash in another language.
    #[test]
    fn ids_are_as_documented() {
        let ids = ConnectionIds::new(KEY, 120);
        for (ia, ip, expected) in [
            ("0-0", "10.0.0.1", "ff9db7628b5fbf97"),
            ("0-0", "2001:db8::1", "ff5746763014b91e"),
            ("1-ff00:0:110", "10.0.0.1", "ffcf61fc840a8f1e"),
            ("1-ff00:0:110", "2001:db8::1", "ff9bee20f15f0fb7"),
        ] {
            let id = ids.issue(&host(ia, ip), Time::from_secs(0x1ff));
            assert_eq!(format!("{:016x}", id.0), expected, "{ia} {ip}");
        }
    }

    #[test]
    fn ids_are_valid_for_the_validity_and_little_longer() {
        let host = host("0-0", "192.0.2.1");
        for validity in [0, 1, 60, 120, 121, 128, 129, 256, 1800, 3600, 86_400] {
            let ids = ConnectionIds::new(KEY, validity);
            let window = validity.div_ceil(WINDOWS).max(1);
            for issued in [0, 1, 59, 1000, 12_345, 1 << 20] {
                let id = ids.issue(&host, Time::from_secs(issued));
                for age in [0, validity / 2, validity] {
                    let now = Time::from_secs(issued + age);
                    assert!(ids.check(id, &host, now), "{validity} {issued} {age}");
                }
                for age in [1, 2, 100, 1 << 8, 1 << 10, 1 << 16, 1 << 20] {
                    let now = Time::from_secs(issued + validity + 2 * window + age);
                    assert!(!ids.check(id, &host, now), "{validity} {issued} {age}");
                }
            }
        }
    }

    #[test]
    fn a_window_of_the_future_is_refused() {
        let ids = ConnectionIds::new(KEY, 120);
        let host = host("0-0", "192.0.2.1");
        let id = ids.issue(&host, Time::from_secs(200));
        assert!(!ids.check(id, &host, Time::from_secs(199)));
        assert!(!ids.check(id, &host, Time::from_secs(0)));
    }

    #[test]
    fn ids_from_before_a_restart_expire_as_without_it() {
        const OLD: [u8; 16] = *b"sixteen old byte";
        let host = host("1-1", "192.0.2.1");
        for validity in [120, 600, 3600] {
            let before = ConnectionIds::new(OLD, validity);
            let window = validity.div_ceil(WINDOWS);
            // The clocks of the two runs may be up to a second out of step.
            for extra in [0, 1] {
                for lived in [0, 1, 59, 1000, 86_400 * 100] {
                    let past = [PastSecret {
                        key: OLD,
                        age: lived + extra,
                    }];
                    let after = ConnectionIds::new(KEY, validity).accepting(&past);
                    let new = after.issue(&host, Time::from_secs(0));
                    assert!(after.check(new, &host, Time::from_secs(1)));
                    for age in [0, 1, 50, validity] {
                        let Some(issued) = lived.checked_sub(age) else {
                            continue;
                        };
                        let id = before.issue(&host, Time::from_secs(issued));
                        let expires = validity - age;
                        for now in [0, 1, expires / 2, expires.saturating_sub(extra)] {
                            let known = after.check(id, &host, Time::from_secs(now));
                            let fresh = now + age + extra <= validity;
                            assert!(known || !fresh, "{validity} {lived} {age} {now}");
                        }
                        for now in
                            [1, 2, 100, 1 << 16, 1 << 20].map(|more| expires + 2 * window + more)
                        {
                            assert!(!after.check(id, &host, Time::from_secs(now)), "{now}");
                        }
                        // Not with another secret, for another host, or after a forgotten run.
                        let other = Host::ip_only([192, 0, 2, 1].into());
                        assert!(!after.check(id, &other, Time::from_secs(0)));
                        let stranger = ConnectionIds::new(KEY, validity);
                        assert!(!stranger.check(id, &host, Time::from_secs(0)));
                    }
                }
            }
        }
        // A secret that has leaked is of no use once its ids have expired.
        let past = [PastSecret { key: OLD, age: 7 }];
        let after = ConnectionIds::new(KEY, 120).accepting(&past);
        let forged = |now: u32| ConnectionIds::new(OLD, 120).issue(&host, Time::from_secs(now + 7));
        assert!(after.check(forged(121), &host, Time::from_secs(121)));
        assert!(!after.check(forged(122), &host, Time::from_secs(122)));
    }

    #[test]
    fn ids_are_bound_to_host_isd_as_and_key() {
        let ids = ConnectionIds::new(KEY, 120);
        let now = Time::from_secs(1000);
        let own = host("1-ff00:0:110", "10.0.0.1");
        let id = ids.issue(&own, now);
        assert!(ids.check(id, &own, now));
        for other in [
            host("1-ff00:0:110", "10.0.0.2"),
            host("1-ff00:0:111", "10.0.0.1"),
            host("2-ff00:0:110", "10.0.0.1"),
            host("0-0", "10.0.0.1"),
        ] {
            assert!(!ids.check(id, &other, now), "{other}");
        }
        assert!(!ConnectionIds::new([7; 16], 120).check(id, &own, now));
        // A dual-stack socket reports the same host as IPv4-mapped.
        let mapped = ids.issue(&host("0-0", "::ffff:10.0.0.1"), now);
        assert!(ids.check(mapped, &host("0-0", "10.0.0.1"), now));
    }

    proptest! {
        #[test]
        fn every_flipped_bit_is_noticed(bit in 0..64_u32, now in 0..100_000_u32, ip: IpAddr) {
            let ids = ConnectionIds::new(KEY, 600);
            let host = Host::ip_only(ip);
            let now = Time::from_secs(now);
            let ConnectionId(id) = ids.issue(&host, now);
            prop_assert!(ids.check(ConnectionId(id), &host, now));
            prop_assert!(!ids.check(ConnectionId(id ^ 1 << bit), &host, now));
        }

        #[test]
        fn guesses_fail(id: u64, now: u32, ip: IpAddr) {
            let ids = ConnectionIds::new(KEY, 600);
            prop_assert!(!ids.check(ConnectionId(id), &Host::ip_only(ip), Time::from_secs(now)));
        }
    }
}
