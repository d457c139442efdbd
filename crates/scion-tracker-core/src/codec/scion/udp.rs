//! The UDP header, and the checksum of UDP and SCMP.
//!
//! The checksum is the Internet checksum (RFC 1071) of a pseudo header and the upper-layer packet:
//!
//! ```text
//! address header (24 to 48 bytes) | upper-layer length (4) | zero (3) | next header (1)
//! ```
//! [SCION header, pseudo header for upper-layer checksum](https://docs.scion.org/en/latest/protocols/scion-header.html#pseudo-header-for-upper-layer-checksum)

use super::PacketError;

/// Length of the UDP header.
pub(super) const HEADER: usize = 8;

/// A UDP datagram.
///
/// ```text
/// 0  source port (2) | destination port (2)
/// 4  length, this header included (2) | checksum (2)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp<'a> {
    /// Source port, to which the reply goes.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// The payload.
    pub payload: &'a [u8],
}

#[inline]
pub(super) fn read(upper: &[u8]) -> Result<Udp<'_>, PacketError> {
    let (&[s0, s1, d0, d1, l0, l1, _, _], payload) =
        upper.split_first_chunk().ok_or(PacketError::Truncated)?;
    if usize::from(u16::from_be_bytes([l0, l1])) != upper.len() {
        return Err(PacketError::UdpLength);
    }
    Ok(Udp {
        source_port: u16::from_be_bytes([s0, s1]),
        destination_port: u16::from_be_bytes([d0, d1]),
        payload,
    })
}

/// The sum of the part of the pseudo header that does not depend on the upper-layer packet.
pub(super) fn pseudo_sum(addresses: &[u8], next_header: u8) -> u64 {
    sum(addresses) + u64::from(next_header)
}

/// The unfolded sum of 16-bit words. An odd last byte is padded with a zero.
///
/// One's complement addition works with any word size and byte order if carries are folded at the
/// end (RFC 1071, section 2). So this reads 64-bit words in native byte order.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let (words, tail) = bytes.as_chunks::<8>();
    let mut sum: u64 = words
        .iter()
        .map(|word| u64::from_ne_bytes(*word))
        // Each step adds two halves of at most 2^32, so 2^31 words fit.
        .map(|word| (word & 0xffff_ffff) + (word >> 32))
        .sum();
    let (words, odd) = tail.as_chunks::<2>();
    for word in words {
        sum += u64::from(u16::from_ne_bytes(*word));
    }
    if let [odd] = odd {
        sum += u64::from(u16::from_ne_bytes([*odd, 0]));
    }
    u64::from(u16::from_be(fold(sum)))
}

/// Folds the carries.
pub(super) const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The checksum for the wire, from the sum of everything with a checksum field of zero. UDP sends a
/// zero as all ones (RFC 768).
pub(super) const fn udp_checksum(sum: u64) -> [u8; 2] {
    let checksum = !fold(sum);
    if checksum == 0 {
        [0xff, 0xff]
    } else {
        checksum.to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_16_bit_words() {
        let bytes: Vec<u8> = (0..700_u32).map(|n| (n * 37 % 251) as u8 | 0x80).collect();
        for len in 0..bytes.len() {
            let expected: u64 = bytes[..len]
                .chunks(2)
                .map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| low.into()))
                .sum();
            assert_eq!(fold(sum(&bytes[..len])), fold(expected), "{len}");
        }
        assert_eq!(fold(sum(&[0xff; 65535])), !0xff);
        assert_eq!(fold(u64::MAX), 0xffff);
    }

    #[test]
    fn a_zero_checksum_is_sent_as_ones() {
        assert_eq!(udp_checksum(0xffff), [0xff, 0xff]);
        assert_eq!(udp_checksum(0xfffe), [0, 1]);
    }
}
