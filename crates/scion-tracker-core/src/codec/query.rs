//! Query strings of HTTP announces and scrapes (BEP 3, 7, 21, 23, 48), both directions.
//!
//! Clients differ. The parser accepts this:
//! - Values are percent-encoded in either case. A `+` is a plus and not a space: info hashes are
//!   bytes, and no current client sends a space as `+`.
//! - `info_hash`, `peer_id`, `port`, `left`, `ia` and `scion` may appear once. Of any other field the
//!   first one counts, so that the query of the tracker's URL wins over what a client appends.
//! - `left` that is absent, empty, negative or unreadable is unknown. `uploaded` and `downloaded` that
//!   cannot be read are 0.
//! - An optional field with an empty value counts as absent, except `ia` and `scion`: those are parsed
//!   or refused, so that nobody is taken for a clearnet peer by mistake.
//! - A query that begins with more question marks, or that the client has appended with a second one
//!   to the query of the tracker's URL, is read as if it were joined with `&`.
//! - Names are compared as they stand; unknown ones are skipped.

mod escape;
mod write;

use std::net::{IpAddr, SocketAddr};

use crate::address::{AddressError, IsdAs, ScionAddr};
use crate::request::{AnnounceRequest, Claim, Event, Passkey, ScionClaim};
use crate::types::{InfoHash, PeerId};

use escape::decode;
pub(crate) use write::write_claim;
pub use write::{write_announce, write_scrape};

/// The longest query that is read, in bytes: a scrape of 100 hashes, every byte percent-encoded,
/// takes 7,100.
pub const MAX_QUERY: usize = 8192;

/// An announce, and how it wants its reply written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnounceQuery {
    /// The announce.
    pub announce: AnnounceRequest,
    /// `compact=1` or `compact=0` (BEP 23).
    pub compact: Option<bool>,
    /// `no_peer_id=1`: peer ids may be left out.
    pub no_peer_id: bool,
}

/// Makes the enum of errors, its list, labels and messages from one table.
macro_rules! query_errors {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $message:literal;)*) => {
        /// Why a request is refused before the tracker sees it. The message is for the client's
        /// eyes: a `failure reason`, or the error of BEP 15.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
        #[non_exhaustive]
        pub enum QueryError { $($(#[$doc])* #[error($message)] $name,)* }

        impl QueryError {
            /// Every variant, for counters.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// A stable name for counters and logs.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// What the client may read: the same text as `Display`.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $message,)* }
            }
        }
    };
}

query_errors! {
    /// Longer than [`MAX_QUERY`].
    TooLong = "too_long", "request is too long";
    /// No `info_hash`.
    NoInfoHash = "no_info_hash", "info_hash is missing";
    /// An `info_hash` of another length than 20 or 32 bytes, or badly encoded.
    BadInfoHash = "bad_info_hash", "info_hash must be 20 percent-encoded bytes";
    /// More hashes in a scrape than allowed.
    TooManyInfoHashes = "too_many_info_hashes", "too many info_hash fields in one scrape";
    /// No `peer_id`.
    NoPeerId = "no_peer_id", "peer_id is missing";
    /// A `peer_id` of another length than 20 bytes, or badly encoded.
    BadPeerId = "bad_peer_id", "peer_id must be 20 percent-encoded bytes";
    /// No `port`.
    NoPort = "no_port", "port is missing";
    /// Not one of 0..=65535.
    BadPort = "bad_port", "port must be a number from 0 to 65535";
    /// A field that may stand once stands twice.
    Repeated = "repeated", "info_hash, peer_id, port, left, ia and scion may stand only once";
    /// An `ia` that is no ISD-AS.
    BadIa = "bad_ia", "ia must be an ISD-AS, as in 1-ff00:0:110";
    /// An `ia` that names no single AS.
    WildcardIa = "wildcard_ia", "ia with a zero ISD or AS is a wildcard and names no place";
    /// A `scion` that is neither 0, 1 nor an address.
    BadScion = "bad_scion", "scion must be 1 or an address, as in 1-ff00:0:110,[192.0.2.1]:6881";
    /// A `scion` address whose ISD-AS names no single AS.
    WildcardScion = "wildcard_scion", "scion with a zero ISD or AS is a wildcard and names no host";
    /// BEP 41 URL data that is cut short or longer than what is read.
    BadUrlData = "bad_url_data", "URL data is cut short or too long";
}

/// Parses the query of an announce: what follows the `?`.
pub fn parse_announce(query: &str) -> Result<AnnounceQuery, QueryError> {
    match parse_announce_fields(query) {
        Err(QueryError::NoInfoHash) if query.contains('?') => parse_announce_fields(&joined(query)),
        parsed => parsed,
    }
}

/// A query with question marks in it, as clients make it that append theirs with a `?` to a URL that
/// has a query, or that ends in a `?`.
#[cold]
fn joined(query: &str) -> String {
    query
        .chars()
        .take(MAX_QUERY + 1)
        .map(|it| if it == '?' { '&' } else { it })
        .collect()
}

fn parse_announce_fields(query: &str) -> Result<AnnounceQuery, QueryError> {
    if query.len() > MAX_QUERY {
        return Err(QueryError::TooLong);
    }
    let mut info_hash = None;
    let mut peer_id = None;
    let mut port = None;
    let mut left = None;
    let mut claim = ClaimFields::default();
    let mut uploaded = None;
    let mut downloaded = None;
    let mut event = None;
    let mut numwant = None;
    let mut compact = None;
    let mut no_peer_id = None;
    let mut key = None;
    let mut named_ip = None;
    let mut passkey = None;
    for (name, value) in pairs(query.as_bytes()) {
        match name {
            b"info_hash" => once(&mut info_hash, read_info_hash(value)?)?,
            b"peer_id" => once(&mut peer_id, read_peer_id(value)?)?,
            b"port" => once(&mut port, read_port(value)?)?,
            b"left" => once(&mut left, read_u64(value))?,
            b"ia" => claim.read_ia(value)?,
            b"scion" => claim.read_scion(value)?,
            _ if value.is_empty() => {}
            b"uploaded" => first(&mut uploaded, read_u64(value).unwrap_or(0)),
            b"downloaded" => first(&mut downloaded, read_u64(value).unwrap_or(0)),
            b"event" => first(&mut event, read_event(value)),
            b"numwant" => first(&mut numwant, read_numwant(value)),
            b"compact" => first(&mut compact, read_flag(value)),
            b"no_peer_id" => first(&mut no_peer_id, read_flag(value) == Some(true)),
            b"key" => first(&mut key, read_key(value)),
            b"ip" | b"ipv4" | b"ipv6" => named_ip = named_ip.or_else(|| read_ip(value)),
            b"passkey" => passkey = passkey.or_else(|| read_passkey(value)),
            _ => {}
        }
    }
    Ok(AnnounceQuery {
        announce: AnnounceRequest {
            info_hash: info_hash.ok_or(QueryError::NoInfoHash)?,
            peer_id: peer_id.ok_or(QueryError::NoPeerId)?,
            port: port.ok_or(QueryError::NoPort)?,
            left: left.flatten().unwrap_or(AnnounceRequest::LEFT_UNKNOWN),
            uploaded: uploaded.unwrap_or(0),
            downloaded: downloaded.unwrap_or(0),
            event: event.unwrap_or_default(),
            numwant: numwant.flatten(),
            key: key.flatten(),
            claim: claim.claim(),
            named_ip,
            passkey,
        },
        compact: compact.flatten(),
        no_peer_id: no_peer_id.unwrap_or(false),
    })
}

/// A scrape (BEP 48).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScrapeQuery {
    /// The swarms, in the order of the query and with their duplicates. At least one.
    pub hashes: Vec<InfoHash>,
    /// The passkey of the query.
    pub passkey: Option<Passkey>,
}

/// Reads the query of a scrape, of `max` hashes at most.
pub fn parse_scrape(query: &str, max: usize) -> Result<ScrapeQuery, QueryError> {
    match parse_scrape_fields(query, max) {
        Err(QueryError::NoInfoHash) if query.contains('?') => {
            parse_scrape_fields(&joined(query), max)
        }
        parsed => parsed,
    }
}

fn parse_scrape_fields(query: &str, max: usize) -> Result<ScrapeQuery, QueryError> {
    if query.len() > MAX_QUERY {
        return Err(QueryError::TooLong);
    }
    let mut hashes = Vec::new();
    let mut passkey = None;
    for (name, value) in pairs(query.as_bytes()) {
        match name {
            b"info_hash" if hashes.len() == max => return Err(QueryError::TooManyInfoHashes),
            b"info_hash" => hashes.push(read_info_hash(value)?),
            b"passkey" => passkey = passkey.or_else(|| read_passkey(value)),
            _ => {}
        }
    }
    if hashes.is_empty() {
        return Err(QueryError::NoInfoHash);
    }
    Ok(ScrapeQuery { hashes, passkey })
}

/// The fields of a UDP tracker's URL (BEP 41).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct UrlFields {
    /// The claimed place.
    pub(crate) claim: Claim,
    /// The passkey.
    pub(crate) passkey: Option<Passkey>,
    /// `scion46=1`: the client reads peers of both host families in one list over SCION. Any other
    /// value, or none, says that it does not.
    pub(crate) reads_scion46: bool,
}

/// Reads the query of a UDP tracker's URL (BEP 41). Ignores unknown fields.
pub(crate) fn parse_url_query(query: &[u8]) -> Result<UrlFields, QueryError> {
    let mut claim = ClaimFields::default();
    let mut passkey = None;
    let mut reads_scion46 = None;
    for (name, value) in pairs(query) {
        match name {
            b"ia" => claim.read_ia(value)?,
            b"scion" => claim.read_scion(value)?,
            b"scion46" => first(&mut reads_scion46, read_flag(value) == Some(true)),
            b"passkey" => passkey = passkey.or_else(|| read_passkey(value)),
            _ => {}
        }
    }
    Ok(UrlFields {
        claim: claim.claim(),
        passkey,
        reads_scion46: reads_scion46.unwrap_or(false),
    })
}

/// Reads a passkey. `None` if it is none.
fn read_passkey(value: &[u8]) -> Option<Passkey> {
    Passkey::from_bytes(value).or_else(|| decoded_passkey(value))
}

/// Reads a passkey that is percent-encoded, as no client has to do it.
#[cold]
fn decoded_passkey(value: &[u8]) -> Option<Passkey> {
    decode(value, &mut [0; Passkey::MAX]).and_then(Passkey::from_bytes)
}

/// Names and values as they stand, still encoded. A name without `=` has an empty value.
fn pairs(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = Some(query);
    std::iter::from_fn(move || {
        let query = rest?;
        let pair = match find(query, b'&') {
            Some(at) => {
                rest = Some(&query[at + 1..]);
                &query[..at]
            }
            None => {
                rest = None;
                query
            }
        };
        Some(match find(pair, b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &[][..]),
        })
    })
}

/// Where this byte is first found. Eight bytes per step: looking for separators was a quarter of what
/// reading a query took.
fn find(bytes: &[u8], wanted: u8) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let (words, tail) = bytes.as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        // Zero where the byte is. The lowest zero byte has its high bit set in `found`, and those below
        // it have not.
        let word = u64::from_le_bytes(*word) ^ (ONES * u64::from(wanted));
        let found = word.wrapping_sub(ONES) & !word & (ONES << 7);
        if found != 0 {
            return Some(8 * number + found.trailing_zeros() as usize / 8);
        }
    }
    let at = tail.iter().position(|byte| *byte == wanted)?;
    Some(8 * words.len() + at)
}

fn once<T>(field: &mut Option<T>, value: T) -> Result<(), QueryError> {
    if field.is_some() {
        return Err(QueryError::Repeated);
    }
    *field = Some(value);
    Ok(())
}

fn first<T>(field: &mut Option<T>, value: T) {
    if field.is_none() {
        *field = Some(value);
    }
}

#[derive(Default)]
struct ClaimFields {
    ia: Option<IsdAs>,
    scion: Option<ScionClaim>,
}

impl ClaimFields {
    fn read_ia(&mut self, value: &[u8]) -> Result<(), QueryError> {
        let mut text = [0; 32];
        let text = decode_text(value, &mut text).ok_or(QueryError::BadIa)?;
        let ia = IsdAs::parse_place(text).map_err(|error| match error {
            AddressError::Wildcard => QueryError::WildcardIa,
            _ => QueryError::BadIa,
        })?;
        once(&mut self.ia, ia)
    }

    /// `1`: reads SCION peer lists. `0`: says that it does not. Else the address.
    fn read_scion(&mut self, value: &[u8]) -> Result<(), QueryError> {
        let mut text = [0; 96];
        let scion = match decode_text(value, &mut text).ok_or(QueryError::BadScion)? {
            "0" => ScionClaim::Absent,
            "1" => ScionClaim::Capable,
            address => {
                ScionClaim::At(address.parse::<ScionAddr>().map_err(|error| match error {
                    AddressError::Wildcard => QueryError::WildcardScion,
                    _ => QueryError::BadScion,
                })?)
            }
        };
        once(&mut self.scion, scion)
    }

    fn claim(self) -> Claim {
        Claim {
            ia: self.ia,
            scion: self.scion.unwrap_or_default(),
        }
    }
}

fn decode_text<'b, const N: usize>(value: &[u8], buffer: &'b mut [u8; N]) -> Option<&'b str> {
    decode(value, buffer).and_then(|text| std::str::from_utf8(text).ok())
}

/// 20 bytes, or 32 of a version 2 torrent, truncated as BEP 52 says.
fn read_info_hash(value: &[u8]) -> Result<InfoHash, QueryError> {
    decode(value, &mut [0; 32])
        .and_then(InfoHash::from_slice)
        .ok_or(QueryError::BadInfoHash)
}

fn read_peer_id(value: &[u8]) -> Result<PeerId, QueryError> {
    let mut id = [0; 20];
    match decode(value, &mut id) {
        Some(bytes) if bytes.len() == 20 => Ok(PeerId(id)),
        _ => Err(QueryError::BadPeerId),
    }
}

/// Zero is a port, too: see [`AnnounceRequest::port`].
fn read_port(value: &[u8]) -> Result<u16, QueryError> {
    read_u64(value)
        .and_then(|n| u16::try_from(n).ok())
        .ok_or(QueryError::BadPort)
}

/// Digits and nothing else.
fn read_u64(value: &[u8]) -> Option<u64> {
    let mut decoded = [0; 24];
    let digits = match value.contains(&b'%') {
        true => decode(value, &mut decoded)?,
        false => value,
    };
    if digits.is_empty() {
        return None;
    }
    let mut n = 0_u64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        n = n.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(n)
}

fn read_event(value: &[u8]) -> Event {
    match value {
        b"started" => Event::Started,
        b"completed" => Event::Completed,
        b"stopped" => Event::Stopped,
        b"paused" => Event::Paused,
        _ => Event::None,
    }
}

/// Values that cannot be read (`-1`, `None`) leave the number to the tracker. Numbers that are too
/// large stand for as many as possible.
fn read_numwant(value: &[u8]) -> Option<u32> {
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n = read_u64(value).unwrap_or(u64::MAX);
    Some(u32::try_from(n).unwrap_or(u32::MAX))
}

fn read_flag(value: &[u8]) -> Option<bool> {
    match value {
        b"1" => Some(true),
        b"0" => Some(false),
        _ => None,
    }
}

/// Up to eight hexadecimal digits. Clients that send other bytes prove nothing by them.
fn read_key(value: &[u8]) -> Option<u32> {
    let mut digits = [0; 8];
    let digits = decode(value, &mut digits)?;
    let mut key = 0;
    for digit in digits {
        key = key << 4 | char::from(*digit).to_digit(16)?;
    }
    Some(key)
}

/// An address or an endpoint (BEP 7), whose port is ignored. `None` is what some clients send that
/// have none.
fn read_ip(value: &[u8]) -> Option<IpAddr> {
    let mut text = [0; 64];
    let text = decode_text(value, &mut text)?;
    let ip = match text.parse::<IpAddr>() {
        Ok(ip) => ip,
        Err(_) => text.parse::<SocketAddr>().ok()?.ip(),
    };
    (!ip.is_unspecified()).then_some(ip.to_canonical())
}

#[cfg(test)]
pub(crate) mod tests;
