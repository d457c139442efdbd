//! `GET /stats.json`: statistics with the names of bittorrent-tracker, for pages and scripts that read those,
//! and with our own.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State as Extract;
use http::HeaderValue;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, HeaderName};
use scion_tracker_core::address::IsdAs;
use scion_tracker_core::response::Refusal;
use serde::Serialize;
use utoipa::ToSchema;

use super::{State, clients};
use crate::counters::{Counter, Network};
use crate::samples::Proximity;
use crate::server::Handle;

/// ISDs and ASes that are named, the largest ones.
const PLACES: usize = 100;

/// Counts by name.
type Counts = BTreeMap<String, u64>;

/// Statistics of the tracker.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatsJson {
    /// Torrents.
    torrents: u64,
    /// Torrents that have peers. The tracker keeps no others.
    active_torrents: u64,
    peers_all: u64,
    peers_seeder_only: u64,
    peers_leecher_only: u64,
    /// Always 0: a peer here is one of both.
    peers_seeder_and_leecher: u64,
    #[serde(rename = "peersIPv4")]
    peers_ipv4: u64,
    #[serde(rename = "peersIPv6")]
    peers_ipv6: u64,
    /// Peers by client and version.
    clients: BTreeMap<String, Counts>,
    /// What bittorrent-tracker does not have.
    scion_tracker: Own,
}

/// Statistics of scion-tracker alone.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Own {
    version: &'static str,
    /// The URLs that clients announce to: `public_urls`, or those of the listeners.
    announce_urls: Vec<String>,
    /// Seconds since the start.
    uptime: u64,
    /// Seconds since the peers were counted.
    census_age: u64,
    /// Peers by how others reach them.
    peers_by_reach: Counts,
    /// Peers by ISD, the largest 100. "none": without one.
    peers_by_isd: Counts,
    /// Peers by ISD-AS, the largest 100.
    peers_by_as: Counts,
    /// Peers of all other ASes.
    peers_of_other_ases: u64,
    /// Peers in a sample of replies, by how near they are to the client.
    handed_out: Counts,
    /// Requests answered since the start, by transport and outcome.
    requests: Counts,
    /// The same, by what they came over.
    requests_by_family: Counts,
    /// Requests refused since the start, by reason.
    refusals: Counts,
}

/// Statistics of the tracker as JSON. Any page may read them.
#[utoipa::path(
    get,
    path = "/stats.json",
    tag = "statistics",
    responses((status = 200, description = "Statistics.", body = StatsJson))
)]
pub(super) async fn stats_json(
    Extract(state): Extract<State>,
) -> ([(HeaderName, HeaderValue); 1], Json<StatsJson>) {
    let anyone = HeaderValue::from_static("*");
    (
        [(ACCESS_CONTROL_ALLOW_ORIGIN, anyone)],
        Json(collect(&state.handle)),
    )
}

/// The name of a place, "none" for peers without one.
pub(super) fn place_name(ia: IsdAs) -> String {
    match ia.is_none() {
        true => "none".into(),
        false => ia.to_string(),
    }
}

fn collect(handle: &Handle) -> StatsJson {
    let taken = handle.census();
    let census = &taken.census;
    let mut by_client: BTreeMap<String, Counts> = BTreeMap::new();
    for it in &census.clients {
        let name = clients::name(&it.client).unwrap_or_else(|| it.client.client());
        let versions = by_client.entry(name.into()).or_default();
        *versions.entry(clients::version(&it.client)).or_default() += it.peers;
    }
    if census.other_clients > 0 {
        let unknown = by_client.entry("unknown".into()).or_default();
        unknown.insert("unknown".into(), census.other_clients);
    }
    StatsJson {
        torrents: handle.stats().registry.torrents,
        active_torrents: census.torrents,
        peers_all: census.counts.peers(),
        peers_seeder_only: census.counts.seeders,
        peers_leecher_only: census.counts.leechers,
        peers_seeder_and_leecher: 0,
        peers_ipv4: census.ipv4.peers(),
        peers_ipv6: census.ipv6.peers(),
        clients: by_client,
        scion_tracker: own(handle),
    }
}

fn own(handle: &Handle) -> Own {
    let (vitals, taken) = (handle.vitals(), handle.census());
    let (census, counters) = (&taken.census, &vitals.counters);
    let mut isds = BTreeMap::new();
    for place in &census.places {
        let isd = match place.ia.is_none() {
            true => "none".into(),
            false => place.ia.isd().to_string(),
        };
        *isds.entry(isd).or_insert(0) += place.counts.peers();
    }
    let mut isds: Vec<(String, u64)> = isds.into_iter().collect();
    isds.sort_by_key(|(_, peers)| std::cmp::Reverse(*peers));
    isds.truncate(PLACES);
    let ases = census.places.iter().take(PLACES);
    let others = census.places.iter().skip(PLACES);
    let others = others.map(|place| place.counts.peers()).sum::<u64>();
    let mut requests = Counts::new();
    let mut by_family = Counts::new();
    for counter in Counter::REQUESTS {
        for network in Network::ALL {
            let count = counters.of_network(*counter, *network);
            *by_family.entry(network.label().into()).or_default() += count.unwrap_or_default();
        }
        requests.insert(counter.label().into(), counters.get(*counter));
    }
    let age = vitals.now.duration_since(taken.at.max(vitals.started));
    let reach = [
        ("ip", census.ip),
        ("scion", census.scion),
        ("both", census.both),
    ];
    let handed_out = Proximity::ALL.into_iter().zip(vitals.handed_out);
    let refusals = Refusal::ALL.iter();
    Own {
        version: env!("CARGO_PKG_VERSION"),
        announce_urls: handle.urls(),
        uptime: vitals.uptime.as_secs(),
        census_age: age.unwrap_or_default().as_secs(),
        peers_by_reach: reach.map(|(name, it)| (name.into(), it.peers())).into(),
        peers_by_isd: isds.into_iter().collect(),
        peers_by_as: ases
            .map(|place| (place_name(place.ia), place.counts.peers()))
            .collect(),
        peers_of_other_ases: others + census.other_places.peers(),
        handed_out: handed_out
            .map(|(it, count)| (it.label().into(), count))
            .collect(),
        requests,
        requests_by_family: by_family,
        refusals: refusals
            .map(|it| (it.label().into(), counters.refused(*it)))
            .collect(),
    }
}
