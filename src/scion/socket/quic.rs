//! Reads the parts of a QUIC packet that need no keys (RFC 8999): connection ids and the version.

/// QUIC version 1, the only supported one.
pub(crate) const V1: u32 = 1;
/// Length of the connection ids of our endpoints.
pub(super) const OWN_ID: usize = 8;

/// The first bytes of a connection id of ours. An id identifies the remote that received it: the
/// endpoint chooses it at random and gives it to that remote only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token(pub(super) u64);

/// A long header: `flags (1) | version (4) | length (1) and DCID | length (1) and SCID`.
pub(crate) struct LongHeader<'a> {
    pub(crate) version: u32,
    pub(crate) destination: &'a [u8],
    pub(crate) source: &'a [u8],
}

/// Reads a long header. `None` if the packet has a short header or is truncated.
pub(crate) fn long_header(packet: &[u8]) -> Option<LongHeader<'_>> {
    let (&[flags, v0, v1, v2, v3], rest) = packet.split_first_chunk()?;
    if flags & 0x80 == 0 {
        return None;
    }
    let (&length, rest) = rest.split_first()?;
    let (destination, rest) = rest.split_at_checked(length.into())?;
    let (&length, rest) = rest.split_first()?;
    let source = rest.get(..length.into())?;
    Some(LongHeader {
        version: u32::from_be_bytes([v0, v1, v2, v3]),
        destination,
        source,
    })
}

/// Whether the packet has the bit that all packets of QUIC version 1 have and BEP 15 answers do
/// not.
pub(super) fn is_quic(packet: &[u8]) -> bool {
    packet.first().is_some_and(|flags| flags & 0x40 != 0)
}

/// Whether the packet has a long header, as those of a handshake have.
pub(super) fn is_long(packet: &[u8]) -> bool {
    packet.first().is_some_and(|flags| flags & 0x80 != 0)
}

fn token(id: &[u8]) -> Option<Token> {
    id.first_chunk().map(|id| Token(u64::from_be_bytes(*id)))
}

/// The destination connection id of a received packet.
pub(super) fn addressed_to(packet: &[u8]) -> Option<Token> {
    match packet {
        [flags, rest @ ..] if flags & 0x80 == 0 => token(rest.get(..OWN_ID)?),
        _ => token(long_header(packet)?.destination),
    }
}

/// The connection id that a sent packet gives to the remote, in the handshake and in Retry.
pub(super) fn issued(packet: &[u8]) -> Option<Token> {
    let long = long_header(packet)?;
    (long.version == V1).then(|| token(long.source)).flatten()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A packet with a long header of this version.
    pub(crate) fn initial(version: u32, length: usize) -> Vec<u8> {
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
