//! The allow list in the shape of torrust's API.

use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;

use super::{Done, failed, info_hash, not_recorded, reload};
use crate::admin;

/// Adds a torrent to the allow list.
#[utoipa::path(
    post,
    path = "/api/v1/whitelist/{info_hash}",
    tag = "torrust",
    params(("info_hash" = String, Path, description = "40 or 64 hexadecimal digits.", pattern = "^([0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})$")),
    responses(
        (status = 200, description = "It is there.", body = Done),
        (status = 400, description = "It is no info hash.", body = String, content_type = "text/plain"),
    )
)]
pub(in crate::admin) async fn add(
    State(state): State<admin::State>,
    Path(hash): Path<String>,
) -> Response {
    let hash = match info_hash(&hash) {
        Ok(hash) => hash,
        Err(response) => return response,
    };
    match state.handle.allow_torrent(hash).await {
        Ok(_) => Done::response(),
        Err(error) => not_recorded("failed to whitelist torrent", &error),
    }
}

/// Removes a torrent from the allow list.
#[utoipa::path(
    delete,
    path = "/api/v1/whitelist/{info_hash}",
    tag = "torrust",
    params(("info_hash" = String, Path, description = "40 or 64 hexadecimal digits.", pattern = "^([0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})$")),
    responses(
        (status = 200, description = "It is removed.", body = Done),
        (status = 400, description = "It is no info hash.", body = String, content_type = "text/plain"),
        (status = 404, description = "It is not there.", body = String, content_type = "text/plain"),
        (status = 409, description = "It comes from a file.", body = String, content_type = "text/plain"),
    )
)]
pub(in crate::admin) async fn remove(
    State(state): State<admin::State>,
    Path(hash): Path<String>,
) -> Response {
    let hash = match info_hash(&hash) {
        Ok(hash) => hash,
        Err(response) => return response,
    };
    match state.handle.disallow_torrent(hash).await {
        Ok(true) => Done::response(),
        Ok(false) => failed(
            StatusCode::NOT_FOUND,
            "failed to remove torrent from whitelist: it is not there",
        ),
        Err(error) => not_recorded("failed to remove torrent from whitelist", &error),
    }
}

/// Reads the lists in files again.
#[utoipa::path(
    get,
    path = "/api/v1/whitelist/reload",
    tag = "torrust",
    responses(
        (status = 200, description = "They are read.", body = Done),
        (status = 500, description = "A file cannot be used; the old lists stay.", body = String, content_type = "text/plain"),
    )
)]
pub(in crate::admin) async fn reload_list(State(state): State<admin::State>) -> Response {
    reload(&state).await
}
