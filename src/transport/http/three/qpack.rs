//! QPACK field sections without a dynamic table (RFC 9204). The server announces a capacity of
//! zero, so a client can use only the static table and literals.

use super::huffman;
use super::table::STATIC;

/// Indices in the static table that replies use.
pub(super) const CONTENT_LENGTH: usize = 4;
pub(super) const DATE: usize = 6;
pub(super) const ALLOW_ANY_ORIGIN: usize = 35;
pub(super) const NO_STORE: usize = 40;
pub(super) const CONTENT_TYPE: usize = 44;
const STATUS: usize = 24;
const STATUS_200: usize = 25;
const STATUS_400: usize = 67;
const STATUS_404: usize = 27;
const STATUS_425: usize = 70;

/// Why processing of a field section stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SectionError<E> {
    /// The section is malformed or needs a dynamic table: QPACK_DECOMPRESSION_FAILED, which closes
    /// the connection.
    Qpack,
    /// The callback rejected a field.
    Field(E),
}

/// Passes name and value of each field of a section to `each`, in order. `plain` is a buffer for
/// decoded Huffman strings.
pub(super) fn fields<E>(
    section: &[u8],
    plain: &mut Vec<u8>,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
) -> Result<(), SectionError<E>> {
    let mut rest = section;
    // Required Insert Count, then sign and Delta Base (section 4.5.1). Without a dynamic table the
    // count is zero, and the base cannot be below it.
    let required = integer(&mut rest, 8).ok_or(SectionError::Qpack)?;
    let negative = rest.first().is_some_and(|byte| byte & 0x80 != 0);
    integer(&mut rest, 7).ok_or(SectionError::Qpack)?;
    if required != 0 || negative {
        return Err(SectionError::Qpack);
    }
    while !rest.is_empty() {
        plain.clear();
        let line = line(&mut rest, plain).ok_or(SectionError::Qpack)?;
        let name = line.name.unwrap_or_else(|| &plain[..line.plain_name]);
        let value = line.value.unwrap_or_else(|| &plain[line.plain_name..]);
        each(name, value).map_err(SectionError::Field)?;
    }
    Ok(())
}

/// A field line. Parts that are not here are in the scratch buffer: its first `plain_name` bytes
/// are the name.
struct Line<'a> {
    name: Option<&'a [u8]>,
    plain_name: usize,
    value: Option<&'a [u8]>,
}

/// Parses a field line (section 4.5.2 and following).
fn line<'a>(rest: &mut &'a [u8], plain: &mut Vec<u8>) -> Option<Line<'a>> {
    let first = *rest.first()?;
    let name = match first >> 4 {
        // 1T: indexed. T is set for the static table.
        0b1100..=0b1111 => {
            let (name, value) = static_field(integer(rest, 6)?)?;
            return Some(Line {
                name: Some(name.as_bytes()),
                plain_name: 0,
                value: Some(value.as_bytes()),
            });
        }
        // 01NT: literal value, name from the static table.
        0b0101 | 0b0111 => Some(static_field(integer(rest, 4)?)?.0.as_bytes()),
        // 001NH: literal name, literal value.
        0b0010 | 0b0011 => string(rest, 3, plain)?,
        // All other forms refer to the dynamic table.
        _ => return None,
    };
    let plain_name = plain.len();
    Some(Line {
        name,
        plain_name,
        value: string(rest, 7, plain)?,
    })
}

fn static_field(index: u64) -> Option<(&'static str, &'static str)> {
    STATIC.get(usize::try_from(index).ok()?).copied()
}

/// Reads a string. Its length has a prefix of `prefix` bits, after the bit that says whether it is
/// Huffman-coded (section 4.1.2). Appends a Huffman-coded string to `plain`, returns any other.
fn string<'a>(rest: &mut &'a [u8], prefix: u32, plain: &mut Vec<u8>) -> Option<Option<&'a [u8]>> {
    let coded = *rest.first()? & 1 << prefix != 0;
    let length = usize::try_from(integer(rest, prefix)?).ok()?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    if !coded {
        return Some(Some(bytes));
    }
    huffman::decode(bytes, plain).ok()?;
    Some(None)
}

/// Reads an integer with a prefix of `prefix` bits (RFC 7541 section 5.1), up to 2^62.
pub(super) fn integer(rest: &mut &[u8], prefix: u32) -> Option<u64> {
    let (first, mut after) = rest.split_first()?;
    let all_ones = (1 << prefix) - 1;
    let mut value = u64::from(*first) & all_ones;
    if value == all_ones {
        let mut shift = 0;
        loop {
            let (byte, more) = after.split_first()?;
            after = more;
            if shift > 56 || (shift == 56 && byte & 0x7f > 0x1f) {
                return None;
            }
            value += u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *rest = after;
    Some(value)
}

/// Starts the field section of a reply: prefix and `:status`.
pub(super) fn push_status(code: u16, out: &mut Vec<u8>) {
    // No dynamic table is needed.
    out.extend_from_slice(&[0, 0]);
    let index = match code {
        200 => STATUS_200,
        400 => STATUS_400,
        404 => STATUS_404,
        425 => STATUS_425,
        _ => {
            let digits = [code / 100, code / 10 % 10, code % 10].map(|digit| b'0' + digit as u8);
            return push_field(STATUS, &digits, out);
        }
    };
    push_static(index, out);
}

/// Appends a field with a name from the static table.
pub(super) fn push_field(name: usize, value: &[u8], out: &mut Vec<u8>) {
    push_integer(0b0101_0000, 4, name, out);
    push_value(value, out);
}

/// Appends a field with a name and a value that are both in the static table.
pub(super) fn push_static(index: usize, out: &mut Vec<u8>) {
    push_integer(0b1100_0000, 6, index, out);
}

/// Appends a field with a literal name.
pub(super) fn push_named_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    push_integer(0b0010_0000, 3, name.len(), out);
    out.extend_from_slice(name.as_bytes());
    push_value(value, out);
}

fn push_value(value: &[u8], out: &mut Vec<u8>) {
    push_integer(0, 7, value.len(), out);
    out.extend_from_slice(value);
}

fn push_integer(flags: u8, prefix: u32, value: usize, out: &mut Vec<u8>) {
    let all_ones = (1 << prefix) - 1;
    if value < all_ones {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | all_ones as u8);
    let mut rest = value - all_ones;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields = Vec<(String, String)>;

    fn read(section: &[u8]) -> Option<Fields> {
        let mut read = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields(section, &mut Vec::new(), |name, value| {
            read.push((text(name), text(value)));
            Ok::<(), ()>(())
        })
        .ok()
        .map(|()| read)
    }

    fn field(name: &str, value: &str) -> Option<Fields> {
        Some(vec![(name.into(), value.into())])
    }

    #[test]
    fn every_kind_of_line() {
        assert_eq!(read(&[0, 0]), Some(vec![]));
        // RFC 9204 appendix B.1.
        assert_eq!(
            read(b"\0\0\x51\x0b/index.html"),
            field(":path", "/index.html")
        );
        assert_eq!(read(&[0, 0, 0xd1]), field(":method", "GET"));
        assert_eq!(
            read(&[0, 0, 0xff, 35]),
            field("x-frame-options", "sameorigin")
        );
        assert_eq!(read(b"\0\0\x23abc\x02de"), field("abc", "de"));
        assert_eq!(read(b"\0\0\x33abc\x02de"), field("abc", "de"));
        // Huffman-coded name and value: "302" and "no-cache", from RFC 7541.
        let coded = [
            0, 0, 0x2a, 0x64, 0x02, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf,
        ];
        assert_eq!(read(&coded), field("302", "no-cache"));
    }

    #[test]
    fn what_needs_a_dynamic_table_is_refused() {
        for section in [
            &[1, 0][..],
            &[0, 0x80],
            &[0, 0, 0x80],
            &[0, 0, 0x40, 1, b'a'],
            &[0, 0, 0x10],
            &[0, 0, 0x00, 1, b'a'],
            &[0, 0, 0xff, 36],
            &[],
            &[0],
            &[0, 0, 0x51],
            &[0, 0, 0x51, 2, b'a'],
            &[
                0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
            ],
        ] {
            assert_eq!(read(section), None, "{section:x?}");
        }
    }

    #[test]
    fn written_sections_parse() {
        for code in [200, 400, 404, 405, 413, 425, 431] {
            let mut out = Vec::new();
            push_status(code, &mut out);
            push_field(CONTENT_TYPE, b"x/y", &mut out);
            push_field(CONTENT_LENGTH, b"12", &mut out);
            push_field(DATE, &[b'd'; 300], &mut out);
            push_named_field("allow", b"GET", &mut out);
            let expected = [
                (":status", &*code.to_string()),
                ("content-type", "x/y"),
                ("content-length", "12"),
                ("date", &"d".repeat(300)),
                ("allow", "GET"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(read(&out).unwrap(), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}
