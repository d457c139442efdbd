//! The UDP tracker protocol (BEP 15) with URL data (BEP 41): both directions of every message.
//!
//! ```text
//! request    connection 8   action 4   transaction 4   ...
//! reply      action 4   transaction 4   ...
//! ```
//!
//! A datagram that is not a request is [`Malformed`] and gets no reply. A request with a wrong
//! connection id gets no reply either. The parser cannot check the id, so an announce with a valid
//! layout but wrong content carries its error, to be sent after the id has been checked.

mod reply;
mod request;
mod url;

pub use reply::{
    ANNOUNCE_HEADER, AnnounceWriter, Reply, ScrapeCounts, announce_room, parse_reply, peer_list,
    write_connect, write_error, write_scrape,
};
pub use request::{
    Hashes, MAX_SCRAPE, Request, parse, peek_announce, write_announce_request,
    write_connect_request, write_scrape_request,
};
pub use url::{MAX_URL, Url, UrlBuffer, UrlData};

/// Transaction id: identifies the request that a reply belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionId(pub u32);

/// The datagram is not BEP 15: too short, an unknown action, or a `connect` without the magic
/// number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a packet of the UDP tracker protocol")]
pub struct Malformed;

/// The protocol id that a `connect` carries instead of a connection id.
const MAGIC: u64 = 0x0417_2710_1980;

/// Opens a list of peers of both host families over SCION.
const BOTH_FAMILIES: [u8; 8] = [0; 8];

const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

/// Big-endian fields at fixed offsets. The bounds are checked at compile time.
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
