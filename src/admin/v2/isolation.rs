//! `/api/v2/isolation`: torrents that are handed out only inside some ISDs.

use axum::Json;
use axum::extract::State;
use scion_tracker_core::access::Isolation;
use scion_tracker_core::address::Isd;
use scion_tracker_core::types::InfoHash;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{HashInPath, Listed, Paging, Removed};
use crate::admin;
use crate::admin::error::{ApiError, Body, Path, Query};
use crate::admin::schemas::isds;

/// Most ISDs of a torrent.
const ISDS: usize = 100;

/// Where a torrent is handed out.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Isolation)]
pub(in crate::admin) struct IsolationBody {
    /// The ISDs. Without any, nobody gets the torrent.
    #[schema(schema_with = isds)]
    isds: Vec<u16>,
    /// Whether a place counts only if it is proven, by a SCION packet or by `places.prefixes`.
    #[serde(default)]
    proven: bool,
}

/// A torrent that is isolated.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Isolated {
    /// The torrent, 40 hexadecimal digits.
    info_hash: String,
    /// The ISDs in which it is handed out.
    isds: Vec<u16>,
    /// Whether a place counts only if it is proven.
    proven: bool,
}

/// A torrent was isolated.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct IsolationSet {
    /// Peers outside that were removed.
    removed_peers: u64,
}

impl From<Isolation> for IsolationBody {
    fn from(isolation: Isolation) -> Self {
        Self {
            isds: isolation.isds.into_iter().map(|Isd(isd)| isd).collect(),
            proven: isolation.proven_only,
        }
    }
}

impl Isolated {
    fn new((info_hash, isolation): (InfoHash, Isolation)) -> Self {
        let IsolationBody { isds, proven } = isolation.into();
        Self {
            info_hash: info_hash.to_string(),
            isds,
            proven,
        }
    }
}

/// Lists the torrents that are isolated by the API, besides those of the configuration.
#[utoipa::path(
    get,
    path = "/api/v2/isolation",
    tag = "isolation",
    params(Paging),
    responses((status = 200, description = "A part of them.", body = Listed<Isolated>))
)]
pub(in crate::admin) async fn list(
    State(state): State<admin::State>,
    Query(paging): Query<Paging>,
) -> Json<Listed<Isolated>> {
    let page = state.handle.isolations(paging.offset(), paging.limit());
    Json(Listed::new(page, &paging, Isolated::new))
}

/// Isolates a torrent, and removes its peers outside. An announce from outside is then refused.
#[utoipa::path(
    put,
    path = "/api/v2/isolation/{info_hash}",
    tag = "isolation",
    params(("info_hash" = String, Path, description = "40 or 64 hexadecimal digits.", pattern = "^([0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})$")),
    request_body = IsolationBody,
    responses((status = 200, description = "It is isolated.", body = IsolationSet))
)]
pub(in crate::admin) async fn put(
    State(state): State<admin::State>,
    Path(HashInPath(info_hash)): Path<HashInPath>,
    Body(body): Body<IsolationBody>,
) -> Result<Json<IsolationSet>, ApiError> {
    if body.isds.len() > ISDS {
        return Err(ApiError::wrong("a torrent has at most 100 ISDs"));
    }
    if body.isds.contains(&0) {
        return Err(ApiError::wrong("0 is no ISD: name each ISD"));
    }
    let isolation = Isolation {
        isds: body.isds.into_iter().map(Isd).collect(),
        proven_only: body.proven,
    };
    let isolated = state.handle.isolate_torrent(info_hash, isolation).await?;
    Ok(Json(IsolationSet {
        removed_peers: isolated.removed,
    }))
}

/// Ends the isolation of a torrent.
#[utoipa::path(
    delete,
    path = "/api/v2/isolation/{info_hash}",
    tag = "isolation",
    params(("info_hash" = String, Path, description = "40 or 64 hexadecimal digits.", pattern = "^([0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})$")),
    responses(
        (status = 200, description = "It is no longer isolated.", body = Removed),
        (status = 404, description = "It was not.", body = ApiError),
        (status = 409, description = "Its isolation comes from the configuration.", body = ApiError),
    )
)]
pub(in crate::admin) async fn delete(
    State(state): State<admin::State>,
    Path(HashInPath(info_hash)): Path<HashInPath>,
) -> Result<Json<Removed>, ApiError> {
    match state.handle.end_isolation(info_hash).await? {
        Some(_) => Ok(Json(Removed::YES)),
        None => Err(ApiError::unknown("this torrent is not isolated")),
    }
}
