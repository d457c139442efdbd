//! `/api/v2/keys`: the passkeys of a private tracker. Those in the file `access.passkeys` are not among them.

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use scion_tracker_core::request::Passkey;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::{Listed, Paging, Removed};
use crate::admin::error::{ApiError, Body, OptionalBody, Path, Query};
use crate::admin::guard::Allowed;
use crate::admin::schemas::LONGEST;
use crate::admin::v1::keys::{random, text};
use crate::admin::{self, unix_time};
use crate::records::PasskeyRecord;

/// A passkey.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Key {
    /// The passkey. With a token that may only read, its first two characters at most, and "…".
    key: String,
    /// When it expires, in seconds since 1970. Null: never.
    valid_until: Option<u64>,
    /// A note for operators.
    note: Option<String>,
    /// Whose it is.
    owner: Option<String>,
    /// When it was added, in seconds since 1970.
    created: u64,
    /// The URLs that its holder announces to. Missing in lists, and with a token that may only read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    urls: Vec<String>,
}

impl Key {
    fn new(record: PasskeyRecord, allowed: Allowed) -> Self {
        Self {
            key: match allowed.write {
                true => text(&record.passkey),
                false => format!("{:?}", record.passkey),
            },
            valid_until: unix_time::until(record.expiry),
            note: record.note,
            owner: record.owner,
            created: record.created,
            urls: vec![],
        }
    }

    /// With the URLs that its holder announces to.
    fn with_urls(record: PasskeyRecord, state: &admin::State, allowed: Allowed) -> Self {
        let urls = match allowed.write {
            true => state.handle.urls_with(&text(&record.passkey)),
            false => vec![],
        };
        Self {
            urls,
            ..Self::new(record, allowed)
        }
    }
}

/// What is said of a passkey.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::admin) struct KeySettings {
    /// Seconds from now until it expires. Null: never.
    #[schema(maximum = 100_000_000_000_u64)]
    seconds_valid: Option<u64>,
    /// A note for operators.
    #[schema(max_length = 1000, pattern = "^[^\\x00]*$")]
    note: Option<String>,
    /// Whose it is.
    #[schema(max_length = 1000, pattern = "^[^\\x00]*$")]
    owner: Option<String>,
}

/// A passkey to add.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::admin) struct NewKey {
    /// The passkey. Null: the tracker makes one of 32 characters.
    #[schema(pattern = "^[0-9A-Za-z_-]{1,64}$")]
    key: Option<String>,
    /// Seconds from now until it expires. Null: never.
    #[schema(maximum = 100_000_000_000_u64)]
    seconds_valid: Option<u64>,
    /// A note for operators.
    #[schema(max_length = 1000, pattern = "^[^\\x00]*$")]
    note: Option<String>,
    /// Whose it is.
    #[schema(max_length = 1000, pattern = "^[^\\x00]*$")]
    owner: Option<String>,
}

/// A passkey in a path.
#[derive(Debug)]
pub(in crate::admin) struct KeyInPath(Passkey);

impl<'de> Deserialize<'de> for KeyInPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

/// Most characters of a note and of an owner.
const TEXT: usize = 1000;

fn record(passkey: Passkey, settings: KeySettings) -> Result<PasskeyRecord, ApiError> {
    let KeySettings {
        seconds_valid,
        note,
        owner,
    } = settings;
    let texts = [&note, &owner];
    if texts
        .into_iter()
        .flatten()
        .any(|it| it.chars().count() > TEXT)
    {
        return Err(ApiError::wrong(
            "note and owner have at most 1000 characters",
        ));
    }
    if seconds_valid.is_some_and(|seconds| seconds > LONGEST) {
        return Err(ApiError::wrong("seconds_valid is at most 100000000000"));
    }
    Ok(PasskeyRecord {
        note,
        owner,
        ..PasskeyRecord::new(passkey, unix_time::expiry(seconds_valid))
    })
}

fn unknown() -> ApiError {
    ApiError::unknown("this passkey is not known")
}

/// Adds or changes a passkey, and returns it.
async fn put_record(
    state: &admin::State,
    record: PasskeyRecord,
    allowed: Allowed,
) -> Result<Json<Key>, ApiError> {
    let passkey = record.passkey;
    let added = record.clone();
    state.handle.add_passkey(record).await?;
    // It has the time of its creation now.
    let record = state.handle.passkey(&passkey).unwrap_or(added);
    Ok(Json(Key::with_urls(record, state, allowed)))
}

/// Lists the passkeys.
#[utoipa::path(
    get,
    path = "/api/v2/keys",
    tag = "keys",
    params(Paging),
    responses((status = 200, description = "A part of them.", body = Listed<Key>))
)]
pub(in crate::admin) async fn list(
    State(state): State<admin::State>,
    Extension(allowed): Extension<Allowed>,
    Query(paging): Query<Paging>,
) -> Json<Listed<Key>> {
    let page = state.handle.passkeys(paging.offset(), paging.limit());
    Json(Listed::new(page, &paging, |it| Key::new(it, allowed)))
}

/// Adds a passkey, or makes one. One that is known gets these settings. Without a body, it makes one that never
/// expires.
#[utoipa::path(
    post,
    path = "/api/v2/keys",
    tag = "keys",
    request_body = Option<NewKey>,
    responses((status = 201, description = "The passkey.", body = Key))
)]
pub(in crate::admin) async fn add(
    State(state): State<admin::State>,
    Extension(allowed): Extension<Allowed>,
    OptionalBody(new): OptionalBody<NewKey>,
) -> Result<(StatusCode, Json<Key>), ApiError> {
    let passkey = match new.key {
        Some(key) => key
            .parse()
            .map_err(|error: scion_tracker_core::request::PasskeyError| {
                ApiError::wrong(error.to_string())
            })?,
        None => random()
            .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?,
    };
    let settings = KeySettings {
        seconds_valid: new.seconds_valid,
        note: new.note,
        owner: new.owner,
    };
    let key = put_record(&state, record(passkey, settings)?, allowed).await?;
    Ok((StatusCode::CREATED, key))
}

/// One passkey.
#[utoipa::path(
    get,
    path = "/api/v2/keys/{key}",
    tag = "keys",
    params(("key" = String, Path, description = "The passkey.", pattern = "^[0-9A-Za-z_-]{1,64}$")),
    responses(
        (status = 200, description = "The passkey.", body = Key),
        (status = 404, description = "It is not known.", body = ApiError),
    )
)]
pub(in crate::admin) async fn get(
    State(state): State<admin::State>,
    Extension(allowed): Extension<Allowed>,
    Path(KeyInPath(passkey)): Path<KeyInPath>,
) -> Result<Json<Key>, ApiError> {
    let record = state.handle.passkey(&passkey).ok_or_else(unknown)?;
    Ok(Json(Key::with_urls(record, &state, allowed)))
}

/// Adds a passkey, or changes what is said of it.
#[utoipa::path(
    put,
    path = "/api/v2/keys/{key}",
    tag = "keys",
    params(("key" = String, Path, description = "The passkey.", pattern = "^[0-9A-Za-z_-]{1,64}$")),
    request_body = KeySettings,
    responses((status = 200, description = "The passkey.", body = Key))
)]
pub(in crate::admin) async fn put(
    State(state): State<admin::State>,
    Extension(allowed): Extension<Allowed>,
    Path(KeyInPath(passkey)): Path<KeyInPath>,
    Body(settings): Body<KeySettings>,
) -> Result<Json<Key>, ApiError> {
    put_record(&state, record(passkey, settings)?, allowed).await
}

/// Removes a passkey. The next request with it is refused.
#[utoipa::path(
    delete,
    path = "/api/v2/keys/{key}",
    tag = "keys",
    params(("key" = String, Path, description = "The passkey.", pattern = "^[0-9A-Za-z_-]{1,64}$")),
    responses(
        (status = 200, description = "It is removed.", body = Removed),
        (status = 404, description = "It is not known.", body = ApiError),
        (status = 409, description = "It comes from a file.", body = ApiError),
    )
)]
pub(in crate::admin) async fn delete(
    State(state): State<admin::State>,
    Path(KeyInPath(passkey)): Path<KeyInPath>,
) -> Result<Json<Removed>, ApiError> {
    let removed = state.handle.remove_passkey(passkey).await?;
    removed.map(|_| Json(Removed::YES)).ok_or_else(unknown)
}
