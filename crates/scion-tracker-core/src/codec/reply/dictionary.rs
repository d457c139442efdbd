//! Writes one peer of a reply as a dictionary. It is assembled in registers and on the stack,
//! because a list of dictionaries is the largest part of a reply to a SCION requester.

use std::fmt::Write as _;
use std::net::IpAddr;

use arrayvec::ArrayString;

use crate::address::IsdAs;
use crate::response::Peer;

/// Space for the longest dictionary (147 bytes) and for bytes copied past the end of a text.
const MAX: usize = 256;

/// Space for the longest text and for bytes copied past the end of a number.
const TEXT: usize = 48;

/// Appends the dictionary with sorted keys. `ia` and `id` are present only if there is an `ia`.
pub(super) fn push_dictionary(
    peer: &Peer<'_>,
    ia: Option<IsdAs>,
    peer_ids: bool,
    list: &mut Vec<u8>,
) {
    let mut entry = Entry {
        bytes: [0; MAX],
        length: 0,
    };
    entry.put(b"d");
    if let Some(ia) = ia {
        entry.put(b"2:ia");
        entry.put_text(&Text::of_ia(ia));
        if peer_ids {
            entry.put(b"2:id20:");
            entry.put(&peer.id.0);
        }
    }
    entry.put(b"2:ip");
    entry.put_text(&Text::of_ip(peer.addr.ip()));
    if peer_ids {
        entry.put(b"7:peer id20:");
        entry.put(&peer.id.0);
    }
    entry.put(b"4:porti");
    let (digits, length) = decimal(peer.addr.port());
    entry.put_first(&digits, length);
    entry.put(b"ee");
    list.extend_from_slice(&entry.bytes[..entry.length]);
}

struct Entry {
    bytes: [u8; MAX],
    length: usize,
}

impl Entry {
    fn put<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.put_first(bytes, N);
    }

    /// Appends the first `length` bytes. Copies the whole array, because a fixed size is faster.
    fn put_first<const N: usize>(&mut self, bytes: &[u8; N], length: usize) {
        self.bytes[self.length..self.length + N].copy_from_slice(bytes);
        self.length += length;
    }

    fn put_text(&mut self, text: &Text) {
        if text.length < 10 {
            self.put(&[b'0' + text.length as u8, b':']);
        } else {
            let (tens, ones) = (text.length / 10, text.length % 10);
            self.put(&[b'0' + tens as u8, b'0' + ones as u8, b':']);
        }
        self.put_first(&text.bytes, text.length);
    }
}

/// An address as text.
struct Text {
    bytes: [u8; TEXT],
    length: usize,
}

impl Text {
    const EMPTY: Self = Self {
        bytes: [0; TEXT],
        length: 0,
    };

    fn of_ip(ip: IpAddr) -> Self {
        let mut text = Self::EMPTY;
        match ip {
            IpAddr::V4(ip) => {
                for octet in ip.octets() {
                    let [a, b, c, length] = OCTETS[usize::from(octet)];
                    text.put(&[a, b, c, b'.'], usize::from(length));
                    text.bytes[text.length] = b'.';
                    text.length += 1;
                }
                text.length -= 1;
            }
            IpAddr::V6(ip) => {
                // The text of an IPv6 address has at most 45 bytes.
                let mut std = ArrayString::<45>::new();
                let _ = write!(std, "{ip}");
                text.length = std.len();
                text.bytes[..std.len()].copy_from_slice(std.as_bytes());
            }
        }
        text
    }

    /// Writes an ISD-AS as [`IsdAs`] prints it: decimal below 2^32, three groups of hexadecimal
    /// digits above.
    fn of_ia(ia: IsdAs) -> Self {
        let mut text = Self::EMPTY;
        text.put_decimal(ia.isd().0);
        text.put(b"-", 1);
        let asn = ia.asn().to_u64();
        if asn <= u64::from(u16::MAX) {
            text.put_decimal(asn as u16);
        } else if asn <= u64::from(u32::MAX) {
            let mut std = ArrayString::<10>::new();
            let _ = write!(std, "{asn}");
            let end = text.length + std.len();
            text.bytes[text.length..end].copy_from_slice(std.as_bytes());
            text.length = end;
        } else {
            text.put_hex((asn >> 32) as u16);
            text.put(b":", 1);
            text.put_hex((asn >> 16) as u16);
            text.put(b":", 1);
            text.put_hex(asn as u16);
        }
        text
    }

    fn put<const N: usize>(&mut self, bytes: &[u8; N], length: usize) {
        self.bytes[self.length..self.length + N].copy_from_slice(bytes);
        self.length += length;
    }

    fn put_decimal(&mut self, n: u16) {
        let (digits, length) = decimal(n);
        self.put(&digits, length);
    }

    fn put_hex(&mut self, n: u16) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let digit = |shift: u16| HEX[usize::from(n >> shift & 15)];
        let digits = u32::from_be_bytes([digit(12), digit(8), digit(4), digit(0)]);
        let leading = (n.leading_zeros() / 4).min(3);
        self.put(
            &(digits << (8 * leading)).to_be_bytes(),
            4 - leading as usize,
        );
    }
}

/// The digits, starting at index 0, and their number.
fn decimal(n: u16) -> ([u8; 8], usize) {
    let digit = |unit: u16| u64::from(n / unit % 10);
    let digits =
        digit(10_000) << 32 | digit(1000) << 24 | digit(100) << 16 | digit(10) << 8 | digit(1);
    let leading =
        u32::from(n < 10) + u32::from(n < 100) + u32::from(n < 1000) + u32::from(n < 10_000);
    let ascii = (digits + 0x30_3030_3030) << 24 << (8 * leading);
    (ascii.to_be_bytes(), 5 - leading as usize)
}

/// The digits of each octet, and as the last byte their number.
const OCTETS: [[u8; 4]; 256] = {
    let mut table = [[0; 4]; 256];
    let mut n = 0;
    while n < 256 {
        let digits = [
            b'0' + (n / 100) as u8,
            b'0' + (n / 10 % 10) as u8,
            b'0' + (n % 10) as u8,
        ];
        table[n] = match n {
            0..10 => [digits[2], 0, 0, 1],
            10..100 => [digits[1], digits[2], 0, 2],
            _ => [digits[0], digits[1], digits[2], 3],
        };
        n += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::address::CompactAddr;
    use crate::response::{AddrBytes, Reach};
    use crate::types::PeerId;

    fn dictionary(ia: Option<IsdAs>, ip: IpAddr, port: u16, peer_ids: bool) -> String {
        let packed = CompactAddr::new(ip, port);
        let peer = Peer {
            ia: ia.unwrap_or_default(),
            reach: Reach::Both,
            addr: match &packed {
                CompactAddr::V4(bytes) => AddrBytes::V4(bytes),
                CompactAddr::V6(bytes) => AddrBytes::V6(bytes),
            },
            id: &PeerId(*b"-LT2110-2Hk2RLxj.gRc"),
        };
        let mut list = Vec::new();
        push_dictionary(&peer, ia, peer_ids, &mut list);
        String::from_utf8(list).unwrap()
    }

    #[test]
    fn the_longest_dictionary_fits() {
        let ip = "2001:1db8:1111:1111:1111:1111:1111:1111".parse().unwrap();
        let ia = "65535-ffff:ffff:ffff".parse().unwrap();
        let longest = dictionary(Some(ia), ip, 65535, true);
        assert_eq!(
            longest,
            "d2:ia20:65535-ffff:ffff:ffff2:id20:-LT2110-2Hk2RLxj.gRc\
             2:ip39:2001:1db8:1111:1111:1111:1111:1111:1111\
             7:peer id20:-LT2110-2Hk2RLxj.gRc4:porti65535ee"
        );
        assert_eq!(longest.len(), 147);
        assert_eq!(
            dictionary(None, "1.2.3.4".parse().unwrap(), 1, false),
            "d2:ip7:1.2.3.44:porti1ee"
        );
    }

    proptest! {
        #[test]
        fn addresses_print_as_display_does(bits: u64, shift in 0..64_u32, ip: IpAddr, port: u16) {
            let ip = ip.to_canonical();
            let ia = IsdAs::from_u64(bits >> shift);
            let (ia_text, ip_text) = (ia.to_string(), ip.to_string());
            prop_assert_eq!(
                dictionary(Some(ia), ip, port, false),
                format!(
                    "d2:ia{}:{ia_text}2:ip{}:{ip_text}4:porti{port}ee",
                    ia_text.len(),
                    ip_text.len()
                )
            );
        }
    }
}
