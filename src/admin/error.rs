//! Errors of our own resources: JSON with a text. And extractors whose errors have this form.

use std::borrow::Cow;
use std::fmt;

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::records::RecordsError;

/// Why a request was not done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct ApiError {
    #[serde(skip)]
    status: StatusCode,
    /// A text for people.
    error: Cow<'static, str>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, error: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            error: error.into(),
        }
    }

    /// The request is wrong.
    pub(super) fn wrong(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// The same in the shape of torrust's API.
    pub(super) fn into_text(self) -> Response {
        (self.status, self.error.into_owned()).into_response()
    }

    /// There is no such thing.
    pub(super) fn unknown(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self)).into_response()
    }
}

/// The status of a change that was not made.
pub(super) const fn status(error: &RecordsError) -> StatusCode {
    match error {
        RecordsError::InFile(_) => StatusCode::CONFLICT,
        RecordsError::Invalid(_) => StatusCode::BAD_REQUEST,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl From<RecordsError> for ApiError {
    fn from(error: RecordsError) -> Self {
        Self::new(status(&error), error.to_string())
    }
}

/// A body that is a JSON object.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        // serde would also read a list as the fields of a struct in their order.
        match Json::<Map<String, Value>>::from_request(request, state).await {
            Ok(Json(object)) => serde_json::from_value(whole(object.into()))
                .map(Self)
                .map_err(|error| ApiError::wrong(error.to_string())),
            Err(rejected) => {
                let status = match rejected.status() {
                    StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
                    status => status,
                };
                Err(ApiError::new(status, rejected.body_text()))
            }
        }
    }
}

/// A body that is a JSON object, or empty: then every field has its default.
#[derive(Debug)]
pub(super) struct OptionalBody<T>(pub(super) T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let head = Request::from_parts(parts.clone(), body);
        let bytes =
            Bytes::from_request(head, state)
                .await
                .map_err(|rejected: BytesRejection| {
                    ApiError::new(rejected.status(), rejected.body_text())
                })?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        let request = Request::from_parts(parts, bytes.into());
        let Body(body) = Body::from_request(request, state).await?;
        Ok(Self(body))
    }
}

/// Writes numbers such as 5.0, which are integers to JSON Schema, as serde reads integers.
fn whole(value: Value) -> Value {
    // Every integer up to here is a number of its own as f64.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT => {
                Value::from(float as i64)
            }
            _ => Value::Number(number),
        },
        Value::Array(items) => items.into_iter().map(whole).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter();
            Value::Object(fields.map(|(name, value)| (name, whole(value))).collect())
        }
        other => other,
    }
}

/// The parameters of the path.
#[derive(Debug)]
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(path)| Self(path))
            .map_err(|rejected| ApiError::wrong(rejected.body_text()))
    }
}

/// The parameters of the query.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|rejected| ApiError::wrong(rejected.body_text()))
    }
}
