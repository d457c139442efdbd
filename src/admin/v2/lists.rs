//! `/api/v2/allow` and `/api/v2/deny`: the lists of torrents. Those in files are not among them.

use std::future::Future;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use scion_tracker_core::types::InfoHash;
use serde::Serialize;
use tokio::task::JoinSet;
use utoipa::ToSchema;

use super::{HashInPath, Listed, Paging, Removed};
use crate::admin;
use crate::admin::error::{ApiError, Path, Query};
use crate::records::RecordsError;
use crate::server::Handle;

/// Changes of a text that wait for the store together.
const AT_ONCE: usize = 256;

/// An entry was added.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Added {
    /// Whether it is new.
    new: bool,
    /// Peers that were removed, if the torrent is denied.
    removed_peers: u64,
}

/// Entries were added.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(in crate::admin) struct AddedAll {
    /// Entries that are new.
    new: u64,
    /// Entries that were there before.
    known: u64,
    /// Peers that were removed, if the torrents are denied.
    removed_peers: u64,
}

/// Info hashes, one per line. What follows one after a space is a comment, as is a line with #.
#[derive(Debug, ToSchema)]
#[schema(value_type = String, pattern = "^(([0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})( .*)?\n|#.*\n)+$")]
#[expect(dead_code, reason = "the description of a body")]
pub(in crate::admin) struct HashLines(String);

/// Reads a text like a list in a file: one info hash per line, with comments.
fn hashes(text: &str) -> Result<Vec<InfoHash>, ApiError> {
    let mut hashes = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let first = line.split_whitespace().next().unwrap_or_default();
        let hash = first
            .parse()
            .map_err(|error| ApiError::wrong(format!("line {}: {error}", at + 1)))?;
        hashes.push(hash);
    }
    match text.is_empty() {
        true => Err(ApiError::wrong(
            "there is no body: send info hashes, one per line",
        )),
        false => Ok(hashes),
    }
}

async fn allow(handle: Handle, info_hash: InfoHash) -> Result<Added, RecordsError> {
    let new = handle.allow_torrent(info_hash).await?;
    Ok(Added {
        new,
        removed_peers: 0,
    })
}

async fn deny(handle: Handle, info_hash: InfoHash) -> Result<Added, RecordsError> {
    let denied = handle.deny_torrent(info_hash).await?;
    Ok(Added {
        new: !denied.before,
        removed_peers: denied.removed,
    })
}

/// Adds all, several at a time: the store writes them together. After an error no more are added; some may
/// have been.
async fn add_all<F>(
    handle: &Handle,
    hashes: Vec<InfoHash>,
    add: fn(Handle, InfoHash) -> F,
) -> Result<AddedAll, ApiError>
where
    F: Future<Output = Result<Added, RecordsError>> + Send + 'static,
{
    let mut all = AddedAll::default();
    let mut failed = None;
    let mut adding = JoinSet::new();
    let mut hashes = hashes.into_iter();
    loop {
        while failed.is_none()
            && adding.len() < AT_ONCE
            && let Some(hash) = hashes.next()
        {
            adding.spawn(add(handle.clone(), hash));
        }
        match adding.join_next().await {
            None => break,
            Some(Ok(Ok(added))) => {
                match added.new {
                    true => all.new += 1,
                    false => all.known += 1,
                }
                all.removed_peers += added.removed_peers;
            }
            Some(Ok(Err(error))) => failed = Some(error.into()),
            Some(Err(_)) => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                failed = Some(ApiError::new(status, "an entry was not added"));
            }
        }
    }
    failed.map_or(Ok(all), Err)
}

macro_rules! list {
    ($module:ident, $path:literal, $one:literal, $tag:literal, $page:ident, $add:ident, $remove:ident, $what:literal, $absent:literal) => {
        pub(in crate::admin) mod $module {
            use super::*;

            #[doc = concat!("Lists the ", $what, ".")]
            #[utoipa::path(
                get,
                path = $path,
                tag = $tag,
                params(Paging),
                responses((status = 200, description = "A part of them: info hashes.", body = Listed<String>))
            )]
            pub(in crate::admin) async fn list(
                State(state): State<admin::State>,
                Query(paging): Query<Paging>,
            ) -> Json<Listed<String>> {
                let page = state.handle.$page(paging.offset(), paging.limit());
                Json(Listed::new(page, &paging, |hash| hash.to_string()))
            }

            #[doc = concat!("Adds many to the ", $what, ", one info hash per line.")]
            #[utoipa::path(
                post,
                path = $path,
                tag = $tag,
                request_body(content = HashLines, content_type = "text/plain", description = "Info hashes, one per line. What follows one after a space is a comment, as is a line with #."),
                responses(
                    (status = 200, description = "They are there.", body = AddedAll),
                    (status = 400, description = "A line is wrong. Nothing was added.", body = ApiError),
                )
            )]
            pub(in crate::admin) async fn add_text(
                State(state): State<admin::State>,
                text: Result<String, axum::extract::rejection::StringRejection>,
            ) -> Result<Json<AddedAll>, ApiError> {
                let text = text.map_err(|it| ApiError::new(it.status(), it.body_text()))?;
                let hashes = hashes(&text)?;
                Ok(Json(add_all(&state.handle, hashes, super::$module).await?))
            }

            #[doc = concat!("Adds one to the ", $what, ".")]
            #[utoipa::path(
                put,
                path = $one,
                tag = $tag,
                params(("info_hash" = String, Path, description = "40 or 64 hexadecimal digits.", pattern = "^([0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})$")),
                responses((status = 200, description = "It is there.", body = Added))
            )]
            pub(in crate::admin) async fn put(
                State(state): State<admin::State>,
                Path(HashInPath(info_hash)): Path<HashInPath>,
            ) -> Result<Json<Added>, ApiError> {
                Ok(Json(super::$module(state.handle, info_hash).await?))
            }

            #[doc = concat!("Removes one from the ", $what, ".")]
            #[utoipa::path(
                delete,
                path = $one,
                tag = $tag,
                params(("info_hash" = String, Path, description = "40 or 64 hexadecimal digits.", pattern = "^([0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})$")),
                responses(
                    (status = 200, description = "It is removed.", body = Removed),
                    (status = 404, description = "It is not there.", body = ApiError),
                    (status = 409, description = "It comes from a file.", body = ApiError),
                )
            )]
            pub(in crate::admin) async fn delete(
                State(state): State<admin::State>,
                Path(HashInPath(info_hash)): Path<HashInPath>,
            ) -> Result<Json<Removed>, ApiError> {
                match state.handle.$remove(info_hash).await? {
                    true => Ok(Json(Removed::YES)),
                    false => Err(ApiError::unknown($absent)),
                }
            }
        }
    };
}
list!(
    allow,
    "/api/v2/allow",
    "/api/v2/allow/{info_hash}",
    "allow",
    allowed,
    allow_torrent,
    disallow_torrent,
    "torrents of the allow list",
    "this torrent is not in the allow list"
);
list!(
    deny,
    "/api/v2/deny",
    "/api/v2/deny/{info_hash}",
    "deny",
    denied,
    deny_torrent,
    undeny_torrent,
    "torrents of the deny list",
    "this torrent is not in the deny list"
);
