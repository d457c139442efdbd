//! Properties of the client's decoders that hold for any input. See [`crate::fuzz`].

use scion_tracker_core::codec::bep15::{parse_reply, peer_list};
use scion_tracker_core::codec::compact::Layout;

use super::udp::{read_announce, whole_entries};
use super::*;

pub use scion::fuzz::{daemon_messages, hosts_file, path_policy};

/// Checks that an accepted URL is the same when it is printed and read again, that the target of its
/// requests fits in a request line, and that redirects from it stay within the rules. The text behind
/// a line break is the `Location` of a redirect.
pub fn client_url(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (text, location) = text.split_once('\n').unwrap_or((text, "x"));
    let Ok(url) = text.parse::<TrackerUrl>() else {
        return;
    };
    check_url(&url);
    check_url(&url.announce());
    check_url(&url.scrape());
    check_url(&url.asking("a=b"));
    if let Ok(next) = redirected(&url, location) {
        check_url(&next);
        let encrypted = matches!(url.scheme(), Scheme::Https | Scheme::H3);
        assert!(!encrypted || next.scheme() != Scheme::Http);
        assert!(next.scheme() != Scheme::Udp || url.scheme() == Scheme::Udp);
        assert!(next.scheme() != Scheme::H3 || url.scheme() == Scheme::H3);
    }
}

fn check_url(url: &TrackerUrl) {
    assert_eq!(url.to_string().parse().as_ref(), Ok(url));
    assert_ne!(url.port(), 0);
    let target = url.target();
    assert!(target.starts_with('/') && target.bytes().all(|b| b.is_ascii_graphic()));
}

/// Checks replies over UDP, in each layout: the whole entries of an announce reply are always read.
pub fn client_udp_reply(bytes: &[u8]) {
    for layout in [Layout::Ip4, Layout::Ip6, Layout::Scion4, Layout::Scion6] {
        let whole = whole_entries(bytes, layout);
        assert!(bytes.starts_with(whole) && bytes.len() - whole.len() < Layout::Scion46.size());
        let reply = parse_reply(whole, layout);
        let is_announce = bytes.starts_with(&[0, 0, 0, 1]) && bytes.len() >= 20;
        assert!(!is_announce || reply.is_ok());
        let Ok(reply) = reply else { continue };
        if let Ok(answer) = read_announce(reply) {
            let (layout, list) = peer_list(&whole[20..], layout);
            let peers = answer.peers.len() + answer.unreadable;
            assert_eq!(peers * layout.size(), list.len());
            assert!(answer.peers.iter().all(|it| layout.reaches(&it.endpoint)));
        }
    }
}

/// Checks replies over HTTP: status (2 bytes), and for each line a header, then the body behind an
/// empty line.
pub fn client_http_reply(bytes: &[u8]) {
    let Some((status, mut rest)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let Ok(status) = ::http::StatusCode::from_u16(u16::from_be_bytes(*status) % 600) else {
        return;
    };
    let mut headers = ::http::HeaderMap::new();
    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            break;
        };
        let name = ::http::HeaderName::from_bytes(&line[..colon]);
        let value = ::http::HeaderValue::from_bytes(&line[colon + 1..]);
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.insert(name, value);
        }
    }
    let reply = HttpReply {
        status,
        headers,
        body: Bytes::copy_from_slice(rest),
    };
    assert!(reply.location().is_none() || status.is_redirection());
    let Ok(body) = reply.into_body() else { return };
    assert_eq!(status, 200);
    if let Ok(answer) = parse_announce_reply(&body) {
        assert!(answer.peers.iter().all(|it| it.endpoint.addr.port() != 0));
    }
    let _ = parse_scrape_reply(&body);
}
