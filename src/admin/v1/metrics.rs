//! `/api/v1/metrics`: the same numbers as `stats`, with labels, under the names and in the shapes of torrust 4.

use std::fmt::Write as _;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::stats::{Format, Stats, StatsQuery};
use crate::admin::{self, unix_time};

/// All metrics.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TorrustMetrics)]
pub(in crate::admin) struct Metrics {
    /// Each with its samples.
    metrics: Vec<Metric>,
}

/// A metric.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TorrustMetric)]
struct Metric {
    /// Whether it can fall.
    #[serde(rename = "type")]
    kind: Kind,
    /// Its name.
    name: &'static str,
    /// What it counts in: "count" or "nanoseconds".
    unit: &'static str,
    /// What it is.
    description: &'static str,
    /// One value for each set of labels.
    samples: Vec<Sample>,
}

/// Whether a metric can fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = TorrustMetricKind)]
enum Kind {
    /// It only grows.
    Counter,
    /// It can fall.
    Gauge,
}

/// A value.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TorrustSample)]
struct Sample {
    /// A whole number for a counter.
    #[schema(value_type = f64, minimum = 0)]
    value: Number,
    /// When it was read.
    recorded_at: String,
    /// What it is the value of.
    labels: Vec<Label>,
}

/// A value, as torrust writes it: gauges with a decimal point.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Number {
    /// Of a counter.
    Whole(u64),
    /// Of a gauge.
    Decimal(f64),
}

/// A label.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TorrustLabel)]
struct Label {
    /// Its name.
    name: &'static str,
    /// Its value.
    value: &'static str,
}

const FAMILY: &str = "client_address_ip_family";
const REQUEST: &str = "request_kind";
const RESULT: &str = "result";
const ROLE: &str = "peer_role";

impl Metrics {
    fn new(stats: &Stats, unix: u64) -> Self {
        // 2025-04-02T00:00:00+00:00.
        let recorded_at = unix_time::text(unix)
            .replacen(' ', "T", 1)
            .replace(" UTC", "+00:00");
        let metric = |kind,
                      name: &'static str,
                      description,
                      samples: &[(&[(&'static str, &'static str)], u64)]| {
            let sample = |(labels, value): &(&[(&'static str, &'static str)], u64)| Sample {
                value: match kind {
                    Kind::Counter => Number::Whole(*value),
                    Kind::Gauge => Number::Decimal(*value as f64),
                },
                recorded_at: recorded_at.clone(),
                labels: labels
                    .iter()
                    .map(|&(name, value)| Label { name, value })
                    .collect(),
            };
            Metric {
                kind,
                name,
                unit: match name.ends_with("_ns") {
                    true => "nanoseconds",
                    false => "count",
                },
                description,
                samples: samples.iter().map(sample).collect(),
            }
        };
        let (v4, v6) = ((FAMILY, "inet"), (FAMILY, "inet6"));
        let connect = (REQUEST, "connect");
        let (announce, scrape) = ((REQUEST, "announce"), (REQUEST, "scrape"));
        let (ok, error) = ((RESULT, "ok"), (RESULT, "error"));
        let answered4 = stats.udp4_connections_handled
            + stats.udp4_announces_handled
            + stats.udp4_scrapes_handled;
        let answered6 = stats.udp6_connections_handled
            + stats.udp6_announces_handled
            + stats.udp6_scrapes_handled;
        Self {
            metrics: vec![
                metric(
                    Kind::Counter,
                    "http_tracker_core_requests_received_total",
                    "Announces and scrapes over HTTP/1.1, HTTP/2 and HTTP/3 since the start.",
                    &[
                        (&[v4, announce], stats.tcp4_announces_handled),
                        (&[v4, scrape], stats.tcp4_scrapes_handled),
                        (&[v6, announce], stats.tcp6_announces_handled),
                        (&[v6, scrape], stats.tcp6_scrapes_handled),
                    ],
                ),
                metric(
                    Kind::Counter,
                    "swarm_coordination_registry_torrents_downloads_total",
                    "Downloads that were completed since the start.",
                    &[(&[], stats.completed)],
                ),
                metric(
                    Kind::Counter,
                    "udp_tracker_core_requests_received_total",
                    "Requests over UDP since the start.",
                    &[
                        (&[v4, connect], stats.udp4_connections_handled),
                        (&[v4, announce], stats.udp4_announces_handled),
                        (&[v4, scrape], stats.udp4_scrapes_handled),
                        (&[v6, connect], stats.udp6_connections_handled),
                        (&[v6, announce], stats.udp6_announces_handled),
                        (&[v6, scrape], stats.udp6_scrapes_handled),
                    ],
                ),
                metric(
                    Kind::Counter,
                    "udp_tracker_server_errors_total",
                    "Datagrams over UDP that were refused, no request, or had a wrong connection id.",
                    &[
                        (&[v4], stats.udp4_errors_handled),
                        (&[v6], stats.udp6_errors_handled),
                    ],
                ),
                metric(
                    Kind::Counter,
                    "udp_tracker_server_requests_aborted_total",
                    "Requests over UDP whose reply the socket would not take, also over SCION.",
                    &[(&[], stats.udp_requests_aborted)],
                ),
                metric(
                    Kind::Counter,
                    "udp_tracker_server_requests_banned_total",
                    "Requests over UDP that were refused because their host is banned.",
                    &[(&[], stats.udp_requests_banned)],
                ),
                metric(
                    Kind::Counter,
                    "udp_tracker_server_requests_received_total",
                    "Datagrams over UDP since the start.",
                    &[(&[v4], stats.udp4_requests), (&[v6], stats.udp6_requests)],
                ),
                metric(
                    Kind::Counter,
                    "udp_tracker_server_responses_sent_total",
                    "Replies over UDP since the start.",
                    &[
                        (&[v4, ok], answered4),
                        (&[v4, error], stats.udp4_responses.saturating_sub(answered4)),
                        (&[v6, ok], answered6),
                        (&[v6, error], stats.udp6_responses.saturating_sub(answered6)),
                    ],
                ),
                metric(
                    Kind::Gauge,
                    "swarm_coordination_registry_peer_connections_total",
                    "Peers.",
                    &[
                        (&[(ROLE, "leecher")], stats.leechers),
                        (&[(ROLE, "seeder")], stats.seeders),
                    ],
                ),
                metric(
                    Kind::Gauge,
                    "swarm_coordination_registry_torrents_total",
                    "Torrents with peers.",
                    &[(&[], stats.torrents)],
                ),
                metric(
                    Kind::Gauge,
                    "udp_tracker_server_ips_banned_total",
                    "Hosts and networks that are banned now, over any transport.",
                    &[(&[], stats.udp_banned_ips_total)],
                ),
                metric(
                    Kind::Gauge,
                    "udp_tracker_server_performance_avg_processing_time_ns",
                    "Mean time of the answers over UDP, of one answer in 61. 0: none was measured.",
                    &[
                        (&[connect], stats.udp_avg_connect_processing_time_ns),
                        (&[announce], stats.udp_avg_announce_processing_time_ns),
                        (&[scrape], stats.udp_avg_scrape_processing_time_ns),
                    ],
                ),
            ],
        }
    }

    /// The text format of Prometheus.
    fn lines(&self) -> String {
        let mut lines = String::new();
        for metric in &self.metrics {
            let (name, description) = (metric.name, metric.description);
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            // Writing into a string does not fail.
            let _ = writeln!(lines, "# HELP {name} {description}\n# TYPE {name} {kind}");
            for sample in &metric.samples {
                let labels = sample.labels.iter();
                let labels: Vec<_> = labels
                    .map(|Label { name, value }| format!("{name}=\"{value}\""))
                    .collect();
                let labels = match labels.is_empty() {
                    true => String::new(),
                    false => format!("{{{}}}", labels.join(",")),
                };
                let _ = match sample.value {
                    Number::Whole(value) => writeln!(lines, "{name}{labels} {value}"),
                    Number::Decimal(value) => writeln!(lines, "{name}{labels} {value}"),
                };
            }
        }
        lines
    }
}

/// What the tracker holds and has done, with labels.
#[utoipa::path(
    get,
    path = "/api/v1/metrics",
    tag = "torrust",
    params(StatsQuery),
    responses(
        (status = 200, description = "The metrics.", content(
            (Metrics = "application/json"),
            (String = "text/plain"),
        )),
        (status = 400, description = "The format is wrong.", body = String, content_type = "text/plain"),
    )
)]
pub(in crate::admin) async fn metrics(
    State(state): State<admin::State>,
    Query(query): Query<StatsQuery>,
) -> Response {
    let metrics = Metrics::new(&Stats::now(&state), unix_time::now());
    match query.format {
        None | Some(Format::Json) => Json(metrics).into_response(),
        Some(Format::Prometheus) => metrics.lines().into_response(),
    }
}
