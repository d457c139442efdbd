//! What /metrics renders, and that docs/monitoring.md describes it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use scion_tracker_core::response::Refusal;

use super::text::Format;
use super::*;
use crate::config::Config;
use crate::counters::{Counter, Network};
use crate::samples::Transport;
use crate::server::Server;
use crate::server::vitals::{Limited, Process};
use crate::snapshot::{LoadReport, SnapshotReport};

const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/monitoring.md"));

/// The state of a server with all that can be in it.
fn vitals() -> Vitals {
    let mut vitals = Server::bind(Config::of_a_test()).unwrap().handle().vitals();
    vitals.certificate_expires = Some(SystemTime::UNIX_EPOCH);
    vitals.records.last_write = Some(Duration::ZERO);
    let now = SystemTime::UNIX_EPOCH;
    vitals.snapshots.last = Some(SnapshotReport::of_a_test(now));
    vitals.snapshots.loaded = Some(LoadReport {
        written: now,
        duration: Duration::ZERO,
        torrents: 1,
        peers: 1,
        expired: 0,
        left_out: 0,
    });
    vitals.snapshot_interval = Some(Duration::from_secs(300));
    vitals.process = Some(Process {
        resident: 1,
        open_files: Some(Limited { now: 1, limit: 2 }),
    });
    vitals
}

/// Names and types in the Prometheus format.
fn types(text: &str) -> BTreeMap<&str, &str> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(|it| it.split_once(' ').unwrap()).collect()
}

#[test]
fn the_page_describes_every_metric_and_no_other() {
    let text = render(vitals(), Format::Prometheus).unwrap();
    let rendered: Vec<_> = types(&text).into_iter().collect();
    let rows = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("| `scion_tracker_"));
    let mut described: Vec<_> = rows
        .map(|row| {
            let mut cells = row.split(" | ");
            let name = cells.next().unwrap().trim_end_matches('`');
            (name, cells.next().unwrap())
        })
        .collect();
    described.sort_unstable();
    let rendered: Vec<_> = rendered
        .into_iter()
        .map(|(name, kind)| (name.strip_prefix("scion_tracker_").unwrap(), kind))
        .collect();
    assert_eq!(described, rendered, "docs/monitoring.md and /metrics");
}

#[test]
fn a_sample_belongs_to_the_type_before_it() {
    let text = render(vitals(), Format::Prometheus).unwrap();
    let mut current = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            current = rest.split_once(' ').unwrap().0;
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let suffix = name.strip_prefix(current);
            assert!(
                matches!(suffix, Some("" | "_bucket" | "_sum" | "_count")),
                "{line} after {current}"
            );
        }
    }
    let mut refused = vitals();
    let (refusal, transport) = (Refusal::RateLimit, Transport::Http3);
    refused.counters.refuse(refusal, transport, Network::Scion);
    let text = render(refused, Format::Prometheus).unwrap();
    let row = "scion_tracker_refusals_total{transport=\"http3\",family=\"scion\",reason=\"rate_limit\"} 1\n";
    assert!(text.contains(row), "{text}");
    let open_metrics = render(vitals(), Format::OpenMetrics).unwrap();
    assert!(open_metrics.ends_with("# EOF\n"));
    assert!(open_metrics.contains("\nscion_tracker_requests_total{"));
}

#[test]
fn connections_and_dropped_datagrams_have_a_family() {
    let mut vitals = vitals();
    for counter in [
        Counter::QuicConnections,
        Counter::TcpRefused,
        Counter::UdpMalformed,
    ] {
        vitals.counters.count_over(counter, Network::V4);
        vitals.counters.count_over(counter, Network::V6);
        vitals.counters.count_over(counter, Network::V6);
    }
    let text = render(vitals, Format::Prometheus).unwrap();
    for row in [
        "connections_total{transport=\"quic\",family=\"ipv4\"} 1\n",
        "connections_total{transport=\"quic\",family=\"ipv6\"} 2\n",
        "refused_connections_total{transport=\"tcp\",reason=\"limit\",family=\"ipv6\"} 2\n",
        "dropped_datagrams_total{transport=\"udp\",reason=\"malformed\",family=\"ipv6\"} 2\n",
    ] {
        assert!(
            text.contains(&format!("scion_tracker_{row}")),
            "{row}{text}"
        );
    }
}
