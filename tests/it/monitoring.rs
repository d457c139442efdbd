//! Tests what the admin listener says to monitoring: /metrics, /stats.json, /health/live and /health/ready.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use scion_tracker::server::Kind;
use serde_json::{Value, json};

use crate::common::{Running, config, start};

/// Announces so many that some are measured, whichever threads answer them.
const ANNOUNCES: usize = 300;
const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0";

/// Starts a tracker with an admin listener.
fn tracker() -> Running {
    let mut config = config();
    config.admin.socket = false;
    config.listen.admin = vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()];
    start(config)
}

/// Status, head and body of a reply.
fn get(address: SocketAddr, path: &str, headers: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let host = match headers.contains("Host:") {
        true => String::new(),
        false => format!("Host: {address}\r\n"),
    };
    write!(
        stream,
        "GET {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n"
    )
    .unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    // Announces are answered in bytes.
    let reply = String::from_utf8_lossy(&reply).into_owned();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

/// Announces a peer in this AS.
fn announce(tracker: &Running, number: usize, ia: &str) {
    let port = 1000 + number % 20;
    let path = format!(
        "/announce?info_hash=AAAAAAAAAAAAAAAAAAAA&peer_id=-qB4650-{number:012}&port={port}&left={}&ia={ia}",
        number % 2
    );
    assert_eq!(get(tracker.address(Kind::Http), &path, "").0, 200);
}

/// The value of a sample.
fn sample(metrics: &str, sample: &str) -> f64 {
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    let value = value.unwrap_or_else(|| panic!("no {sample} in {metrics}"));
    value.parse().unwrap()
}

#[test]
fn metrics_say_what_was_served_and_where_peers_are() {
    let tracker = tracker();
    let admin = tracker.address(Kind::Admin);
    for number in 0..ANNOUNCES {
        announce(&tracker, number, "1-ff00:0:110");
    }
    announce(&tracker, 999, "1-ff00:0:111");
    // A failure, and a request that no client sends.
    assert_eq!(get(tracker.address(Kind::Http), "/announce", "").0, 200);
    assert_eq!(get(tracker.address(Kind::Http), "/nothing", "").0, 404);

    let deadline = Instant::now() + Duration::from_secs(60);
    let metrics = loop {
        let (status, head, metrics) = get(admin, "/metrics", "");
        assert_eq!(status, 200);
        assert!(
            head.contains("content-type: text/plain; version=0.0.4"),
            "{head}"
        );
        if metrics.contains("{isd_as=\"1-ff00:0:111\"} 1") {
            break metrics;
        }
        assert!(Instant::now() < deadline, "no census: {metrics}");
        thread::sleep(Duration::from_millis(50));
    };
    let value = |name: &str| sample(&metrics, &format!("scion_tracker_{name}"));
    let http = |outcome: &str, family: &str| {
        value(&format!(
            "requests_total{{transport=\"http\",outcome=\"{outcome}\",family=\"{family}\"}}"
        ))
    };
    assert_eq!(http("announce", "ipv4"), ANNOUNCES as f64 + 1.0);
    assert_eq!(http("announce", "ipv6"), 0.0);
    assert_eq!(http("failure", "ipv4"), 1.0);
    let rejected = "rejected_requests_total{transport=\"http\",family=\"ipv4\"}";
    assert_eq!(value(rejected), 1.0);
    let opened = "connections_total{transport=\"tcp\",family=\"ipv4\"}";
    assert_eq!(value(opened), ANNOUNCES as f64 + 3.0);
    assert_eq!(value("torrents"), 1.0);
    assert_eq!(value("peers_by_isd{isd=\"1\"}"), 21.0);
    assert_eq!(value("peers_by_as{isd_as=\"none\"}"), 0.0);
    assert_eq!(value("peers_by_family{family=\"ipv4\"}"), 21.0);
    assert_eq!(value("peers_by_client{client=\"qBittorrent\"}"), 21.0);
    assert!(value("sampled_peers_handed_out_total{proximity=\"same_as\"}") > 0.0);
    assert_eq!(
        value("sampled_peers_handed_out_total{proximity=\"other_isd\"}"),
        0.0
    );
    assert!(value("answer_duration_seconds_count{transport=\"http\"}") > 0.0);
    assert_eq!(
        value("answer_duration_seconds_count{transport=\"udp\"}"),
        0.0
    );
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("certificate_expiry_timestamp_seconds") > 1.7e9);
    let udp = tracker.address(Kind::Udp);
    let buffer = format!("receive_buffer_bytes{{listener=\"udp {udp}\"}}");
    assert!(value(&buffer) > 1000.0);

    let (_, head, metrics) = get(admin, "/metrics", &format!("Accept: {OPEN_METRICS}\r\n"));
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"));
    assert!(metrics.ends_with("# EOF\n"));
}

#[test]
fn statistics_have_the_names_of_bittorrent_tracker() {
    let tracker = tracker();
    let admin = tracker.address(Kind::Admin);
    for number in 0..3 {
        announce(&tracker, number, "1-ff00:0:110");
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    let stats: Value = loop {
        let (status, head, body) = get(admin, "/stats.json", "");
        assert_eq!(status, 200, "{body}");
        assert!(head.contains("access-control-allow-origin: *"), "{head}");
        let stats: Value = serde_json::from_str(&body).unwrap();
        if stats["peersAll"] == 3 {
            break stats;
        }
        assert!(Instant::now() < deadline, "no census: {stats}");
        thread::sleep(Duration::from_millis(50));
    };
    for (name, expected) in [
        ("torrents", json!(1)),
        ("activeTorrents", json!(1)),
        ("peersSeederOnly", json!(2)),
        ("peersLeecherOnly", json!(1)),
        ("peersSeederAndLeecher", json!(0)),
        ("peersIPv4", json!(3)),
        ("peersIPv6", json!(0)),
        ("clients", json!({"qBittorrent": {"4.6.5.0": 3}})),
    ] {
        assert_eq!(stats[name], expected, "{name} in {stats}");
    }
    let own = &stats["scionTracker"];
    assert_eq!(own["peersByIsd"], json!({"1": 3}), "{own}");
    assert_eq!(own["peersByAs"], json!({"1-ff00:0:110": 3}), "{own}");
    assert_eq!(own["requests"]["http_announces"], 3, "{own}");
    assert_eq!(own["requestsByFamily"]["ipv4"], 3, "{own}");
}

#[test]
fn a_tracker_that_serves_is_live_and_ready() {
    let tracker = tracker();
    let admin = tracker.address(Kind::Admin);
    assert_eq!(get(admin, "/health/live", "").0, 200);
    // Whatever the name of the host, as supervisors ask.
    let (status, _, body) = get(admin, "/health/ready", "Host: tracker.example\r\n");
    let ready: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &ready["status"]),
        (200, &json!("ready")),
        "{ready}"
    );
    let names = ready["checks"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|check| check["name"].as_str().unwrap()).collect();
    for kind in [Kind::Udp, Kind::Http, Kind::Https, Kind::Http3, Kind::Admin] {
        let name = format!("{kind} {}", tracker.address(kind));
        assert!(names.contains(&name.as_str()), "{name} in {names:?}");
    }
    // Statistics are not for pages of other hosts that point their name here.
    let foreign = "Host: tracker.example\r\n";
    assert_eq!(get(admin, "/metrics", foreign).0, 403);
    assert_eq!(get(admin, "/stats.json", foreign).0, 403);
}
