//! `GET /api/health_check`: whether the tracker answers.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

/// The state of the tracker.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// "Ok".
    status: &'static str,
}

/// Whether the tracker answers. Needs no token.
#[utoipa::path(
    get,
    path = "/api/health_check",
    tag = "torrust",
    responses((status = 200, description = "It does.", body = Health)),
    security(())
)]
pub(super) async fn health_check() -> Json<Health> {
    Json(Health { status: "Ok" })
}
