//! Numbers in the shape of torrust's API.

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use scion_tracker_core::response::Refusal;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::admin;
use crate::counters::{Counter, Network};
use crate::samples::{Transport, UdpRequest};

/// How numbers are written.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::admin) enum Format {
    /// An object.
    Json,
    /// Lines of `NAME VALUE`.
    Prometheus,
}

/// The query of `stats`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::admin) struct StatsQuery {
    /// How the numbers are written: as JSON, if it is left out.
    #[param(inline)]
    pub(super) format: Option<Format>,
}

macro_rules! stats {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What the tracker holds, and what it has done since its start. Requests over SCION are in none of
        /// these numbers: see `/metrics`.
        #[derive(Debug, Serialize, ToSchema)]
        #[schema(as = TorrustStats)]
        pub(in crate::admin) struct Stats {
            $($(#[doc = $doc])+ pub(super) $name: u64,)+
        }

        impl Stats {
            fn lines(&self) -> String {
                let mut lines = String::new();
                $(
                    lines += concat!(stringify!($name), " ");
                    lines += &self.$name.to_string();
                    lines.push('\n');
                )+
                lines
            }
        }
    };
}
stats! {
    /// Torrents with peers.
    torrents,
    /// Peers that have everything.
    seeders,
    /// Downloads that were completed since the start.
    completed,
    /// All other peers.
    leechers,
    /// Requests over TCP and QUIC from IPv4: torrust counts a connection per request.
    tcp4_connections_handled,
    /// Announces over HTTP/1.1, HTTP/2 and HTTP/3 from IPv4.
    tcp4_announces_handled,
    /// Scrapes over HTTP/1.1, HTTP/2 and HTTP/3 from IPv4.
    tcp4_scrapes_handled,
    /// Requests over TCP and QUIC from IPv6.
    tcp6_connections_handled,
    /// Announces over HTTP/1.1, HTTP/2 and HTTP/3 from IPv6.
    tcp6_announces_handled,
    /// Scrapes over HTTP/1.1, HTTP/2 and HTTP/3 from IPv6.
    tcp6_scrapes_handled,
    /// Requests over UDP whose reply the socket would not take, also over SCION.
    udp_requests_aborted,
    /// Requests over UDP that were refused because their host or network is banned.
    udp_requests_banned,
    /// Hosts and networks that are banned now, over any transport.
    udp_banned_ips_total,
    /// Mean time of the answers to connect requests over UDP, in nanoseconds, of one answer in 61. 0: none was
    /// measured.
    udp_avg_connect_processing_time_ns,
    /// Mean time of the answers to announces over UDP, in the same way.
    udp_avg_announce_processing_time_ns,
    /// Mean time of the answers to scrapes over UDP, in the same way.
    udp_avg_scrape_processing_time_ns,
    /// Datagrams over UDP from IPv4.
    udp4_requests,
    /// Connect requests over UDP from IPv4.
    udp4_connections_handled,
    /// Announces over UDP from IPv4.
    udp4_announces_handled,
    /// Scrapes over UDP from IPv4.
    udp4_scrapes_handled,
    /// Replies over UDP to IPv4, also errors.
    udp4_responses,
    /// Datagrams over UDP from IPv4 that were refused, no request of BEP 15, or had a wrong connection id.
    udp4_errors_handled,
    /// Datagrams over UDP from IPv6.
    udp6_requests,
    /// Connect requests over UDP from IPv6.
    udp6_connections_handled,
    /// Announces over UDP from IPv6.
    udp6_announces_handled,
    /// Scrapes over UDP from IPv6.
    udp6_scrapes_handled,
    /// Replies over UDP to IPv6, also errors.
    udp6_responses,
    /// Datagrams over UDP from IPv6 that were refused, no request of BEP 15, or had a wrong connection id.
    udp6_errors_handled,
}

impl Stats {
    /// The numbers of now.
    pub(super) fn now(state: &admin::State) -> Self {
        let stats = state.handle.stats();
        let count = |network, counters: &[Counter]| -> u64 {
            let counts = counters.iter();
            let counts = counts.filter_map(|it| stats.counters.of_network(*it, network));
            counts.sum()
        };
        let announces = [Counter::HttpAnnounces, Counter::Http3Announces];
        let scrapes = [Counter::HttpScrapes, Counter::Http3Scrapes];
        let requests = [announces, scrapes].concat();
        let replies = [
            Counter::UdpConnects,
            Counter::UdpAnnounces,
            Counter::UdpScrapes,
            Counter::UdpErrors,
        ];
        let silent = [Counter::UdpMalformed, Counter::UdpBadConnectionId];
        let datagrams = [&replies[..], &silent].concat();
        let errors = [&[Counter::UdpErrors][..], &silent].concat();
        let (v4, v6) = (Network::V4, Network::V6);
        let banned = [v4, v6].map(|network| {
            let counters = &stats.counters;
            counters.refused_over(Refusal::HostBanned, Transport::Udp, network)
        });
        let mean = |request| {
            let mean = state.handle.udp_mean(request).as_nanos();
            u64::try_from(mean).unwrap_or(u64::MAX)
        };
        Self {
            torrents: stats.registry.torrents,
            seeders: stats.registry.seeders,
            completed: state.handle.completed(),
            leechers: stats.registry.leechers,
            tcp4_connections_handled: count(v4, &requests),
            tcp4_announces_handled: count(v4, &announces),
            tcp4_scrapes_handled: count(v4, &scrapes),
            tcp6_connections_handled: count(v6, &requests),
            tcp6_announces_handled: count(v6, &announces),
            tcp6_scrapes_handled: count(v6, &scrapes),
            udp_requests_aborted: stats.counters.get(Counter::UdpSendFailures),
            udp_requests_banned: banned.iter().sum(),
            udp_banned_ips_total: state.handle.rules().access.bans().count() as u64,
            udp_avg_connect_processing_time_ns: mean(UdpRequest::Connect),
            udp_avg_announce_processing_time_ns: mean(UdpRequest::Announce),
            udp_avg_scrape_processing_time_ns: mean(UdpRequest::Scrape),
            udp4_requests: count(v4, &datagrams),
            udp4_connections_handled: count(v4, &[Counter::UdpConnects]),
            udp4_announces_handled: count(v4, &[Counter::UdpAnnounces]),
            udp4_scrapes_handled: count(v4, &[Counter::UdpScrapes]),
            udp4_responses: count(v4, &replies),
            udp4_errors_handled: count(v4, &errors),
            udp6_requests: count(v6, &datagrams),
            udp6_connections_handled: count(v6, &[Counter::UdpConnects]),
            udp6_announces_handled: count(v6, &[Counter::UdpAnnounces]),
            udp6_scrapes_handled: count(v6, &[Counter::UdpScrapes]),
            udp6_responses: count(v6, &replies),
            udp6_errors_handled: count(v6, &errors),
        }
    }
}

/// What the tracker holds and has done.
#[utoipa::path(
    get,
    path = "/api/v1/stats",
    tag = "torrust",
    params(StatsQuery),
    responses(
        (status = 200, description = "The numbers.", content(
            (Stats = "application/json"),
            (String = "text/plain"),
        )),
        (status = 400, description = "The format is wrong.", body = String, content_type = "text/plain"),
    )
)]
pub(in crate::admin) async fn stats(
    State(state): State<admin::State>,
    Query(query): Query<StatsQuery>,
) -> Response {
    let stats = Stats::now(&state);
    match query.format {
        None | Some(Format::Json) => Json(stats).into_response(),
        Some(Format::Prometheus) => stats.lines().into_response(),
    }
}
