//! `GET /api/health_check`: whether the tracker answers, and whether clients should come.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

/// The state of the tracker.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(super) enum Status {
    /// It serves clients.
    Ok,
    /// It serves clients, and will stop soon: send them elsewhere.
    Draining,
}

/// The state of the tracker.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// The state.
    status: Status,
}

/// Whether the tracker answers. Needs no token.
#[utoipa::path(
    get,
    path = "/api/health_check",
    tag = "torrust",
    responses(
        (status = 200, description = "It does.", body = Health),
        (status = 503, description = "It does, and will stop soon.", body = Health),
    ),
    security(())
)]
pub(super) async fn health_check(State(state): State<super::State>) -> (StatusCode, Json<Health>) {
    let (code, status) = match state.handle.draining() {
        None => (StatusCode::OK, Status::Ok),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, Status::Draining),
    };
    (code, Json(Health { status }))
}
