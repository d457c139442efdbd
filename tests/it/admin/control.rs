//! Reload and drain.

use std::fs;
use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use scion_tracker::server::Kind;
use serde_json::json;

use super::{Tracker, announce_query};
use crate::common;

#[test]
fn a_program_without_a_reload_function_says_so() {
    let tracker = Tracker::start();
    let reply = tracker.ask("POST", "/api/v2/reload");
    assert_eq!(reply.status, 501, "{reply:?}");
    // The lists in files do not need it.
    assert_eq!(tracker.ask("GET", "/api/v1/whitelist/reload").status, 200);
}

#[test]
fn the_lists_in_files_are_read_again() {
    let list = tempfile::NamedTempFile::new().unwrap();
    let tracker = Tracker::start_with(|config| config.access.allow = Some(list.path().into()));
    fs::write(list.path(), super::hex(1)).unwrap();
    assert_eq!(tracker.ask("GET", "/api/v1/whitelist/reload").status, 200);
    let stats = || tracker.ask("GET", "/api/v2/stats").json();
    assert_eq!(stats()["allowed"], 1);
    let from_file = format!("/api/v2/allow/{}", super::hex(1));
    let reply = tracker.ask("DELETE", &from_file);
    assert_eq!(reply.status, 409, "{reply:?}");
    fs::write(list.path(), "XX").unwrap();
    let reply = tracker.ask("GET", "/api/v1/whitelist/reload");
    assert_eq!(reply.status, 500, "{reply:?}");
    assert_eq!(stats()["allowed"], 1);
}

/// Sends one announce over a kept connection. Returns the answer, and whether the connection stays open.
fn announce(stream: &mut TcpStream) -> (String, bool) {
    let request = format!(
        "GET /announce?{} HTTP/1.1\r\nHost: t\r\n\r\n",
        announce_query(1, 6881, 1)
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer[..read]).into_owned();
    let closes = text.to_lowercase().contains("connection: close");
    (text, !closes)
}

#[test]
fn a_tracker_that_drains_sends_its_clients_away_and_stops() {
    let tracker = Tracker::start();
    let http = tracker.running.address(Kind::Http);
    let mut kept = TcpStream::connect(http).unwrap();
    assert!(announce(&mut kept).1);
    let off = json!({ "draining": false, "seconds_left": null });
    assert_eq!(tracker.ask("GET", "/api/v2/drain").json(), off);
    let drained = tracker.send("POST", "/api/v2/drain", &json!({}));
    let on = json!({ "draining": true, "seconds_left": null });
    assert_eq!(drained.json(), on);
    let health = tracker.ask("GET", "/api/health_check");
    assert_eq!(
        (health.status, &*health.body),
        (503, r#"{"status":"Draining"}"#)
    );
    // Requests are served, and connections end after their reply.
    let (answer, stays) = announce(&mut kept);
    assert!(answer.contains("8:interval") && !stays, "{answer}");
    let mut rest = Vec::new();
    kept.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    let mut new = TcpStream::connect(http).unwrap();
    assert!(!announce(&mut new).1);
    assert_eq!(tracker.ask("DELETE", "/api/v2/drain").json(), off);
    assert_eq!(tracker.ask("GET", "/api/health_check").status, 200);
    assert!(announce(&mut TcpStream::connect(http).unwrap()).1);
    // Without a body the defaults hold.
    let drained = tracker.ask("POST", "/api/v2/drain");
    assert_eq!((drained.status, drained.json()), (200, on));
    assert_eq!(tracker.ask("DELETE", "/api/v2/drain").json(), off);
    let wrong = tracker.send("POST", "/api/v2/drain", &json!({ "seconds": 86_401 }));
    assert_eq!(wrong.status, 400);

    let started = Instant::now();
    tracker.send("POST", "/api/v2/drain", &json!({ "seconds": 1 }));
    // The server ends by itself, which the runner waits for.
    let mut socket = BufReader::new(tracker.unix());
    let mut end = Vec::new();
    let _ = socket.read_to_end(&mut end);
    assert!(started.elapsed() >= Duration::from_millis(900));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_http_2_and_3_end_after_their_reply() {
    use scion_tracker::client::{Client, Options, Trust};

    let running = common::start(common::config());
    running.handle.drain(None);
    let mut options = Options::default();
    options.trust = Trust::Anyone;
    let client = Client::new(&options).unwrap();
    for kind in [Kind::Https, Kind::Http3, Kind::Udp] {
        for _ in 0..2 {
            let url = running.url(kind).parse().unwrap();
            let query = crate::client::announce(1, 7000, Default::default());
            client.announce(&url, &query).await.unwrap();
        }
    }
    assert!(running.handle.draining().is_some());
    assert!(running.handle.end_drain());
    assert!(!running.handle.end_drain());
}
