//! Live events.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use scion_tracker::server::Kind;
use serde_json::Value;

use super::{Tracker, announce_query, hex, request};

/// A reader of events.
struct Events(BufReader<UnixStream>);

impl Events {
    fn connect(tracker: &Tracker, query: &str) -> Self {
        let mut stream = tracker.unix();
        let request = request("GET", &format!("/api/v2/events?{query}"), &[], "");
        stream.write_all(request.as_bytes()).unwrap();
        let mut events = Self(BufReader::new(stream));
        // The comment shows that the reader is connected.
        while events.line() != ": connected" {}
        events
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(
            self.0.read_line(&mut line).unwrap(),
            0,
            "the stream has ended"
        );
        line.trim_end().to_owned()
    }

    /// The name and the data of the next event.
    fn next(&mut self) -> (String, Value) {
        loop {
            if let Some(name) = self.line().strip_prefix("event: ") {
                let name = name.to_owned();
                let line = self.line();
                let data = line.strip_prefix("data: ").unwrap();
                return (name, serde_json::from_str(data).unwrap());
            }
        }
    }
}

#[test]
fn events_tell_what_requests_changed() {
    let tracker = Tracker::start();
    tracker.ask("PUT", &format!("/api/v2/deny/{}", hex(9)));
    let mut events = Events::connect(&tracker, "");
    let mut refusals = Events::connect(&tracker, "kinds=refused,stopped");
    let mut of_two = Events::connect(&tracker, &format!("info_hash={}", hex(2)));
    tracker.announce(&announce_query(1, 6881, 1));
    let query = announce_query(1, 6881, 0).replace("started", "completed");
    tracker.announce(&query);
    tracker.announce(&announce_query(2, 6881, 1));
    let query = announce_query(1, 6881, 0).replace("started", "stopped");
    tracker.announce(&query);
    tracker.announce(&announce_query(9, 6881, 1));
    let (name, data) = events.next();
    assert_eq!(
        (name.as_str(), &data["change"]),
        ("announced", &"joined".into())
    );
    assert_eq!(data["address"], "127.0.0.1:6881");
    assert_eq!(data["info_hash"], hex(1));
    assert_eq!(data["client"], "qBittorrent");
    let (name, data) = events.next();
    assert_eq!(
        (name.as_str(), &data["completed"]),
        ("completed", &1.into())
    );
    assert_eq!(events.next().1["info_hash"], hex(2));
    let (name, data) = events.next();
    assert_eq!(
        (name.as_str(), &data["change"]),
        ("stopped", &"left".into())
    );
    let (name, data) = events.next();
    assert_eq!(
        (name.as_str(), &data["reason"]),
        ("refused", &"torrent_denied".into())
    );
    assert_eq!(data["host"], "127.0.0.1");
    assert_eq!(refusals.next().0, "stopped");
    assert_eq!(refusals.next().0, "refused");
    assert_eq!(of_two.next().1["info_hash"], hex(2));
}

#[test]
fn a_slow_reader_is_told_how_many_events_it_lost() {
    const ANNOUNCES: u64 = 20_000;
    let tracker = Tracker::start();
    let mut events = Events::connect(&tracker, "kinds=announced");
    let mut stream = TcpStream::connect(tracker.running.address(Kind::Http)).unwrap();
    let announce = format!(
        "GET /announce?{}&numwant=0 HTTP/1.1\r\nHost: t\r\n\r\n",
        announce_query(1, 6881, 1)
    );
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..ANNOUNCES / 100 {
        stream.write_all(announce.repeat(100).as_bytes()).unwrap();
        for _ in 0..100 {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                answers.read_line(&mut head).unwrap();
            }
            let head = head.to_lowercase();
            let length = head.split("content-length: ").nth(1).unwrap();
            let length = length.lines().next().unwrap().parse().unwrap();
            let mut body = vec![0; length];
            answers.read_exact(&mut body).unwrap();
        }
    }
    // The reader has read nothing yet. It gets the events that were kept, and the number of the others.
    let (mut got, mut lost) = (0, 0);
    while got + lost < ANNOUNCES {
        match events.next() {
            (name, data) if name == "lost" => lost += data["events"].as_u64().unwrap(),
            _ => got += 1,
        }
    }
    assert_eq!(got + lost, ANNOUNCES);
    assert!(lost > 0 && got >= 1024, "{got} {lost}");
    tracker.announce(&announce_query(1, 6881, 1));
    assert_eq!(events.next().0, "announced");
}

#[test]
fn readers_are_bounded_and_end_with_the_tracker() {
    let tracker = Tracker::start();
    let mut readers: Vec<_> = (0..8).map(|_| Events::connect(&tracker, "")).collect();
    assert_eq!(tracker.ask("GET", "/api/v2/events").status, 503);
    assert_eq!(tracker.ask("GET", "/api/v2/events?kinds=x").status, 400);
    // Connections are left for others.
    assert_eq!(tracker.ask("GET", "/api/v2/stats").status, 200);
    let Tracker { running, .. } = tracker;
    running.stop();
    for reader in &mut readers {
        let mut rest = String::new();
        let _ = reader.0.read_to_string(&mut rest);
    }
}

#[test]
fn the_place_of_a_reader_that_left_is_free_before_there_is_an_event() {
    let tracker = Tracker::start();
    let mut readers: Vec<_> = (0..8).map(|_| Events::connect(&tracker, "")).collect();
    assert_eq!(tracker.ask("GET", "/api/v2/events").status, 503);
    readers.pop();
    // Less than the time after which a comment is sent.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !tracker
        .ask("GET", "/metrics")
        .body
        .contains("\nscion_tracker_event_readers 7.0\n")
    {
        assert!(Instant::now() < deadline, "the place is not free");
        std::thread::sleep(Duration::from_millis(5));
    }
    readers.push(Events::connect(&tracker, ""));
}
