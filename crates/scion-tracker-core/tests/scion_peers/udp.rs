//! UDP announces and replies of the vectors.

use serde::Deserialize;

use scion_tracker_core::codec::bep15::{self, AnnounceWriter, Reply, Request, TransactionId};
use scion_tracker_core::codec::compact::Layout;
use scion_tracker_core::request::Origin;

use super::{PeerCase, ROOM, claim, each, hex, origin, push, reply, unhex, vectors};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Announces {
    valid: Vec<AnnounceCase>,
    invalid: Vec<RefusedAnnounce>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnnounceCase {
    name: String,
    hex: String,
    ia: Option<String>,
    scion: Option<String>,
    /// Whether the client reads peers of both host families over SCION.
    #[serde(default)]
    scion46: bool,
    path: String,
    query: String,
    /// Path and query of the tracker's URL for which a client writes exactly these bytes.
    written: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefusedAnnounce {
    name: String,
    hex: String,
    error: String,
}

#[test]
fn announces_are_read_and_written() {
    let announces = vectors().udp_announces;
    each(&announces.valid, |case| {
        let (name, datagram) = (&case.name, unhex(&case.hex));
        let Ok(Request::Announce {
            connection,
            transaction,
            announce: Ok(announce),
            reads_scion46,
            url,
        }) = bep15::parse(&datagram, 74)
        else {
            panic!("{name}: not an announce");
        };
        let expected = claim(case.ia.as_deref(), case.scion.as_deref());
        assert_eq!(announce.claim, expected, "{name}");
        assert_eq!(reads_scion46, case.scion46, "{name}");
        let mut buffer = bep15::UrlBuffer::new();
        let url = url.read(&mut buffer).unwrap();
        assert_eq!(url.path, case.path, "{name}");
        assert_eq!(url.query, case.query, "{name}");

        let mut written = Vec::new();
        let path = case.written.as_deref().unwrap_or_default();
        bep15::write_announce_request(connection, transaction, &announce, path, &mut written);
        if case.written.is_some() {
            assert_eq!(hex(&written), case.hex, "{name}");
        }
        // The same announce, though not necessarily the same bytes.
        let Ok(Request::Announce { announce: read, .. }) = bep15::parse(&written, 74) else {
            panic!("{name}: the written bytes are not an announce");
        };
        assert_eq!(read, Ok(announce), "{name}");
    });
    each(&announces.invalid, |case| {
        let (name, datagram) = (&case.name, unhex(&case.hex));
        let Ok(Request::Announce { announce, .. }) = bep15::parse(&datagram, 74) else {
            panic!("{name}: not an announce");
        };
        assert_eq!(announce.unwrap_err().message(), case.error, "{name}");
    });
}

/// Layout of the reply to an announce with or without `scion46=1`.
pub(super) fn layout(origin: &Origin, scion46: bool) -> Layout {
    match scion46 && origin.is_scion() {
        true => Layout::Scion46,
        false => Layout::of(origin),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplyCase {
    name: String,
    origin: String,
    /// Whether the announce had `scion46=1`.
    #[serde(default)]
    scion46: bool,
    peers: Vec<PeerCase>,
    interval: u32,
    leechers: u32,
    seeders: u32,
    hex: String,
    /// The peers that a client parses, in this order.
    read: Vec<String>,
}

#[test]
fn replies_are_written_and_read() {
    each(&vectors().udp_replies, |case| {
        let (name, origin) = (&case.name, origin(&case.origin));
        let layout = layout(&origin, case.scion46);
        let ours = TransactionId(0x0102_0304);
        let mut buffer = [0xee; ROOM];
        let mut writer = AnnounceWriter::new(&mut buffer, ours, layout);
        case.peers.iter().for_each(|peer| push(&mut writer, peer));
        let length = writer.finish(&reply(&origin, None));
        assert_eq!(hex(&buffer[..length]), case.hex, "{name}");

        let datagram = unhex(&case.hex);
        let Ok(Reply::Announce {
            transaction,
            interval,
            leechers,
            seeders,
            peers,
        }) = bep15::parse_reply(&datagram, Layout::of(&origin))
        else {
            panic!("{name}: not an announce reply");
        };
        assert_eq!(transaction, ours, "{name}");
        let counts = (interval, leechers, seeders);
        let expected = (case.interval, case.leechers, case.seeders);
        assert_eq!(counts, expected, "{name}");
        let peers: Vec<_> = peers.map(|peer| peer.to_string()).collect();
        assert_eq!(peers, case.read, "{name}");
    });
}
