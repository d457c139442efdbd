//! The bencoded replies over HTTP: fixed, of the size of a tracker's.

use bytes::Bytes;

use crate::PEERS;

/// A reply to an announce: the fields that scion-tracker sends, and `PEERS` peers over IPv4.
pub(crate) fn announce() -> Bytes {
    let mut reply = format!(
        "d8:completei20e10:downloadedi0e11:external ip4:\x7f\0\0\x0110:incompletei80e\
         8:intervali1800e12:min intervali300e5:peers{}:",
        6 * PEERS
    )
    .into_bytes();
    reply.resize(reply.len() + 6 * PEERS, b'x');
    reply.extend_from_slice(b"6:peers60:e");
    reply.into()
}

/// A reply to a scrape, without files.
pub(crate) fn scrape() -> Bytes {
    Bytes::from_static(b"d5:filesdee")
}
