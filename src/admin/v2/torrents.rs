//! `/api/v2/torrents` and `/api/v2/places`: what the registry holds.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use scion_tracker_core::registry::Registry as _;
use scion_tracker_core::registry::read::{
    InfoHashPrefix, PeerCounts, PeerView, TorrentOrder, TorrentQuery, TorrentView,
};
use scion_tracker_core::response::Reach;
use scion_tracker_core::types::InfoHash;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::isolation::IsolationBody;
use super::{HashInPath, bounded, limit, limited};
use crate::admin;
use crate::admin::error::{ApiError, Path, Query};
use crate::admin::peers;

/// Peers of a torrent that are looked at.
const COUNTED: usize = 4096;

/// By what torrents are sorted.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::admin) enum Sort {
    /// The info hash.
    #[default]
    InfoHash,
    /// All peers.
    Peers,
    /// Peers that have everything.
    Seeders,
    /// All other peers.
    Leechers,
    /// Completed downloads.
    Completed,
}

/// Which end comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::admin) enum Order {
    /// The smallest.
    Asc,
    /// The largest.
    Desc,
}

/// Which torrents are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::admin) struct TorrentsQuery {
    /// Torrents that are left out at the beginning. Only the first 10000 are reached: `after` walks further.
    #[serde(default, deserialize_with = "bounded")]
    #[param(default = 0, maximum = 1_000_000_000)]
    offset: u32,
    /// Most torrents of the answer.
    #[serde(default = "limit", deserialize_with = "limited")]
    #[param(default = 100, minimum = 1, maximum = 10_000)]
    limit: u32,
    /// By what they are sorted: by info hash, if it is left out.
    #[serde(default)]
    #[param(inline)]
    sort: Sort,
    /// Which end comes first: by default the smallest info hash, or the largest number.
    #[param(inline)]
    order: Option<Order>,
    /// Only torrents whose info hash begins so.
    #[serde(default, deserialize_with = "prefix")]
    #[param(value_type = String, pattern = "^[0-9A-Fa-f]{0,40}$")]
    prefix: InfoHashPrefix,
    /// Only torrents with so many peers.
    #[serde(default, deserialize_with = "bounded")]
    #[param(default = 0, maximum = 1_000_000_000)]
    least_peers: u32,
    /// Only torrents whose info hash is greater: the last one of the page before. For walks through all.
    #[serde(default, deserialize_with = "after")]
    #[param(value_type = String, pattern = "^[0-9A-Fa-f]{40}$")]
    after: Option<InfoHash>,
}

fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<InfoHashPrefix, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|error| D::Error::custom(format_args!("prefix: {error}")))
}

fn after<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<InfoHash>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let hash = text.parse();
    hash.map(Some)
        .map_err(|error| D::Error::custom(format_args!("after: {error}")))
}

/// A torrent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TorrentSummary)]
pub(in crate::admin) struct Summary {
    /// 40 hexadecimal digits.
    info_hash: String,
    /// Peers that have everything.
    seeders: u32,
    /// All other peers.
    leechers: u32,
    /// Completed downloads.
    completed: u32,
}

impl Summary {
    fn new(torrent: &TorrentView) -> Self {
        Self {
            info_hash: torrent.info_hash.to_string(),
            seeders: torrent.counts.seeders,
            leechers: torrent.counts.leechers,
            completed: torrent.counts.completed,
        }
    }
}

/// A part of the torrents.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct TorrentList {
    /// Torrents that match, on all pages.
    total: u64,
    /// Torrents that were left out at the beginning.
    offset: u32,
    /// The torrents.
    entries: Vec<Summary>,
}

/// Lists the torrents that have peers.
#[utoipa::path(
    get,
    path = "/api/v2/torrents",
    tag = "torrents",
    params(TorrentsQuery),
    responses((status = 200, description = "A part of them.", body = TorrentList))
)]
pub(in crate::admin) async fn list(
    State(state): State<admin::State>,
    Query(query): Query<TorrentsQuery>,
) -> Result<Json<TorrentList>, ApiError> {
    let (offset, limit) = (query.offset as usize, query.limit as usize);
    let mut asked = TorrentQuery::default();
    asked.prefix = query.prefix;
    asked.least_peers = query.least_peers;
    asked.after = query.after;
    (asked.offset, asked.limit) = (offset, limit);
    asked.order = match query.sort {
        Sort::InfoHash => TorrentOrder::InfoHash,
        Sort::Peers => TorrentOrder::Peers,
        Sort::Seeders => TorrentOrder::Seeders,
        Sort::Leechers => TorrentOrder::Leechers,
        Sort::Completed => TorrentOrder::Completed,
    };
    asked.descending = match query.order {
        Some(order) => order == Order::Desc,
        None => !matches!(query.sort, Sort::InfoHash),
    };
    let page = state.list_torrents(asked).await.ok_or_else(broken)?;
    Ok(Json(TorrentList {
        total: page.matched,
        offset: query.offset,
        entries: page.torrents.iter().map(Summary::new).collect(),
    }))
}

fn broken() -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the torrents cannot be read",
    )
}

/// How much of a torrent is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::admin) struct PeersQuery {
    /// Most peers of the answer.
    #[serde(default = "hundred", deserialize_with = "most_peers")]
    #[param(default = 100, minimum = 0, maximum = 4096)]
    peers: u32,
}

const fn hundred() -> u32 {
    100
}

fn most_peers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let peers = u32::deserialize(deserializer)?;
    match peers as usize <= COUNTED {
        true => Ok(peers),
        false => Err(D::Error::custom("peers is at most 4096")),
    }
}

/// How others reach a peer.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::admin) enum Over {
    /// Plain IP.
    Ip,
    /// SCION.
    Scion,
    /// Both.
    Both,
}

/// A peer.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Peer {
    /// Address and port, with the ISD-AS if only SCION reaches it.
    address: String,
    /// Its ISD-AS. Null: it has none.
    isd_as: Option<String>,
    /// Whether the ISD-AS is proven and not only claimed.
    proven: bool,
    /// How others reach it.
    reach: Over,
    /// Whether it has everything.
    seeder: bool,
    /// Seconds since it announced, to within 8.
    age: u32,
    /// Its peer id, 40 hexadecimal digits.
    peer_id: String,
    /// The client that its peer id names.
    client: Option<String>,
}

impl Peer {
    fn new(peer: &PeerView) -> Self {
        Self {
            address: peers::address_of(peer),
            isd_as: (!peer.ia.is_none()).then(|| peer.ia.to_string()),
            proven: peer.proven,
            reach: match peer.reach {
                Reach::Ip => Over::Ip,
                Reach::Scion => Over::Scion,
                Reach::Both => Over::Both,
            },
            seeder: peer.seeder,
            age: peer.age,
            peer_id: peers::hex(&peer.id),
            client: peers::client(&peer.id),
        }
    }
}

/// The peers of an AS.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(in crate::admin) struct Place {
    /// The ISD-AS. Null: peers without one.
    isd_as: Option<String>,
    /// Peers that have everything.
    seeders: u64,
    /// All other peers.
    leechers: u64,
    /// Peers whose ISD-AS is proven and not only claimed.
    proven: u64,
}

/// A torrent with its peers.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct TorrentDetails {
    /// 40 hexadecimal digits.
    info_hash: String,
    /// Peers that have everything.
    seeders: u32,
    /// All other peers.
    leechers: u32,
    /// Completed downloads.
    completed: u32,
    /// Whether it is in the allow list.
    allowed: bool,
    /// Whether it is in the deny list.
    denied: bool,
    /// Where it is handed out. Null: everywhere.
    isolation: Option<IsolationBody>,
    /// How many peers are counted in `places`: all, or 4096 of them.
    counted: usize,
    /// The peers by ISD-AS.
    places: Vec<Place>,
    /// Some of the peers.
    peers: Vec<Peer>,
}

/// A torrent that has peers, or is in a list.
#[utoipa::path(
    get,
    path = "/api/v2/torrents/{info_hash}",
    tag = "torrents",
    params(
        ("info_hash" = String, Path, description = "40 or 64 hexadecimal digits.", pattern = "^([0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})$"),
        PeersQuery,
    ),
    responses(
        (status = 200, description = "The torrent.", body = TorrentDetails),
        (status = 404, description = "It has no peers and is in no list.", body = ApiError),
    )
)]
pub(in crate::admin) async fn get(
    State(state): State<admin::State>,
    Path(HashInPath(info_hash)): Path<HashInPath>,
    Query(query): Query<PeersQuery>,
) -> Result<Json<TorrentDetails>, ApiError> {
    let access = state.handle.rules().access;
    let isolation = access.torrents().get(&info_hash);
    let isolation = isolation.and_then(|rules| rules.isolation.clone());
    let (allowed, denied) = (
        access.allowed().contains(&info_hash),
        access.denied().contains(&info_hash),
    );
    let found = state.handle.torrent(&info_hash, COUNTED);
    if found.is_none() && !allowed && !denied && isolation.is_none() {
        return Err(ApiError::unknown(
            "this torrent has no peers and is in no list",
        ));
    }
    let (torrent, peers) = found.unzip();
    // The downloads of a torrent without peers are known as well.
    let past = || state.handle.registry().scrape(&info_hash);
    let counts = torrent.map_or_else(past, |torrent| torrent.counts);
    let peers = peers.unwrap_or_default();
    let mut places = BTreeMap::new();
    for peer in &peers {
        let place: &mut Place = places.entry(peer.ia.to_u64()).or_default();
        place.isd_as = (!peer.ia.is_none()).then(|| peer.ia.to_string());
        match peer.seeder {
            true => place.seeders += 1,
            false => place.leechers += 1,
        }
        place.proven += u64::from(peer.proven);
    }
    let shown = peers.iter().take(query.peers as usize);
    Ok(Json(TorrentDetails {
        info_hash: info_hash.to_string(),
        seeders: counts.seeders,
        leechers: counts.leechers,
        completed: counts.completed,
        allowed,
        denied,
        isolation: isolation.map(Into::into),
        counted: peers.len(),
        places: places.into_values().collect(),
        peers: shown.map(Peer::new).collect(),
    }))
}

/// Peers of an ISD.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(in crate::admin) struct IsdCount {
    /// The ISD.
    isd: u16,
    /// Peers that have everything.
    seeders: u64,
    /// All other peers.
    leechers: u64,
}

/// All peers, counted by place. A client that is in several torrents is as many peers.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Places {
    /// By ISD-AS, the largest first: no more than 16384. Peers without one have null.
    places: Vec<Place>,
    /// By ISD, of those places.
    isds: Vec<IsdCount>,
    /// Peers of other places: seeders.
    other_seeders: u64,
    /// Peers of other places: leechers.
    other_leechers: u64,
}

/// Counts all peers by ISD and AS. Goes through all of them, which takes a while if there are millions.
#[utoipa::path(
    get,
    path = "/api/v2/places",
    tag = "torrents",
    responses((status = 200, description = "The counts.", body = Places))
)]
pub(in crate::admin) async fn places(
    State(state): State<admin::State>,
) -> Result<Json<Places>, ApiError> {
    let census = state.census().await.ok_or_else(broken)?;
    let mut isds: BTreeMap<u16, IsdCount> = BTreeMap::new();
    for place in census.places.iter().filter(|place| !place.ia.is_none()) {
        let isd = place.ia.isd().0;
        let count = isds.entry(isd).or_default();
        count.isd = isd;
        count.seeders += place.counts.seeders;
        count.leechers += place.counts.leechers;
    }
    let places = census.places.iter().map(|place| Place {
        isd_as: (!place.ia.is_none()).then(|| place.ia.to_string()),
        seeders: place.counts.seeders,
        leechers: place.counts.leechers,
        proven: place.proven,
    });
    let PeerCounts {
        seeders: other_seeders,
        leechers: other_leechers,
        ..
    } = census.other_places;
    Ok(Json(Places {
        places: places.collect(),
        isds: isds.into_values().collect(),
        other_seeders,
        other_leechers,
    }))
}
