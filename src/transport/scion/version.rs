//! Negotiates the QUIC version (Version Negotiation) without an entry for the sender.

use std::time::Duration;

use crate::scion::rate::RateLimiter;
use crate::scion::socket::quic::{V1, long_header};

/// Version Negotiation packets in one burst, and per second.
const NEGOTIATIONS: u32 = 200;

/// Answers packets of other QUIC versions (RFC 9000 section 6). The QUIC endpoint itself does so
/// only for packets of 1200 bytes and more. Here the answer must only be no longer than the packet:
/// some clients begin with 600 bytes of another version and then use version 1.
#[derive(Debug)]
pub(super) struct Negotiator(RateLimiter);

impl Negotiator {
    pub(super) const fn new() -> Self {
        Self(RateLimiter::new(NEGOTIATIONS))
    }

    /// Returns whether the packet is of another version. Writes the answer to `out`, unless it
    /// would be longer than the packet or the rate is exceeded.
    pub(super) fn handles(&mut self, packet: &[u8], now: Duration, out: &mut Vec<u8>) -> bool {
        let Some(header) = long_header(packet) else {
            return false;
        };
        if matches!(header.version, 0 | V1) {
            return false;
        }
        let length = 7 + header.source.len() + header.destination.len() + 4;
        if length > packet.len() || !self.0.allow(now) {
            return true;
        }
        out.push(0xc0);
        out.extend_from_slice(&[0; 4]);
        for id in [header.source, header.destination] {
            out.push(id.len() as u8);
            out.extend_from_slice(id);
        }
        out.extend_from_slice(&V1.to_be_bytes());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scion::socket::quic::tests::initial;

    #[test]
    fn unknown_versions_are_answered_with_version_1() {
        let mut out = Vec::new();
        let mut negotiator = Negotiator::new();
        assert!(negotiator.handles(&initial(0x5c10_000f, 600), Duration::ZERO, &mut out));
        assert_eq!(out, b"\xc0\0\0\0\0\x03src\x08destiny!\0\0\0\x01");
    }

    #[test]
    fn the_answer_is_never_longer_than_the_packet() {
        for length in 18..40 {
            let mut out = Vec::new();
            let packet = initial(0x5c10_000f, length);
            assert!(Negotiator::new().handles(&packet, Duration::ZERO, &mut out));
            assert!(out.len() <= length);
            assert_eq!(out.is_empty(), length < 22, "{length}");
        }
    }

    #[test]
    fn known_versions_and_negotiations_are_left_alone() {
        let mut negotiator = Negotiator::new();
        let mut out = Vec::new();
        let short = [0x40; 100];
        for packet in [
            &initial(1, 1200),
            &initial(0, 100),
            &short[..],
            &[],
            &[0xff; 9],
        ] {
            assert!(!negotiator.handles(packet, Duration::ZERO, &mut out));
        }
        assert!(out.is_empty());
    }

    #[test]
    fn answers_are_limited_by_the_second() {
        let mut negotiator = Negotiator::new();
        let packet = initial(0x5c10_000f, 600);
        let mut answers = |now| {
            (0..1000)
                .filter(|_| {
                    let mut out = Vec::new();
                    assert!(negotiator.handles(&packet, now, &mut out));
                    !out.is_empty()
                })
                .count()
        };
        assert_eq!(answers(Duration::from_millis(1500)), 200);
        assert_eq!(answers(Duration::from_millis(2400)), 0);
        assert_eq!(answers(Duration::from_millis(2500)), 200);
    }
}
