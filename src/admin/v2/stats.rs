//! `/api/v2/stats`: what the tracker holds and has done.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use scion_tracker_core::response::Refusal;
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin;
use crate::counters::Counter;

/// What the tracker holds and has done.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Stats {
    /// The version of the program.
    version: &'static str,
    /// Seconds since the start.
    uptime: u32,
    /// The URLs that clients announce to: `public_urls`, or those of the listeners.
    urls: Vec<String>,
    /// Torrents with peers.
    torrents: u64,
    /// Peers that have everything.
    seeders: u64,
    /// All other peers.
    leechers: u64,
    /// Downloads that were completed since the start.
    completed: u64,
    /// Bytes that torrents and peers take.
    memory: u64,
    /// Whether a passkey is needed.
    private: bool,
    /// Whether only torrents of the allow list are served.
    listed: bool,
    /// Passkeys in force, from the API and from files.
    keys: usize,
    /// Torrents of the allow list, from the API and from files.
    allowed: usize,
    /// Torrents of the deny list, from the API and from files.
    denied: usize,
    /// Bans.
    bans: usize,
    /// Whether the tracker drains.
    draining: bool,
    /// Where records are kept: "memory", "sqlite", "mysql" or "postgres".
    store: &'static str,
    /// For how many seconds the store could not be used. Null: it can be used.
    store_outage: Option<u64>,
    /// Events since the start, by name.
    events: BTreeMap<&'static str, u64>,
    /// Requests that were refused since the start, by reason.
    refused: BTreeMap<&'static str, u64>,
}

/// What the tracker holds and has done.
#[utoipa::path(
    get,
    path = "/api/v2/stats",
    tag = "stats",
    responses((status = 200, description = "The numbers.", body = Stats))
)]
pub(in crate::admin) async fn stats(State(state): State<admin::State>) -> Json<Stats> {
    let handle = &state.handle;
    let stats = handle.stats();
    let access = handle.rules().access;
    let records = handle.records_state();
    let events = Counter::ALL.iter();
    let refusals = Refusal::ALL.iter();
    Json(Stats {
        version: env!("CARGO_PKG_VERSION"),
        uptime: handle.uptime(),
        urls: handle.urls(),
        torrents: stats.registry.torrents,
        seeders: stats.registry.seeders,
        leechers: stats.registry.leechers,
        completed: handle.completed(),
        memory: stats.registry.memory,
        private: access.is_private(),
        listed: access.is_listed(),
        keys: access.passkeys().len(),
        allowed: access.allowed().len(),
        denied: access.denied().len(),
        bans: access.bans().count(),
        draining: handle.draining().is_some(),
        store: records.store.name(),
        store_outage: records.outage.map(|outage| outage.as_secs()),
        events: events
            .map(|it| (it.label(), stats.counters.get(*it)))
            .collect(),
        refused: refusals
            .map(|it| (it.label(), stats.counters.refused(*it)))
            .collect(),
    })
}
