//! Bencode (BEP 3): a writer for every HTTP reply, and a reader for untrusted input. The reader
//! first checks the whole input, without recursion and to a bounded depth, and then returns views
//! of it. Neither allocates.

/// Deepest nesting of lists and dictionaries. A scrape reply, the deepest reply here, needs three.
pub const MAX_DEPTH: usize = 16;

/// Appends bencode to a buffer. The caller writes the keys of a dictionary in sorted order.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Appends to the contents of the buffer.
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Writes an integer.
    #[inline]
    pub fn int(&mut self, n: impl Into<u64>) {
        self.out.push(b'i');
        push_decimal(n.into(), self.out);
        self.out.push(b'e');
    }

    /// Writes a byte string, also as the key of a dictionary.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        push_decimal(bytes.len() as u64, self.out);
        self.out.push(b':');
        self.out.extend_from_slice(bytes);
    }

    /// Appends text that is already bencoded.
    pub fn raw(&mut self, bencode: &[u8]) {
        self.out.extend_from_slice(bencode);
    }

    /// Opens a list; [`Writer::end`] closes it.
    pub fn list(&mut self) {
        self.out.push(b'l');
    }

    /// Opens a dictionary; [`Writer::end`] closes it.
    pub fn dict(&mut self) {
        self.out.push(b'd');
    }

    /// Closes the innermost open list or dictionary.
    pub fn end(&mut self) {
        self.out.push(b'e');
    }
}

/// Appends a number in decimal. Inlined, so that the lengths of keys cost no division.
#[inline(always)]
pub(crate) fn push_decimal(n: u64, out: &mut Vec<u8>) {
    match n {
        0..10 => out.push(b'0' + n as u8),
        10..100 => out.extend_from_slice(&[b'0' + (n / 10) as u8, b'0' + (n % 10) as u8]),
        _ => push_digits(n, out),
    }
}

fn push_digits(mut n: u64, out: &mut Vec<u8>) {
    // Intervals, ports below 10,000 and the lengths of most lists.
    if n < 10_000 {
        let n = n as u32;
        let digits = [n / 1000, n / 100 % 10, n / 10 % 10, n % 10].map(|digit| b'0' + digit as u8);
        let zeros = usize::from(n < 1000) + usize::from(n < 100) + usize::from(n < 10);
        return out.extend_from_slice(&digits[zeros..]);
    }
    let mut digits = [0; 20];
    let mut at = digits.len();
    while n > 0 {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
    }
    out.extend_from_slice(&digits[at..]);
}

/// Why bytes are not accepted as bencode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BencodeError {
    /// The input ends inside a value.
    #[error("bencode is truncated")]
    Truncated,
    /// A byte that starts no value, or a dictionary key that is not a string.
    #[error("invalid bencode")]
    Syntax,
    /// An integer that is empty, has a leading zero or plus, or does not fit 64 bits.
    #[error("bencode holds a malformed integer")]
    Integer,
    /// A string length with a leading zero, or larger than memory.
    #[error("bencode holds a malformed string length")]
    Length,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("bencode is nested too deeply")]
    Depth,
    /// Something follows the value.
    #[error("bencode is followed by other data")]
    Trailing,
}

/// A bencoded value, a view into the bytes it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// An integer. The type is wider than 64 bits to hold 2^63 to 2^64 - 1 as well.
    Int(i128),
    /// A byte string.
    Bytes(&'a [u8]),
    /// A list.
    List(List<'a>),
    /// A dictionary.
    Dict(Dict<'a>),
}

impl<'a> Value<'a> {
    /// Reads one value that takes up the whole input.
    pub fn read(input: &'a [u8]) -> Result<Self, BencodeError> {
        match check(input)? {
            length if length == input.len() => {}
            _ => return Err(BencodeError::Trailing),
        }
        next(&mut &*input).ok_or(BencodeError::Syntax)
    }

    /// Reads the value at the start of the input and ignores what follows it. Some trackers end
    /// their replies with a newline.
    pub fn read_first(input: &'a [u8]) -> Result<Self, BencodeError> {
        check(input)?;
        next(&mut &*input).ok_or(BencodeError::Syntax)
    }

    /// The integer, if the value is one in 0..2^64.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Int(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    /// The string, if the value is one.
    pub const fn as_bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The list, if the value is one.
    pub const fn as_list(&self) -> Option<List<'a>> {
        match self {
            Self::List(list) => Some(*list),
            _ => None,
        }
    }

    /// The dictionary, if the value is one.
    pub const fn as_dict(&self) -> Option<Dict<'a>> {
        match self {
            Self::Dict(dict) => Some(*dict),
            _ => None,
        }
    }
}

/// A list: the checked bytes between `l` and `e`. Iterates over its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct List<'a>(&'a [u8]);

impl<'a> Iterator for List<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        next(&mut self.0)
    }
}

/// A dictionary: the checked bytes between `d` and `e`. Iterates over keys and values in their
/// order in the input, which need not be sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dict<'a>(&'a [u8]);

impl<'a> Dict<'a> {
    /// The value of a key. If the key occurs twice, the first value.
    pub fn get(mut self, key: &str) -> Option<Value<'a>> {
        self.find(|(name, _)| *name == key.as_bytes())
            .map(|(_, value)| value)
    }
}

impl<'a> Iterator for Dict<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = next(&mut self.0)?.as_bytes()?;
        Some((key, next(&mut self.0)?))
    }
}

/// Takes one value off checked input.
fn next<'a>(rest: &mut &'a [u8]) -> Option<Value<'a>> {
    let (value, length) = match rest.first()? {
        b'i' => {
            let (n, length) = int(rest).ok()?;
            (Value::Int(n), length)
        }
        b'l' => {
            let length = check(rest).ok()?;
            (Value::List(List(&rest[1..length - 1])), length)
        }
        b'd' => {
            let length = check(rest).ok()?;
            (Value::Dict(Dict(&rest[1..length - 1])), length)
        }
        _ => {
            let (bytes, length) = string(rest).ok()?;
            (Value::Bytes(bytes), length)
        }
    };
    *rest = &rest[length..];
    Some(value)
}

/// The kind of the open container, and for a dictionary what must come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    List,
    Key,
    Value,
}

/// Checks one value and returns its length.
fn check(input: &[u8]) -> Result<usize, BencodeError> {
    let mut open = [Open::List; MAX_DEPTH];
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        let rest = &input[at..];
        let top = depth.checked_sub(1).map(|top| open[top]);
        let first = *rest.first().ok_or(BencodeError::Truncated)?;
        if first == b'e' {
            if !matches!(top, Some(Open::List | Open::Key)) {
                return Err(BencodeError::Syntax);
            }
            depth -= 1;
            at += 1;
        } else {
            match top {
                Some(Open::Key) if first.is_ascii_digit() => open[depth - 1] = Open::Value,
                Some(Open::Key) => return Err(BencodeError::Syntax),
                Some(Open::Value) => open[depth - 1] = Open::Key,
                Some(Open::List) | None => {}
            }
            match first {
                b'l' | b'd' if depth == MAX_DEPTH => return Err(BencodeError::Depth),
                b'l' | b'd' => {
                    open[depth] = if first == b'l' { Open::List } else { Open::Key };
                    depth += 1;
                    at += 1;
                }
                b'i' => at += int(rest)?.1,
                _ => at += string(rest)?.1,
            }
        }
        if depth == 0 {
            return Ok(at);
        }
    }
}

/// Reads `i`, an optional minus, digits, `e`. Returns the number and the bytes read.
fn int(input: &[u8]) -> Result<(i128, usize), BencodeError> {
    // `i`, a sign, 20 digits and `e` are the longest form.
    let window = &input[1..input.len().min(24)];
    let Some(end) = window.iter().position(|b| *b == b'e') else {
        return Err(if input.len() < 24 {
            BencodeError::Truncated
        } else {
            BencodeError::Integer
        });
    };
    let text = &window[..end];
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let negative = digits.len() != text.len();
    let leading_zero = digits.len() > 1 && digits[0] == b'0';
    if digits.is_empty() || leading_zero || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BencodeError::Integer);
    }
    let n = digits
        .iter()
        .fold(0_i128, |n, digit| n * 10 + i128::from(digit - b'0'));
    let n = if negative { -n } else { n };
    let fits = n >= i128::from(i64::MIN) && n <= i128::from(u64::MAX) && !(negative && n == 0);
    if !fits {
        return Err(BencodeError::Integer);
    }
    Ok((n, end + 2))
}

/// Reads digits, a colon, bytes. Returns the bytes and the length of the whole.
fn string(input: &[u8]) -> Result<(&[u8], usize), BencodeError> {
    let digits = input.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 {
        return Err(BencodeError::Syntax);
    }
    // Nine digits hold any length that is read here.
    if digits > 9 || (digits > 1 && input[0] == b'0') {
        return Err(BencodeError::Length);
    }
    match input.get(digits) {
        Some(b':') => {}
        Some(_) => return Err(BencodeError::Syntax),
        None => return Err(BencodeError::Truncated),
    }
    let length = input[..digits]
        .iter()
        .fold(0, |n, digit| n * 10 + usize::from(digit - b'0'));
    let start = digits + 1;
    let bytes = input
        .get(start..start + length)
        .ok_or(BencodeError::Truncated)?;
    Ok((bytes, start + length))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use serde_bencode::value::Value as Other;

    use super::*;

    fn same(ours: &Value<'_>, other: &Other) -> bool {
        match (ours, other) {
            (Value::Int(a), Other::Int(b)) => *a == i128::from(*b),
            (Value::Bytes(a), Other::Bytes(b)) => a == b,
            (Value::List(a), Other::List(b)) => {
                a.count() == b.len() && a.zip(b).all(|(a, b)| same(&a, b))
            }
            (Value::Dict(a), Other::Dict(b)) => {
                let keys: std::collections::HashSet<_> = a.map(|(key, _)| key).collect();
                // The other decoder keeps the last of two equal keys.
                a.count() != keys.len()
                    || keys.len() == b.len() && { *a }
                        .all(|(key, value)| b.get(key).is_some_and(|b| same(&value, b)))
            }
            _ => false,
        }
    }

    fn any_value() -> impl Strategy<Value = Other> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Other::Int),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Other::Bytes),
        ];
        leaf.prop_recursive(6, 60, 6, |inner| {
            let key = prop::collection::vec(any::<u8>(), 0..8);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Other::List),
                prop::collection::hash_map(key, inner, 0..6).prop_map(Other::Dict),
            ]
        })
    }

    #[test]
    fn writer_snapshot() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.dict();
        writer.bytes(b"a");
        writer.int(0_u32);
        writer.bytes(b"b");
        writer.list();
        writer.int(u64::MAX);
        writer.bytes(b"");
        writer.raw(b"i7e");
        writer.end();
        writer.end();
        assert_eq!(out, b"d1:ai0e1:bli18446744073709551615e0:i7eee");
    }

    #[test]
    fn reader_takes_what_bep_3_allows_and_nothing_else() {
        for good in [
            "i0e",
            "i-1e",
            "i18446744073709551615e",
            "i-9223372036854775808e",
            "0:",
            "4:spam",
            "le",
            "de",
            "d1:bi1e1:ai2ee",
            "lli1eed0:leee",
        ] {
            assert!(Value::read(good.as_bytes()).is_ok(), "{good}");
        }
        for (bad, error) in [
            ("", BencodeError::Truncated),
            ("i", BencodeError::Truncated),
            ("i1", BencodeError::Truncated),
            ("ie", BencodeError::Integer),
            ("i-e", BencodeError::Integer),
            ("i-0e", BencodeError::Integer),
            ("i01e", BencodeError::Integer),
            ("i+1e", BencodeError::Integer),
            ("i1 e", BencodeError::Integer),
            ("i18446744073709551616e", BencodeError::Integer),
            ("i-9223372036854775809e", BencodeError::Integer),
            ("i999999999999999999999999e", BencodeError::Integer),
            ("1:", BencodeError::Truncated),
            ("1", BencodeError::Truncated),
            ("01:a", BencodeError::Length),
            ("9999999999:a", BencodeError::Length),
            ("999999999:a", BencodeError::Truncated),
            ("1a", BencodeError::Syntax),
            ("x", BencodeError::Syntax),
            ("e", BencodeError::Syntax),
            ("l", BencodeError::Truncated),
            ("d1:ae", BencodeError::Syntax),
            ("di1ei1ee", BencodeError::Syntax),
            ("dlei1ee", BencodeError::Syntax),
            ("i1ei2e", BencodeError::Trailing),
            ("le\n", BencodeError::Trailing),
        ] {
            assert_eq!(Value::read(bad.as_bytes()), Err(error), "{bad}");
            let first = Value::read_first(bad.as_bytes());
            assert_eq!(first.is_ok(), error == BencodeError::Trailing, "{bad}");
        }
        assert_eq!(Value::read_first(b"i1ei2e"), Ok(Value::Int(1)));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| [vec![b'l'; n], vec![b'e'; n]].concat();
        assert!(Value::read(&nested(MAX_DEPTH)).is_ok());
        for n in [MAX_DEPTH + 1, 200_000] {
            assert_eq!(Value::read(&nested(n)), Err(BencodeError::Depth));
        }
        let dicts = b"d1:a".repeat(200_000);
        assert_eq!(Value::read(&dicts), Err(BencodeError::Depth));
    }

    #[test]
    fn the_first_of_two_equal_keys_counts() {
        let value = Value::read(b"d1:ai1e1:ai2ee").unwrap();
        assert_eq!(value.as_dict().unwrap().get("a"), Some(Value::Int(1)));
        assert_eq!(value.as_dict().unwrap().get("b"), None);
    }

    proptest! {
        #[test]
        fn reads_what_another_encoder_writes(value in any_value()) {
            let bytes = serde_bencode::to_bytes(&value).unwrap();
            prop_assert!(same(&Value::read(&bytes).unwrap(), &value));
            for end in 0..bytes.len() {
                prop_assert!(Value::read(&bytes[..end]).is_err());
            }
        }

        #[test]
        fn accepted_input_is_accepted_by_another_decoder(bytes in "[deil0-3:a-]{0,24}") {
            if let Ok(ours) = Value::read(bytes.as_bytes()) {
                let other: Other = serde_bencode::from_bytes(bytes.as_bytes()).unwrap();
                prop_assert!(same(&ours, &other));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Value::read(&bytes);
        }

        #[test]
        fn the_writer_agrees_with_another_decoder(n: u64, bytes: Vec<u8>) {
            let mut out = Vec::new();
            let mut writer = Writer::new(&mut out);
            writer.dict();
            writer.bytes(b"bytes");
            writer.bytes(&bytes);
            writer.bytes(b"n");
            writer.int(n >> 1);
            writer.end();
            let other: HashMap<String, Other> = serde_bencode::from_bytes(&out).unwrap();
            prop_assert_eq!(&other["bytes"], &Other::Bytes(bytes));
            prop_assert_eq!(&other["n"], &Other::Int((n >> 1) as i64));
        }
    }
}
