//! Tests of the page, without a browser. tests/page looks at it in one.

#![allow(clippy::print_stdout, reason = "a measurement says what it measured")]

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use scion_tracker_core::address::CompactAddr;
use scion_tracker_core::registry::{Accepts, PeerEntry, Registry as _, Scope, Selection};
use scion_tracker_core::request::Event;
use scion_tracker_core::response::{NoPeers, Reach};
use scion_tracker_core::select::Policy;
use scion_tracker_core::types::{InfoHash, PeerId, Rng, Time};

use super::view::Notice;
use super::*;
use crate::config::Config;
use crate::server::Server;

fn handle() -> Handle {
    Server::bind(Config::of_a_test()).unwrap().handle()
}

fn signed() -> Operator {
    Operator::Signed {
        token: "\"><script>alert(1)</script>".into(),
        write: true,
        notice: Some(Notice {
            is_error: false,
            text: "<b>text</b>".into(),
            facts: vec![("<i>".into(), "&".into())],
        }),
    }
}

#[test]
fn each_audience_sees_its_part() {
    let handle = handle();
    let show = |audience| compose::view(&handle, audience).render().unwrap();
    let everyone = show(Audience::Everyone);
    let visitor = show(Audience::Visitor(Operator::SignIn(None)));
    let operator = show(Audience::Visitor(signed()));
    for (text, shown) in [
        ("Where the peers are", [true, true, true]),
        ("Content-Security-Policy", [true, false, false]),
        ("stats.js", [false, true, false]),
        ("id=\"health\"", [false, true, true]),
        ("id=\"limits\"", [false, true, true]),
        ("id=\"hosts\"", [false, false, true]),
        ("id=\"torrents\"", [false, false, true]),
        ("Ban a host", [false, false, true]),
        ("type=\"password\"", [false, true, false]),
    ] {
        let is = [&everyone, &visitor, &operator].map(|page| page.contains(text));
        assert_eq!(is, shown, "{text}");
    }
}

#[test]
fn nothing_is_inline_and_all_text_is_escaped() {
    let handle = handle();
    let page = compose::view(&handle, Audience::Visitor(signed()));
    let page = page.render().unwrap();
    for inline in [
        "<script>",
        "<b>text",
        "style=",
        "<style",
        "onclick=",
        "javascript:",
    ] {
        assert!(!page.contains(inline), "{inline}");
    }
    // All resources are on the listener itself.
    for (at, _) in page.match_indices("http") {
        assert!(
            page[at..].starts_with("http://127.0.0.1:"),
            "{}",
            &page[at..at + 40]
        );
    }
    assert!(page.contains("&#60;b&#62;text"), "{page}");
}

/// Announces a peer in each of so many torrents, from many ASes and clients, and counts them.
fn fill(handle: &Handle, torrents: u32) {
    announce(handle, 0..torrents, || false);
    handle.take_census();
    let census = handle.census();
    assert_eq!(census.census.torrents, u64::from(torrents));
}

/// Announces the peers of these torrents until it is told to stop.
fn announce(handle: &Handle, torrents: impl Iterator<Item = u32>, stop: impl Fn() -> bool) {
    let registry = handle.registry();
    let policy = Policy::default();
    let selection = Selection {
        numwant: 0,
        policy: &policy,
        accepts: Accepts::NOBODY,
    };
    let mut rng = Rng::with_seed(1);
    for number in torrents {
        if stop() {
            break;
        }
        let mut info_hash = InfoHash([7; 20]);
        info_hash.0[..4].copy_from_slice(&number.to_be_bytes());
        let mut id = *b"-XX0000-000000000000";
        id[1] = b'A' + (number % 26) as u8;
        id[2] = b'A' + (number / 26 % 26) as u8;
        let ip = Ipv4Addr::from(0x0a00_0000 + number);
        let peer = PeerEntry {
            info_hash,
            ia: format!("{}-{}", 1 + number % 40, 1 + number % 5000)
                .parse()
                .unwrap(),
            addr: CompactAddr::new(ip.into(), 6881),
            id: PeerId(id),
            key: None,
            reach: Reach::Both,
            scope: Scope::Global,
            verified: false,
            seeder: number % 3 == 0,
            event: Event::Started,
        };
        let now = Time::from_secs(1);
        let added = registry.announce(&peer, &selection, now, &mut rng, &mut NoPeers);
        added.unwrap();
    }
}

/// The times to make so many pages for an operator, the shortest first. Checks their size.
fn times(handle: &Handle, pages: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..pages {
        let begun = Instant::now();
        let page = compose::view(handle, Audience::Visitor(signed()));
        let html = page.render().unwrap();
        times.push(begun.elapsed());
        assert!(
            html.contains("<h3>ISD 40 ") || html.contains("<h3>ISD 1 "),
            "{html}"
        );
        let whole = html.len() + STYLE.len() + SCRIPT.len() + ICON.len();
        assert!(whole < 50_000, "{whole} bytes");
    }
    times.sort();
    times
}

/// A build without optimization takes some ten times as long.
#[test]
fn the_page_of_a_large_tracker_is_small_and_fast() {
    let handle = handle();
    fill(&handle, 50_000);
    let usual = times(&handle, 9)[4];
    assert!(usual < Duration::from_millis(100), "{usual:?}");
}

/// While a thread announces as fast as it can. For
/// `cargo test --release --lib -- --ignored --nocapture million`.
#[test]
#[ignore = "says something only of an optimized build"]
fn the_page_takes_5_ms_with_a_million_torrents() {
    const TORRENTS: u32 = 1_000_000;
    let handle = handle();
    fill(&handle, TORRENTS);
    let stop = AtomicBool::new(false);
    let times = std::thread::scope(|scope| {
        scope.spawn(|| {
            let torrents = (0..TORRENTS).cycle();
            announce(&handle, torrents, || stop.load(Ordering::Relaxed));
        });
        let times = times(&handle, 1000);
        stop.store(true, Ordering::Relaxed);
        times
    });
    let (usual, most, worst) = (times[500], times[990], times[999]);
    println!("of 1000 pages, the usual: {usual:?}, 99 % up to {most:?}, the slowest: {worst:?}");
    assert!(usual < Duration::from_millis(5), "{usual:?}");
}
