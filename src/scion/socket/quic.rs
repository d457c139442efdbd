//! What can be read in a QUIC packet without keys (RFC 8999): connection ids and the version.

use std::time::Duration;

use super::allowance::Allowance;

/// QUIC version 1, the only one spoken here.
const V1: u32 = 1;
/// The length of the connection ids that quinn issues.
const OWN_ID: usize = 8;

/// Version Negotiation packets that may go out in a burst, and as many a second.
const NEGOTIATIONS: u32 = 200;

/// A connection id of ours, as far as one needs to recognize it. Chosen at random by the endpoint
/// and told to the remote alone: who sends it back has received what we sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token(u64);

/// A long header: `flags (1) | version (4) | length (1) and DCID | length (1) and SCID`.
struct Long<'a> {
    version: u32,
    destination: &'a [u8],
    source: &'a [u8],
}

fn long(packet: &[u8]) -> Option<Long<'_>> {
    let (&[flags, v0, v1, v2, v3], rest) = packet.split_first_chunk()?;
    if flags & 0x80 == 0 {
        return None;
    }
    let (&length, rest) = rest.split_first()?;
    let (destination, rest) = rest.split_at_checked(length.into())?;
    let (&length, rest) = rest.split_first()?;
    let source = rest.get(..length.into())?;
    Some(Long {
        version: u32::from_be_bytes([v0, v1, v2, v3]),
        destination,
        source,
    })
}

/// Whether this has the bit that all packets of version 1 have, and answers of BEP 15 do not.
pub(super) fn is_quic(packet: &[u8]) -> bool {
    packet.first().is_some_and(|flags| flags & 0x40 != 0)
}

fn token(id: &[u8]) -> Option<Token> {
    id.first_chunk().map(|id| Token(u64::from_be_bytes(*id)))
}

/// The connection id that an incoming packet is addressed to.
pub(super) fn addressed_to(packet: &[u8]) -> Option<Token> {
    match packet {
        [flags, rest @ ..] if flags & 0x80 == 0 => token(rest.get(..OWN_ID)?),
        _ => token(long(packet)?.destination),
    }
}

/// The connection id that an outgoing packet gives to the remote: in the handshake and in Retry.
pub(super) fn issued(packet: &[u8]) -> Option<Token> {
    let long = long(packet)?;
    (long.version == V1).then(|| token(long.source)).flatten()
}

/// Answers packets of versions that are not spoken here (RFC 9000, section 6). The endpoint itself
/// does so only from 1200 bytes on; here the answer just has to be no longer than the packet, for
/// clients exist that open with 600 bytes of another version and come back with version 1.
#[derive(Debug)]
pub(super) struct Negotiator(Allowance);

impl Negotiator {
    pub(super) const fn new() -> Self {
        Self(Allowance::new(NEGOTIATIONS))
    }

    /// Whether the packet is of an unknown version. If it is, the answer, if any, is in `out`.
    pub(super) fn handles(&mut self, packet: &[u8], now: Duration, out: &mut Vec<u8>) -> bool {
        let Some(long) = long(packet) else {
            return false;
        };
        if matches!(long.version, 0 | V1) {
            return false;
        }
        let length = 7 + long.source.len() + long.destination.len() + 4;
        if length > packet.len() || !self.0.take(now) {
            return true;
        }
        out.push(0xc0);
        out.extend_from_slice(&[0; 4]);
        for id in [long.source, long.destination] {
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

    fn initial(version: u32, length: usize) -> Vec<u8> {
        let mut packet = vec![0xc3];
        packet.extend_from_slice(&version.to_be_bytes());
        packet.push(8);
        packet.extend_from_slice(b"destiny!");
        packet.push(3);
        packet.extend_from_slice(b"src");
        packet.resize(length, 0);
        packet
    }

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

    #[test]
    fn connection_ids_are_found_in_both_directions() {
        let mut handshake = initial(1, 60);
        handshake[14] = 9;
        assert_eq!(issued(&handshake), token(b"src\0\0\0\0\0"));
        assert_eq!(addressed_to(&handshake), token(b"destiny!"));
        assert_eq!(addressed_to(b"\x40destiny!payload"), token(b"destiny!"));
        assert_eq!(issued(b"\x40destiny!payload"), None);
        assert_eq!(
            issued(&initial(0, 60)),
            None,
            "the ids of a negotiation are the client's"
        );
        for length in 0..9 {
            assert_eq!(addressed_to(&b"\x40destiny!"[..length]), None);
        }
        for length in 0..14 {
            assert_eq!(addressed_to(&handshake[..length]), None);
        }
    }
}
