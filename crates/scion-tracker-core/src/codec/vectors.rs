//! Parses the recorded requests of real clients in `tests/vectors`.

use std::path::{Path, PathBuf};

use crate::codec::bep15::{self, Request};
use crate::codec::query;
use crate::request::{AnnounceRequest, Claim, Event};

/// Name and contents of each file of a kind. There must be at least `least`.
#[expect(clippy::disallowed_methods, reason = "test data is stored in files")]
fn vectors(kind: &str, extension: &str, least: usize) -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors")
        .join(kind);
    let files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    assert!(files.len() >= least, "{} vectors in {dir:?}", files.len());
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    files
        .iter()
        .map(|path| (name(path), std::fs::read_to_string(path).unwrap()))
        .collect()
}

/// Checks that hold for every recorded announce.
fn check_announce(name: &str, announce: &AnnounceRequest, event: Event) {
    assert_eq!(announce.event, event, "{name}");
    assert_eq!(announce.port, 6881, "{name}");
    assert_eq!(announce.claim, Claim::default(), "{name}");
    let ipv6 = announce.named_ip.is_some_and(|ip| ip.is_ipv6());
    assert_eq!(ipv6, name.ends_with("-ipv6"), "{name}");
    if name.starts_with("webtorrent") && event == Event::Stopped {
        // webtorrent sends another `left` when it stops.
        return;
    }
    assert_eq!(announce.left + announce.downloaded, 1_052_897, "{name}");
    assert_eq!(announce.left == 0, event != Event::Started, "{name}");
}

#[test]
fn http() {
    for (name, head) in vectors("http", "txt", 15) {
        let target = head.split(' ').nth(1).unwrap();
        let (path, query) = target.split_once('?').unwrap();
        let event = name.split('-').nth(1).unwrap();
        if event == "scrape" {
            assert_eq!(path, "/scrape", "{name}");
            assert_eq!(
                query::parse_scrape(query, 100).unwrap().hashes.len(),
                1,
                "{name}"
            );
            continue;
        }
        let event = match event {
            "started" => Event::Started,
            "completed" => Event::Completed,
            "stopped" => Event::Stopped,
            other => panic!("{name}: {other}"),
        };
        assert_eq!(path, "/announce", "{name}");
        let read = query::parse_announce(query).unwrap();
        assert_eq!(read.compact, Some(true), "{name}");
        check_announce(&name, &read.announce, event);

        let mut written = String::new();
        query::write_announce(&read, &mut written);
        assert_eq!(query::parse_announce(&written), Ok(read), "{name}");
    }
}

#[test]
fn udp() {
    for (name, lines) in vectors("udp", "hex", 11) {
        let what = name.split('-').nth(1).unwrap();
        for (i, line) in lines.lines().enumerate() {
            let datagram: Vec<u8> = (0..line.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap())
                .collect();
            match (what, bep15::parse(&datagram, 74).unwrap()) {
                ("connect", Request::Connect { .. }) => {}
                ("scrape", Request::Scrape { hashes, .. }) => assert_eq!(hashes.len(), 1),
                ("announce", Request::Announce { announce, url, .. }) => {
                    let event = [Event::Started, Event::Completed, Event::Stopped][i];
                    check_announce(&name, &announce.unwrap(), event);
                    let mut buffer = bep15::UrlBuffer::new();
                    let path = url.read(&mut buffer).unwrap().path;
                    let expected = ["", "/announce"][usize::from(name.starts_with("libtorrent"))];
                    assert_eq!(path, expected, "{name}");
                }
                (_, other) => panic!("{name}: {other:?}"),
            }
        }
    }
}
