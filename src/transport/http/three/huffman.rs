//! Decodes the Huffman code of QPACK strings (RFC 9204 section 4.1.2, RFC 7541 appendix B).
//!
//! The code is canonical: codes of the same length ascend with the symbols. So only the lengths are
//! listed.

/// Code lengths in bits, by symbol.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

const LONGEST: usize = 30;

/// The codes, sorted by length and then by symbol. The end-of-string symbol, which is the last
/// code, is left out: it must not occur.
struct Codes {
    symbols: [u8; 256],
    /// For each length: its first code, the index of that code in `symbols`, and the number of
    /// codes.
    by_length: [(u32, usize, u32); LONGEST + 1],
    /// For each value of the next eight bits: the symbol and its length, if the code has at most
    /// eight bits. Most printable characters have. Otherwise the length is 0.
    short: [(u8, u8); 256],
}

static CODES: Codes = codes();

const fn codes() -> Codes {
    let mut codes = Codes {
        symbols: [0; 256],
        by_length: [(0, 0, 0); LONGEST + 1],
        short: [(0, 0); 256],
    };
    let (mut next, mut code, mut length) = (0, 0_u32, 1);
    while length <= LONGEST {
        code <<= 1;
        codes.by_length[length] = (code, next, 0);
        let mut symbol = 0;
        while symbol < 256 {
            if LENGTHS[symbol] as usize == length {
                codes.symbols[next] = symbol as u8;
                if length <= 8 {
                    let start = (code as usize) << (8 - length);
                    let mut rest = 0;
                    while rest < 1 << (8 - length) {
                        codes.short[start | rest] = (symbol as u8, length as u8);
                        rest += 1;
                    }
                }
                next += 1;
                code += 1;
            }
            symbol += 1;
        }
        codes.by_length[length].2 = code - codes.by_length[length].0;
        length += 1;
    }
    codes
}

/// The bytes are not a valid Huffman-coded string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Decodes `bytes` and appends the result, which is at most 8/5 as long.
pub(super) fn decode(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    out.reserve(bytes.len() * 8 / 5 + 1);
    let mut bytes = bytes.iter();
    // The lowest `count` bits of `bits` are not decoded yet.
    let (mut bits, mut count) = (0_u64, 0);
    loop {
        while count <= 32 {
            let Some(byte) = bytes.next() else { break };
            bits = bits << 8 | u64::from(*byte);
            count += 8;
        }
        // The next eight bits, padded with ones at the end.
        let start = if count >= 8 {
            bits >> (count - 8)
        } else {
            bits << (8 - count) | (0xff >> count)
        };
        let (symbol, length) = CODES.short[(start & 0xff) as usize];
        let length = u32::from(length);
        if length != 0 && length <= count {
            out.push(symbol);
            count -= length;
            continue;
        }
        if count < 8 {
            // The rest is padding: less than a byte of ones.
            let ones = (1 << count) - 1;
            return if bits & ones == ones {
                Ok(())
            } else {
                Err(Malformed)
            };
        }
        let (symbol, length) = long(bits, count).ok_or(Malformed)?;
        out.push(symbol);
        count -= length;
    }
}

/// Decodes the symbol at the top of the lowest `count` bits if its code has more than eight bits.
fn long(bits: u64, count: u32) -> Option<(u8, u32)> {
    for length in 9..=count.min(LONGEST as u32) {
        let code = (bits >> (count - length)) as u32 & ((1 << length) - 1);
        let (first, index, number) = CODES.by_length[length as usize];
        if code >= first && code - first < number {
            return Some((CODES.symbols[index + (code - first) as usize], length));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for symbol in text {
            let length = LENGTHS[*symbol as usize] as usize;
            let (first, index, number) = CODES.by_length[length];
            let symbols = &CODES.symbols[index..index + number as usize];
            let nth = symbols.iter().position(|other| other == symbol).unwrap();
            bits += &format!("{:0length$b}", first as usize + nth);
        }
        bits += &"1".repeat(bits.len().next_multiple_of(8) - bits.len());
        let byte = |bits: &[u8]| u8::from_str_radix(str::from_utf8(bits).unwrap(), 2).unwrap();
        bits.as_bytes().chunks(8).map(byte).collect()
    }

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::new();
        decode(bytes, &mut out).map(|()| out)
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7541 appendix C.4 and C.6.
        for (hex, text) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            (
                "d07abe941054d444a8200595040b8166e082a62d1bff",
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
        ] {
            let bytes: Vec<u8> = (0..hex.len())
                .step_by(2)
                .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
                .collect();
            assert_eq!(encode(text.as_bytes()), bytes);
            assert_eq!(decoded(&bytes).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn bad_padding_is_refused() {
        assert_eq!(decoded(&[]), Ok(vec![]));
        // A byte of padding; `0` and a zero bit; a truncated long code; the end of string.
        for bytes in [
            &[0xff][..],
            &[0b0000_0110],
            &[0xff, 0xfe],
            &[0xff; 4],
            &[0xff; 40],
        ] {
            assert_eq!(decoded(bytes), Err(Malformed), "{bytes:x?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn round_trip(text: Vec<u8>) {
            proptest::prop_assert_eq!(decoded(&encode(&text)).unwrap(), text);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = decoded(&bytes);
        }
    }
}
