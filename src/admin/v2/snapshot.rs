//! The snapshot of the swarms: how it is, and writing one now.

use std::time::UNIX_EPOCH;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use tokio::task;
use utoipa::ToSchema;

use crate::admin;
use crate::admin::error::ApiError;
use crate::snapshot::{SnapshotError, SnapshotReport, SnapshotState};

/// A snapshot that was written.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Written {
    /// When it was complete, in seconds since 1970.
    at: u64,
    /// How long it took, in seconds.
    seconds: f64,
    /// Its size.
    bytes: u64,
    /// Torrents in it.
    torrents: u64,
    /// Peers in it.
    peers: u64,
}

impl From<&SnapshotReport> for Written {
    fn from(report: &SnapshotReport) -> Self {
        let at = report.finished.duration_since(UNIX_EPOCH);
        Self {
            at: at.map_or(0, |since| since.as_secs()),
            seconds: report.duration.as_secs_f64(),
            bytes: report.bytes,
            torrents: report.torrents,
            peers: report.peers,
        }
    }
}

/// How the snapshots of the swarms are.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Snapshots {
    /// The file. Null: there are no snapshots.
    file: Option<String>,
    /// Why there are none, if the configuration asks for them.
    off_because: Option<String>,
    /// The last one since the start.
    last: Option<Written>,
    /// Why the last attempt failed, if it did.
    last_error: Option<String>,
    /// Attempts that failed since the start.
    failures: u64,
}

impl From<SnapshotState> for Snapshots {
    fn from(state: SnapshotState) -> Self {
        Self {
            file: state.file.map(|file| file.display().to_string()),
            off_because: state.off_because,
            last: state.last.as_ref().map(Written::from),
            last_error: state.last_error,
            failures: state.failures,
        }
    }
}

/// How the snapshots of the swarms are.
#[utoipa::path(
    get,
    path = "/api/v2/snapshot",
    tag = "control",
    responses((status = 200, description = "The state.", body = Snapshots))
)]
pub(in crate::admin) async fn state(State(state): State<admin::State>) -> Json<Snapshots> {
    Json(state.handle.snapshot_state().into())
}

/// Writes a snapshot of the swarms now. Answers when it is on the disk. A client that does not wait does not end
/// it.
#[utoipa::path(
    post,
    path = "/api/v2/snapshot",
    tag = "control",
    responses(
        (status = 200, description = "It is written.", body = Written),
        (status = 409, description = "Snapshots are off, one is being written, or the tracker stops.", body = ApiError),
        (status = 503, description = "It cannot be written; the one before stays. Or it takes longer than an answer may.", body = ApiError),
    )
)]
pub(in crate::admin) async fn write(
    State(state): State<admin::State>,
) -> Result<Json<Written>, ApiError> {
    let written = task::spawn_blocking(move || state.handle.snapshot()).await;
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    match written {
        Ok(Ok(report)) => Ok(Json((&report).into())),
        Ok(Err(error @ SnapshotError::Io { .. })) => Err(ApiError::new(unavailable, error.full())),
        Ok(Err(error)) => Err(ApiError::new(StatusCode::CONFLICT, error.to_string())),
        // It panicked, or the runtime ends.
        Err(_) => Err(ApiError::new(unavailable, "the tracker stops")),
    }
}
