//! Torrents and their peers in the shape of torrust's API.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use percent_encoding::percent_decode_str;
use scion_tracker_core::registry::read::{PeerView, TorrentQuery, TorrentView};
use scion_tracker_core::types::InfoHash;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::info_hash;
use crate::admin::{self, peers, unix_time};

/// Most peers of a torrent in an answer.
const PEERS: usize = 1000;
/// The largest number of a query.
const LARGEST: u32 = 1_000_000_000;
/// Torrents of a page, unless the query says otherwise.
const LIMIT: usize = 4000;

/// A torrent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TorrentListItem)]
pub(in crate::admin) struct Item {
    /// 40 hexadecimal digits.
    info_hash: String,
    /// Peers that have everything.
    seeders: u32,
    /// Completed downloads.
    completed: u32,
    /// All other peers.
    leechers: u32,
}

/// A torrent with peers.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Torrent {
    /// 40 hexadecimal digits.
    info_hash: String,
    /// Peers that have everything.
    seeders: u32,
    /// Completed downloads.
    completed: u32,
    /// All other peers.
    leechers: u32,
    /// Up to 1000 peers.
    peers: Vec<Peer>,
}

/// A peer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TorrentPeer)]
pub(in crate::admin) struct Peer {
    /// Its peer id.
    peer_id: Id,
    /// Address and port, with the ISD-AS if only SCION reaches it.
    peer_addr: String,
    /// When it announced last, in milliseconds since 1970, to within 8 seconds.
    updated: u64,
    /// The same: torrust has the same number in both.
    updated_milliseconds_ago: u64,
    /// 0: the tracker does not keep it.
    uploaded: u64,
    /// 0: the tracker does not keep it.
    downloaded: u64,
    /// 0 if it has everything, else 1: the tracker does not keep how much it lacks.
    left: u64,
    /// "None": the tracker does not keep it.
    event: &'static str,
}

/// A peer id.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TorrentPeerId)]
pub(in crate::admin) struct Id {
    /// "0x" and 40 hexadecimal digits.
    id: Option<String>,
    /// The client, if the id names one.
    client: Option<String>,
}

/// What the list of torrents can be asked.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the description of what `Asked` reads")]
pub(in crate::admin) struct TorrentsQuery {
    /// Torrents that are left out at the beginning. Only the first 10000 are reached: `/api/v2/torrents` walks
    /// through all.
    #[param(minimum = 0, maximum = 1_000_000_000)]
    offset: Option<u32>,
    /// Most torrents of the answer. 4000 if it is left out.
    #[param(minimum = 0, maximum = 1_000_000_000)]
    limit: Option<u32>,
    /// Torrents that are asked for, repeatable. Then there are no pages.
    #[param(inline, required = false, style = Form, explode = true, value_type = Vec<InfoHashText>)]
    info_hash: Vec<String>,
}

/// An info hash.
#[derive(Debug, ToSchema)]
#[schema(value_type = String, pattern = "^([0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})$")]
#[expect(dead_code, reason = "the description of a parameter")]
pub(in crate::admin) struct InfoHashText(String);

/// A query of the list of torrents, which serde cannot read: a parameter may come twice.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    offset: usize,
    limit: Option<usize>,
    hashes: Vec<InfoHash>,
}

impl Asked {
    fn read(query: &str) -> Result<Self, Response> {
        let mut asked = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8_lossy();
            let number = || {
                let number = value.parse::<u32>().ok();
                number.filter(|number| *number <= LARGEST).ok_or_else(|| {
                    let text = format!(
                        "Failed to deserialize query string: {name}: {value:?} is not a number up to {LARGEST}"
                    );
                    (StatusCode::BAD_REQUEST, text).into_response()
                })
            };
            match &*percent_decode_str(name).decode_utf8_lossy() {
                "offset" if !value.is_empty() => asked.offset = number()? as usize,
                "limit" if !value.is_empty() => asked.limit = Some(number()? as usize),
                "info_hash" => asked.hashes.push(info_hash(&value)?),
                _ => {}
            }
        }
        Ok(asked)
    }
}

impl Item {
    fn new(torrent: &TorrentView) -> Self {
        Self {
            info_hash: torrent.info_hash.to_string(),
            seeders: torrent.counts.seeders,
            completed: torrent.counts.completed,
            leechers: torrent.counts.leechers,
        }
    }
}

impl Peer {
    fn new(peer: &PeerView, now: u64) -> Self {
        let updated = now.saturating_sub(peer.age.into()).saturating_mul(1000);
        Self {
            peer_id: Id {
                id: Some(format!("0x{}", peers::hex(&peer.id))),
                client: peers::client(&peer.id),
            },
            peer_addr: peers::address_of(peer),
            updated,
            updated_milliseconds_ago: updated,
            uploaded: 0,
            downloaded: 0,
            left: u64::from(!peer.seeder),
            event: "None",
        }
    }
}

/// A torrent and its peers. A torrent without peers is not known.
#[utoipa::path(
    get,
    path = "/api/v1/torrent/{info_hash}",
    tag = "torrust",
    params(("info_hash" = String, Path, description = "40 or 64 hexadecimal digits.", pattern = "^([0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})$")),
    responses(
        (status = 200, description = "The torrent, or the text \"torrent not known\".", body = TorrentOrUnknown),
        (status = 400, description = "It is no info hash.", body = String, content_type = "text/plain"),
    )
)]
pub(in crate::admin) async fn torrent(
    State(state): State<admin::State>,
    Path(hash): Path<String>,
) -> Response {
    let hash = match info_hash(&hash) {
        Ok(hash) => hash,
        Err(response) => return response,
    };
    let Some((torrent, peers)) = state.handle.torrent(&hash, PEERS) else {
        return Json("torrent not known").into_response();
    };
    let Item {
        info_hash,
        seeders,
        completed,
        leechers,
    } = Item::new(&torrent);
    let now = unix_time::now();
    Json(Torrent {
        info_hash,
        seeders,
        completed,
        leechers,
        peers: peers.iter().map(|peer| Peer::new(peer, now)).collect(),
    })
    .into_response()
}

/// A torrent, or a text that says that it is not known.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the description of an answer")]
pub(in crate::admin) enum TorrentOrUnknown {
    /// The torrent.
    Torrent(Torrent),
    /// "torrent not known".
    Unknown(String),
}

/// Torrents that have peers: a page of all, or those that are asked for.
#[utoipa::path(
    get,
    path = "/api/v1/torrents",
    tag = "torrust",
    params(TorrentsQuery),
    responses(
        (status = 200, description = "The torrents, sorted by info hash.", body = Vec<Item>),
        (status = 400, description = "The query is wrong.", body = String, content_type = "text/plain"),
    )
)]
pub(in crate::admin) async fn torrents(
    State(state): State<admin::State>,
    RawQuery(query): RawQuery,
) -> Response {
    let Asked {
        offset,
        limit,
        hashes,
    } = match Asked::read(query.as_deref().unwrap_or_default()) {
        Ok(asked) => asked,
        Err(response) => return response,
    };
    if !hashes.is_empty() {
        let found = hashes
            .iter()
            .filter_map(|hash| state.handle.torrent(hash, 0));
        let items: Vec<_> = found.map(|(torrent, _)| Item::new(&torrent)).collect();
        return Json(items).into_response();
    }
    let mut asked = TorrentQuery::default();
    (asked.offset, asked.limit) = (offset, limit.unwrap_or(LIMIT));
    match state.list_torrents(asked).await {
        Some(page) => Json(page.torrents.iter().map(Item::new).collect::<Vec<_>>()).into_response(),
        None => super::failed(StatusCode::INTERNAL_SERVER_ERROR, "cannot list torrents"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_may_repeat_a_parameter() {
        let [a, b] = ["0a".repeat(20), "0B".repeat(20)];
        let query = format!("token=x&info_hash={a}&offset=3&info_hash={b}&limit=&x");
        let asked = Asked::read(&query).unwrap();
        assert_eq!(asked.hashes, [a.parse().unwrap(), b.parse().unwrap()]);
        assert_eq!((asked.offset, asked.limit), (3, None));
        for bad in ["offset=-1", "limit=x", "info_hash=", "info_hash=0"] {
            let response = Asked::read(bad).unwrap_err();
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{bad}");
        }
    }
}
