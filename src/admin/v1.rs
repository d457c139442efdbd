//! The API of torrust-tracker, version 1: the same paths, shapes and texts, so that Torrust Index and scripts
//! work with this tracker unchanged.
//!
//! One thing differs: what does not exist is answered with 404 on delete, where torrust says 500.

#![expect(
    clippy::result_large_err,
    reason = "an error is a whole reply, and no announce comes through here"
)]

pub(super) mod keys;
pub(super) mod metrics;
pub(super) mod stats;
pub(super) mod torrents;
pub(super) mod whitelist;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use scion_tracker_core::types::InfoHash;
use serde::Serialize;
use utoipa::ToSchema;

use super::State;
use super::error::status;
use crate::records::RecordsError;

/// A change was made.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
#[schema(as = ActionStatus)]
pub(super) enum Done {
    /// It was.
    Ok,
}

impl Done {
    fn response() -> Response {
        Json(Self::Ok).into_response()
    }
}

/// An error of the tracker itself.
fn failed(status: StatusCode, reason: &str) -> Response {
    let text = format!("Unhandled rejection: Err {{ reason: {reason:?} }}");
    (status, text).into_response()
}

/// A change that could not be recorded.
fn not_recorded(what: &str, error: &RecordsError) -> Response {
    failed(status(error), &format!("{what}: {error}"))
}

/// Reads the info hash of a path.
fn info_hash(text: &str) -> Result<InfoHash, Response> {
    text.parse().map_err(|_| {
        let text = format!(
            "Invalid URL: invalid infohash param: string \"{text}\", expected a 40 character long string"
        );
        (StatusCode::BAD_REQUEST, text).into_response()
    })
}

/// Reads the lists in files again.
async fn reload(state: &State) -> Response {
    let handle = state.handle.clone();
    let reloaded = tokio::task::spawn_blocking(move || handle.reload_files()).await;
    match reloaded {
        Ok(Ok(_)) => Done::response(),
        Ok(Err(error)) => {
            let error: &dyn std::error::Error = &error;
            let cause = error
                .source()
                .map_or(String::new(), |cause| format!(": {cause}"));
            failed(
                StatusCode::INTERNAL_SERVER_ERROR,
                &format!("failed to reload: {error}{cause}"),
            )
        }
        Err(_) => failed(StatusCode::INTERNAL_SERVER_ERROR, "failed to reload"),
    }
}
