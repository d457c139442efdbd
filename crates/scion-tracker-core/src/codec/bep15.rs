//! The UDP tracker protocol (BEP 15) with URL data (BEP 41), both directions of every message.
//!
//! ```text
//! request    connection 8   action 4   transaction 4   ...
//! reply      action 4   transaction 4   ...
//! ```
//!
//! A datagram that is no request at all is [`Malformed`] and gets no answer. Neither does one with a
//! wrong connection id, so an announce whose connection id is still to be checked carries what is
//! wrong with it, to be answered afterwards.

mod reply;
mod request;
mod url;

pub use reply::{
    ANNOUNCE_HEADER, AnnounceWriter, Reply, ScrapeCounts, parse_reply, write_connect, write_error,
    write_scrape,
};
pub use request::{
    Hashes, MAX_SCRAPE, Request, parse, peek_announce, write_announce_request,
    write_connect_request, write_scrape_request,
};
pub use url::{MAX_URL, Url, UrlBuffer, UrlData};

/// The number by which a client knows the reply to its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionId(pub u32);

/// Not a packet of BEP 15: too short, of an unknown action, or a `connect` without the magic number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a packet of the UDP tracker protocol")]
pub struct Malformed;

/// What stands for a connection id in a `connect`.
const MAGIC: u64 = 0x0417_2710_1980;

const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

/// Big-endian fields at fixed places: the bounds are known when it is compiled.
const fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes(bytes_at(bytes, at))
}

const fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from_be_bytes(bytes_at(bytes, at))
}

const fn bytes_at<const N: usize, const M: usize>(bytes: &[u8; N], at: usize) -> [u8; M] {
    let mut field = [0; M];
    let mut i = 0;
    while i < M {
        field[i] = bytes[at + i];
        i += 1;
    }
    field
}

#[cfg(test)]
mod tests;
