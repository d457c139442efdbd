//! Percent-encoding of bytes (RFC 3986, section 2.1).

/// Decodes into `buffer`. `None` if it is too short or a `%` is not followed by two hex digits.
pub(super) fn decode<'b>(value: &[u8], buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let mut length = 0;
    let mut rest = value;
    while let [first, tail @ ..] = rest {
        let slot = buffer.get_mut(length)?;
        length += 1;
        if *first != b'%' {
            *slot = *first;
            rest = tail;
            continue;
        }
        let [high, low, tail @ ..] = tail else {
            return None;
        };
        let (high, low) = (DIGITS[usize::from(*high)], DIGITS[usize::from(*low)]);
        if (high | low) > 15 {
            return None;
        }
        *slot = high << 4 | low;
        rest = tail;
    }
    Some(&buffer[..length])
}

/// Value of each byte as a hexadecimal digit of either case; 255 if it is not one.
const DIGITS: [u8; 256] = {
    let mut table = [255; 256];
    let mut digit = 0;
    while digit < 16 {
        table[b"0123456789abcdef"[digit] as usize] = digit as u8;
        table[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    table
};

/// Appends bytes: unreserved ones as they are (RFC 3986, section 2.3), others percent-encoded.
pub(super) fn encode(bytes: &[u8], out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_either_case_and_leaves_a_plus() {
        let mut buffer = [0; 8];
        for (text, bytes) in [
            ("", &b""[..]),
            ("abc", b"abc"),
            ("%00%ff%Ff%fF", b"\x00\xff\xff\xff"),
            ("a+b%2B%20c", b"a+b+ c"),
            ("12345678", b"12345678"),
        ] {
            assert_eq!(decode(text.as_bytes(), &mut buffer), Some(bytes), "{text}");
        }
        for bad in ["%", "%1", "%g0", "%0g", "%%00", "% 1", "123456789", "%é"] {
            assert_eq!(decode(bad.as_bytes(), &mut buffer), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn round_trips(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            let mut text = String::new();
            encode(&bytes, &mut text);
            let mut buffer = [0; 40];
            proptest::prop_assert_eq!(decode(text.as_bytes(), &mut buffer), Some(&bytes[..]));
        }
    }
}
