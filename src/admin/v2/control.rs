//! What an operator does with a running tracker: reload, certificate, drain.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::admin;
use crate::admin::error::{ApiError, OptionalBody};
use crate::server::{Draining, ReloadRequestError};

/// The longest time to drain, in seconds: a day.
const LONGEST: u64 = 24 * 60 * 60;

/// What a reload changed: keys of settings.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Reloaded {
    /// Settings that changed and are in force.
    changed: Vec<&'static str>,
    /// Settings that changed and need a restart.
    need_restart: Vec<&'static str>,
}

/// Reads the configuration, the lists in files, tokens and the certificate again. If anything is wrong, all
/// stays as it is.
#[utoipa::path(
    post,
    path = "/api/v2/reload",
    tag = "control",
    responses(
        (status = 200, description = "They are in force.", body = Reloaded),
        (status = 409, description = "The configuration is wrong; the old one stays in force.", body = ApiError),
        (status = 501, description = "The program that runs the tracker cannot read its configuration again.", body = ApiError),
    )
)]
pub(in crate::admin) async fn reload(
    State(state): State<admin::State>,
) -> Result<Json<Reloaded>, ApiError> {
    match state.handle.request_reload().await {
        Ok(changes) => Ok(Json(Reloaded {
            changed: changes.reloaded,
            need_restart: changes.need_restart,
        })),
        Err(error @ ReloadRequestError::Unsupported) => Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            error.to_string(),
        )),
        Err(error) => Err(ApiError::new(StatusCode::CONFLICT, error.to_string())),
    }
}

/// The certificate of HTTPS and HTTP/3.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Certificate {
    /// SHA-256 of the certificate: pairs of hexadecimal digits, separated by colons.
    sha256: String,
    /// Whether the tracker made it, so that clients know it only by its fingerprint.
    self_signed: bool,
    /// When it expires, in seconds since 1970. Null: it cannot be read.
    expires: Option<u64>,
}

/// The certificate that is in use.
#[utoipa::path(
    get,
    path = "/api/v2/certificate",
    tag = "control",
    responses(
        (status = 200, description = "The certificate.", body = Certificate),
        (status = 404, description = "No listener uses one.", body = ApiError),
    )
)]
pub(in crate::admin) async fn certificate(
    State(state): State<admin::State>,
) -> Result<Json<Certificate>, ApiError> {
    let certificates = state
        .handle
        .certificates()
        .ok_or_else(|| ApiError::unknown("no listener uses a certificate"))?;
    let expires = certificates.expires();
    let expires = expires.and_then(|at: SystemTime| at.duration_since(UNIX_EPOCH).ok());
    Ok(Json(Certificate {
        sha256: certificates.fingerprint(),
        self_signed: certificates.is_self_signed(),
        expires: expires.map(|since| since.as_secs()),
    }))
}

/// How to drain.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::admin) struct DrainRequest {
    /// Seconds until the tracker stops, at most a day. Null: until somebody stops it.
    #[schema(maximum = 86_400)]
    seconds: Option<u64>,
}

/// Whether the tracker drains.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct DrainState {
    /// Whether it does.
    draining: bool,
    /// Seconds until it stops. Null: it does not stop by itself.
    seconds_left: Option<u64>,
}

impl From<Option<Draining>> for DrainState {
    fn from(draining: Option<Draining>) -> Self {
        let left = draining.and_then(|draining| draining.left);
        Self {
            draining: draining.is_some(),
            seconds_left: left.map(|left| left.as_secs()),
        }
    }
}

/// Whether the tracker drains.
#[utoipa::path(
    get,
    path = "/api/v2/drain",
    tag = "control",
    responses((status = 200, description = "The state.", body = DrainState))
)]
pub(in crate::admin) async fn draining(State(state): State<admin::State>) -> Json<DrainState> {
    Json(state.handle.draining().into())
}

/// Sends clients away: the health check answers 503, and connections end after their next reply. Announces are
/// served as before. Then the tracker stops, if a time is named. Without a body, none is.
#[utoipa::path(
    post,
    path = "/api/v2/drain",
    tag = "control",
    request_body = Option<DrainRequest>,
    responses((status = 200, description = "The state.", body = DrainState))
)]
pub(in crate::admin) async fn drain(
    State(state): State<admin::State>,
    OptionalBody(DrainRequest { seconds }): OptionalBody<DrainRequest>,
) -> Result<Json<DrainState>, ApiError> {
    if seconds.is_some_and(|seconds| seconds > LONGEST) {
        return Err(ApiError::wrong("seconds is at most 86400"));
    }
    state.handle.drain(seconds.map(Duration::from_secs));
    Ok(draining(State(state)).await)
}

/// Ends draining: the tracker goes on.
#[utoipa::path(
    delete,
    path = "/api/v2/drain",
    tag = "control",
    responses((status = 200, description = "The state.", body = DrainState))
)]
pub(in crate::admin) async fn end_drain(State(state): State<admin::State>) -> Json<DrainState> {
    state.handle.end_drain();
    draining(State(state)).await
}
