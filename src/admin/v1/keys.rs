//! Passkeys in the shape of torrust's API.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use scion_tracker_core::access::Expiry;
use scion_tracker_core::request::Passkey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Done, failed, not_recorded, reload};
use crate::admin::error::{ApiError, OptionalBody};
use crate::admin::schemas::LONGEST;
use crate::admin::{self, unix_time};
use crate::records::PasskeyRecord;

/// Characters of a passkey that the tracker makes.
const LENGTH: usize = 32;

/// A passkey.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct AuthKey {
    /// The passkey.
    key: String,
    /// When it expires, in seconds since 1970. Null: never.
    valid_until: Option<u64>,
    /// The same as a text.
    expiry_time: Option<String>,
}

/// A passkey to add.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(in crate::admin) struct AddKey {
    /// The passkey. Null: the tracker makes one.
    #[serde(rename = "key")]
    #[schema(pattern = "^[0-9A-Za-z_-]{1,64}$")]
    key: Option<String>,
    /// Seconds from now until it expires. Null: never.
    #[schema(maximum = 100_000_000_000_u64)]
    seconds_valid: Option<u64>,
}

/// A passkey of 32 random characters of `[0-9A-Za-z]`.
pub(in crate::admin) fn random() -> Result<Passkey, getrandom::Error> {
    const CHARACTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = Vec::with_capacity(LENGTH);
    while text.len() < LENGTH {
        let mut bytes = [0; LENGTH];
        getrandom::fill(&mut bytes)?;
        // Six bits each. The two values without a character are skipped, so that all are as likely.
        let characters = bytes
            .iter()
            .filter_map(|byte| CHARACTERS.get(usize::from(byte & 63)));
        text.extend(characters.take(LENGTH - text.len()));
    }
    // It has the characters and the length of a passkey.
    Passkey::from_bytes(&text).ok_or(getrandom::Error::UNEXPECTED)
}

async fn add(state: &admin::State, passkey: Option<Passkey>, expiry: Expiry) -> Response {
    let passkey = match passkey.map_or_else(random, Ok) {
        Ok(passkey) => passkey,
        Err(error) => {
            let reason = format!("failed to generate key: {error}");
            return failed(StatusCode::INTERNAL_SERVER_ERROR, &reason);
        }
    };
    let record = PasskeyRecord::new(passkey, expiry);
    if let Err(error) = state.handle.add_passkey(record).await {
        return not_recorded("failed to add key", &error);
    }
    let valid_until = unix_time::until(expiry);
    Json(AuthKey {
        key: text(&passkey),
        valid_until,
        expiry_time: valid_until.map(unix_time::text),
    })
    .into_response()
}

/// The characters of a passkey, which are ASCII.
pub(in crate::admin) fn text(passkey: &Passkey) -> String {
    passkey
        .as_bytes()
        .iter()
        .map(|byte| char::from(*byte))
        .collect()
}

fn invalid_duration(seconds: u64) -> Response {
    let text = format!("Invalid URL: invalid auth key duration: \"{seconds}\"");
    (StatusCode::BAD_REQUEST, text).into_response()
}

/// Makes a passkey that is valid for so many seconds.
#[utoipa::path(
    post,
    path = "/api/v1/key/{seconds_valid_or_key}",
    tag = "torrust",
    params(("seconds_valid_or_key" = u64, Path, description = "Seconds from now until the passkey expires.", maximum = 100_000_000_000_u64)),
    responses(
        (status = 200, description = "The new passkey.", body = AuthKey),
        (status = 400, description = "The number is wrong.", body = String, content_type = "text/plain"),
    )
)]
pub(in crate::admin) async fn generate(
    State(state): State<admin::State>,
    Path(seconds): Path<String>,
) -> Response {
    match seconds.parse::<u64>() {
        Ok(seconds) if seconds > LONGEST => invalid_duration(seconds),
        Ok(seconds) => add(&state, None, unix_time::expiry(Some(seconds))).await,
        Err(_) => {
            let text = format!("Invalid URL: Cannot parse `{seconds}` to a `u64`");
            (StatusCode::BAD_REQUEST, text).into_response()
        }
    }
}

/// Adds a passkey, or makes one. Without a body, it makes one that never expires.
#[utoipa::path(
    post,
    path = "/api/v1/keys",
    tag = "torrust",
    request_body = Option<AddKey>,
    responses(
        (status = 200, description = "The passkey.", body = AuthKey),
        (status = 400, description = "The passkey or the body is wrong.", body = String, content_type = "text/plain"),
    )
)]
pub(in crate::admin) async fn add_key(
    State(state): State<admin::State>,
    body: Result<OptionalBody<AddKey>, ApiError>,
) -> Response {
    let AddKey { key, seconds_valid } = match body {
        Ok(OptionalBody(body)) => body,
        Err(error) => return error.into_text(),
    };
    if let Some(seconds) = seconds_valid
        && seconds > LONGEST
    {
        return invalid_duration(seconds);
    }
    let passkey = match key.map(|key| key.parse().map_err(|error| (key, error))) {
        None => None,
        Some(Ok(passkey)) => Some(passkey),
        Some(Err((key, error))) => {
            let error: scion_tracker_core::request::PasskeyError = error;
            let text = format!("Invalid URL: invalid auth key: string \"{key}\", {error}");
            return (StatusCode::BAD_REQUEST, text).into_response();
        }
    };
    add(&state, passkey, unix_time::expiry(seconds_valid)).await
}

/// Removes a passkey.
#[utoipa::path(
    delete,
    path = "/api/v1/key/{seconds_valid_or_key}",
    tag = "torrust",
    params(("seconds_valid_or_key" = String, Path, description = "The passkey.", pattern = "^[0-9A-Za-z_-]{1,64}$")),
    responses(
        (status = 200, description = "It is removed.", body = Done),
        (status = 400, description = "It is no passkey.", body = String, content_type = "text/plain"),
        (status = 404, description = "It is not known.", body = String, content_type = "text/plain"),
        (status = 409, description = "It comes from a file.", body = String, content_type = "text/plain"),
    )
)]
pub(in crate::admin) async fn delete(
    State(state): State<admin::State>,
    Path(key): Path<String>,
) -> Response {
    let Ok(passkey) = key.parse() else {
        let text = format!("Invalid auth key id param \"{key}\"");
        return (StatusCode::BAD_REQUEST, text).into_response();
    };
    match state.handle.remove_passkey(passkey).await {
        Ok(Some(_)) => Done::response(),
        Ok(None) => failed(
            StatusCode::NOT_FOUND,
            "failed to delete key: it is not known",
        ),
        Err(error) => not_recorded("failed to delete key", &error),
    }
}

/// Reads the passkeys in files again.
#[utoipa::path(
    get,
    path = "/api/v1/keys/reload",
    tag = "torrust",
    responses(
        (status = 200, description = "They are read.", body = Done),
        (status = 500, description = "A file cannot be used; the old lists stay.", body = String, content_type = "text/plain"),
    )
)]
pub(in crate::admin) async fn reload_keys(State(state): State<admin::State>) -> Response {
    reload(&state).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passkeys_are_random() {
        let keys: Vec<_> = (0..50).map(|_| text(&random().unwrap())).collect();
        for (at, key) in keys.iter().enumerate() {
            assert_eq!(key.len(), 32, "{key}");
            assert!(
                key.bytes().all(|byte| byte.is_ascii_alphanumeric()),
                "{key}"
            );
            assert!(!keys[..at].contains(key));
        }
        let used: std::collections::BTreeSet<_> = keys.concat().bytes().collect();
        assert!(used.len() > 50, "{used:?}");
    }
}
