//! Checks of the streams of an HTTP/3 client, for fuzzing and tests.

use super::control;
use super::frame::Code;
use super::message::{self, Buffers, Frames, Stop};
use crate::transport::fuzz::{cuts, origins, proxies};
use crate::transport::http::origin::Client;
use crate::transport::{Limits, Options};

/// Checks a request stream: more bytes never change a result, the contents of reused buffers make
/// no difference, and an untrusted client cannot set its origin.
pub fn http3_request(bytes: &[u8]) {
    let options = Options {
        proxies: proxies(),
        alt_svc: None,
    };
    let head_bytes = Limits::default().head_bytes;
    let whole = Frames::default().split(bytes, true, head_bytes);
    for (part, _) in cuts(bytes) {
        let mut frames = Frames::default();
        match frames.split(part, false, head_bytes) {
            // What was read of the part is not read again.
            Err(Stop::More) => assert_eq!(frames.split(bytes, true, head_bytes), whole),
            early => assert_eq!(early, whole),
        }
    }
    assert_ne!(whole, Err(Stop::More));
    let Ok(section) = whole else { return };
    let mut used = Buffers::default();
    for origin in origins() {
        let mut fresh = Buffers::default();
        let head = message::read(&section, origin, &options, head_bytes, &mut fresh);
        let again = message::read(&section, origin, &options, head_bytes, &mut used);
        assert_eq!(format!("{head:?}"), format!("{again:?}"));
        if let Ok(head) = head {
            assert_eq!(fresh.path, used.path);
            assert!(fresh.path.len() < head_bytes);
            assert!(
                options.proxies.trusts(origin.host.ip())
                    || matches!(head.client, Client::Known(it) if it == origin)
            );
        }
    }
}

/// State of a stream after reading.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    bytes: Vec<u8>,
    skip: u64,
    settings: bool,
    ids: control::Ids,
}

/// Checks that the control stream and the QPACK streams give the same result in one piece as in
/// two, and that few bytes of them are kept.
pub fn http3_control(bytes: &[u8]) {
    type Reader = fn(&mut Read) -> Result<(), Code>;
    let readers: [Reader; 3] = [
        |read| {
            control::control(
                &mut read.bytes,
                &mut read.skip,
                &mut read.settings,
                &mut read.ids,
            )
        },
        |read| control::encoder(&mut read.bytes),
        |read| control::decoder(&mut read.bytes),
    ];
    for reader in readers {
        let read = |parts: &[&[u8]]| {
            let mut read = Read::default();
            for part in parts {
                read.bytes.extend_from_slice(part);
                reader(&mut read)?;
            }
            Ok::<_, Code>(read)
        };
        let whole = read(&[bytes]);
        for (part, rest) in cuts(bytes) {
            assert_eq!(read(&[part, rest]), whole);
        }
        if let Ok(read) = whole {
            // Type and length of a frame have at most 16 bytes.
            assert!(read.bytes.len() < control::FRAME_BYTES + 16);
        }
    }
}
