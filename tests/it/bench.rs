//! The load generator against a running tracker: every transport, both loops, and refused
//! arguments.

use std::net::SocketAddr;
use std::process::{Command, Output};

use scion_tracker::Counter;
use scion_tracker::server::Kind;
use serde_json::Value;

use crate::common::{self, Running};

/// Runs the load generator until 50 replies are counted, which is soon even on a busy machine.
fn bench(url: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_scion-tracker"))
        .args(["bench", url, "--insecure", "--json"])
        .args([
            "--warmup=50ms",
            "--duration=30s",
            "--requests=50",
            "--timeout=30s",
            "--connections=4",
            "--peers=200",
            "--torrents=5",
        ])
        .args(args)
        .output()
        .unwrap()
}

/// A tracker with every transport, including SCION.
fn start() -> Running {
    let mut config = common::config();
    config.listen.scion = vec!["1-ff00:0:110,[127.0.0.1]:0".parse().unwrap()];
    // The load comes from a few addresses.
    config.registry.peers_per_source_in_torrent = u32::MAX;
    common::start(config)
}

/// The report of a successful run without failures.
fn report(url: &str, args: &[&str]) -> Value {
    let output = bench(url, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{url}: {stderr}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        report["failures"],
        serde_json::json!({}),
        "{url}: {report:#}"
    );
    report
}

fn check(url: &str, args: &[&str]) -> Value {
    let report = report(url, args);
    let replies = report["replies"].as_u64().unwrap();
    assert!(replies > 0, "{url}: {report:#}");
    let by_kind = report["by_kind"].as_object().unwrap();
    let sum: u64 = by_kind.values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(sum, replies);
    // Each torrent has 40 peers, and no peer receives itself.
    let peers = report["peers_per_announce"].as_f64().unwrap();
    assert!((1.0..=30.0).contains(&peers), "{url}: {report:#}");
    let latency = &report["latency_us"];
    let of = |name: &str| latency[name].as_f64().unwrap();
    assert!(
        0.0 < of("p50") && of("p50") <= of("p99") && of("p99") <= of("max"),
        "{latency}"
    );
    report
}

#[test]
fn every_transport_under_load() {
    let running = start();
    let over_scion: Vec<_> = running.scion_urls().collect();
    let [h3, udp] = &over_scion[..] else {
        panic!("{over_scion:?}");
    };
    for (url, transport, args) in [
        (running.url(Kind::Udp), "UDP", &["--in-flight=4"][..]),
        (running.url(Kind::Udp), "UDP", &["--ases=6", "--threads=2"]),
        (running.url(Kind::Http), "HTTP/1.1", &["--in-flight=3"]),
        (running.url(Kind::Http), "HTTP/1.1", &["--new-connections"]),
        (running.url(Kind::Https), "HTTP/1.1 with TLS", &["--ases=6"]),
        (
            running.url(Kind::Https),
            "HTTP/1.1 with TLS",
            &["--new-connections"],
        ),
        (
            running.url(Kind::Http3),
            "HTTP/3",
            &["--streams=3", "--threads=2"],
        ),
        (
            running.url(Kind::Http3),
            "HTTP/3",
            &["--new-connections", "--ases=6"],
        ),
        (h3.clone(), "HTTP/3 over SCION", &[]),
        (
            h3.clone(),
            "HTTP/3 over SCION",
            &["--ases=3", "--new-connections"],
        ),
        (udp.clone(), "UDP over SCION", &["--ases=3"]),
        (
            udp.clone(),
            "UDP over SCION",
            &["--scion-local=1-ff00:0:110,[127.0.0.9]"],
        ),
    ] {
        let args = [args, &["--fill", "--numwant=30"]].concat();
        let report = check(&url, &args);
        assert_eq!(report["transport"], transport);
        assert_eq!(
            (&report["unsent"], &report["unfilled"]),
            (&0.into(), &0.into())
        );
    }
    running.stop();
}

#[test]
fn counts_agree_with_those_of_the_tracker() {
    let running = start();
    let url = running.url(Kind::Udp);
    let pid = format!("--server-pid={}", std::process::id());
    let report = check(
        &url,
        &[
            "--mix=announce=80,scrape=20",
            "--requests=500",
            "--numwant=30",
            &pid,
        ],
    );
    let replies = report["replies"].as_u64().unwrap();
    assert!(replies >= 500);
    let counters = running.handle.stats().counters;
    let counted = counters.get(Counter::UdpAnnounces) + counters.get(Counter::UdpScrapes);
    assert!(counted >= replies, "{counted} {report:#}");
    assert_eq!(counters.get(Counter::UdpMalformed), 0);
    assert_eq!(counters.get(Counter::UdpBadConnectionId), 0);
    let kinds = &report["by_kind"];
    let scrapes = kinds["scrape"].as_f64().unwrap() / replies as f64;
    assert!((0.1..0.3).contains(&scrapes), "{kinds}");
    assert!(report["server"]["cpu_seconds"].as_f64().unwrap() >= 0.0);
    running.stop();
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let running = start();
    for kind in [Kind::Udp, Kind::Http, Kind::Http3] {
        // Slow enough for any machine. The tolerance is for a machine that stalls in between. A
        // closed loop would send thousands of requests.
        let args = [
            "--rate=50",
            "--duration=2s",
            "--requests=100000",
            "--numwant=30",
        ];
        let report = check(&running.url(kind), &args);
        let replies = report["replies"].as_u64().unwrap();
        assert!((20..=200).contains(&replies), "{kind:?}: {report:#}");
        assert_eq!(report["rate"], 50.0);
    }
    running.stop();
}

#[test]
fn failures_are_reported_by_kind() {
    let mut config = common::config();
    config.registry.peers_per_source = 10;
    let running = common::start(config);
    for kind in [Kind::Udp, Kind::Http, Kind::Http3] {
        let output = bench(&running.url(kind), &[]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let refused = report["failures"]["refused: too many peers from your address"].as_u64();
        assert!(refused > Some(0), "{kind:?}: {report:#}");
    }
    running.stop();
}

#[test]
fn no_reply_is_a_failure() {
    // A bound socket that never answers.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("udp://{}", silent.local_addr().unwrap());
    let output = bench(&url, &["--timeout=50ms", "--duration=1s"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["replies"], 0);
    assert!(
        report["failures"]["no reply in time"].as_u64() > Some(0),
        "{report:#}"
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("answered no request"), "{stderr}");
}

#[test]
fn wrong_usage_is_refused() {
    let far = SocketAddr::from(([192, 0, 2, 1], 6969));
    for (url, args, code, message) in [
        (format!("udp://{far}"), &[][..], 1, "--i-own-this-target"),
        (
            "udp://127.0.0.1:1".into(),
            &["--new-connections"],
            1,
            "UDP has no connections",
        ),
        (
            "udp://127.0.0.1:1".into(),
            &["--mix=connect=1"],
            2,
            "expected a mix such as",
        ),
        ("udp://127.0.0.1:1".into(), &["--rate=0"], 2, "a rate is"),
        (
            "udp://127.0.0.1:1".into(),
            &["--peers=1"],
            1,
            "1 peers are too few for",
        ),
        (
            "udp://127.0.0.1:1".into(),
            &["--sources=5"],
            1,
            "more than 4 connections",
        ),
        (
            "udp://127.0.0.1:1".into(),
            &["--server-pid=4294967295"],
            1,
            "process 4294967295",
        ),
        (
            "http://[1-1,127.0.0.1]:1".into(),
            &[],
            1,
            "http:// over SCION cannot be measured",
        ),
    ] {
        let output = bench(&url, args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(message), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}
