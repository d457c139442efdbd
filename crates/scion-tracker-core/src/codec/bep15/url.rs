//! URL data: path and query of the tracker's URL in the options of an announce (BEP 41).

use std::fmt;

use arrayvec::ArrayVec;

use crate::codec::query::{QueryError, UrlFields, parse_url_query};
use crate::codec::target::Target;

/// The longest URL data that is read, all options together.
pub const MAX_URL: usize = 512;

/// Room for URL data that is spread over several options.
pub type UrlBuffer = ArrayVec<u8, MAX_URL>;

const END_OF_OPTIONS: u8 = 0;
const NOP: u8 = 1;
const URL_DATA: u8 = 2;

/// The options of most clients that send any: the path `/announce` in one piece.
const PLAIN: &[u8] = b"\x02\x09/announce";

/// The options of an announce, not looked into yet.
#[derive(Clone, Copy)]
pub struct UrlData<'a>(&'a [u8]);

/// Path and query of a tracker's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Url<'b> {
    /// With the slash at its front; empty if the client told none.
    pub path: &'b str,
    /// Without the question mark.
    pub query: &'b str,
}

impl fmt::Debug for UrlData<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl<'a> UrlData<'a> {
    pub(super) const fn new(options: &'a [u8]) -> Self {
        Self(options)
    }

    /// Reads path and query, which may stand in pieces, into `buffer`. `None` if they are too long,
    /// cut short or not UTF-8.
    pub fn read<'b>(&self, buffer: &'b mut UrlBuffer) -> Option<Url<'b>> {
        self.concatenate(buffer)?;
        let url = std::str::from_utf8(buffer).ok()?;
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        Some(Url { path, query })
    }

    /// Whether there is no field to read, at a glance: what clients send for a URL without a passkey.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        // aria2 sends zeros, which are EndOfOptions.
        matches!(self.0, [] | [END_OF_OPTIONS, ..] | PLAIN)
    }

    /// The fields of the URL. The passkey is the one in the query, else the one in the path.
    #[cold]
    pub(super) fn fields(&self) -> Result<UrlFields, QueryError> {
        let mut buffer = UrlBuffer::new();
        self.concatenate(&mut buffer)
            .ok_or(QueryError::BadUrlData)?;
        let mut parts = buffer.splitn(2, |byte| *byte == b'?');
        let path = parts.next().unwrap_or_default();
        let mut fields = match parts.next() {
            Some(query) => parse_url_query(query)?,
            None => UrlFields::default(),
        };
        let target = std::str::from_utf8(path)
            .ok()
            .and_then(|path| Target::of(path, ""));
        fields.passkey = fields.passkey.or_else(|| target.and_then(|it| it.passkey));
        Ok(fields)
    }

    /// Joins all URL data. An unknown option that is cut short ends the options, as bytes behind an
    /// announce have been something else before BEP 41; URL data that is cut short is an error, as
    /// it might have held a claim.
    fn concatenate(&self, into: &mut UrlBuffer) -> Option<()> {
        into.clear();
        let mut rest = self.0;
        loop {
            rest = match rest {
                [] | [END_OF_OPTIONS, ..] => return Some(()),
                [NOP, rest @ ..] => rest,
                [URL_DATA, length, rest @ ..] => {
                    let (piece, rest) = rest.split_at_checked(usize::from(*length))?;
                    into.try_extend_from_slice(piece).ok()?;
                    rest
                }
                [URL_DATA] => return None,
                [_, length, rest @ ..] => match rest.get(usize::from(*length)..) {
                    Some(rest) => rest,
                    None => return Some(()),
                },
                [_] => return Some(()),
            }
        }
    }
}

/// Appends URL data in as many options as it takes, and none for an empty URL.
pub(super) fn push_url(url: &str, out: &mut Vec<u8>) {
    for piece in url.as_bytes().chunks(255) {
        out.push(URL_DATA);
        out.push(piece.len() as u8);
        out.extend_from_slice(piece);
    }
}
