//! The page of statistics, at `/` and `/stats`: rendered here, without a script and without anything from
//! elsewhere. docs/monitoring.md shows it.
//!
//! Visitors of the admin listener see what [`guard`] lets them see: on this host the numbers, with a token also
//! torrents, hosts and forms. The token travels in the body of a form, from a password field or from the page
//! that the last form returned. It is never in a URL or a cookie, so no other page can make a browser send it.

mod compose;
mod forms;
mod picture;
mod view;

use askama::Template;
use axum::extract::State as Extract;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
    X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use super::serve::Arrived;
use super::{State, guard};
use crate::server::Handle;
use crate::transport::http::page::PublicPage;
use compose::Audience;
pub(super) use view::count;
use view::{Operator, SignIn, View};

const STYLE: &str = include_str!("../../templates/page.css");
const SCRIPT: &str = include_str!("../../templates/page.js");
const ICON: &str = include_str!("../../templates/icon.svg");

/// What the page may load and do. Everything comes from the listener itself.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);

/// The routes of the page. They are not part of the API.
pub(super) fn router() -> Router<State> {
    let file = |content: &'static str, content_type: &'static str| {
        get(move || async move {
            let content_type = HeaderValue::from_static(content_type);
            let caching = HeaderValue::from_static("max-age=60");
            let headers = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, caching)];
            (headers, content).into_response()
        })
    };
    Router::new()
        .route("/", get(show))
        .route("/stats", get(show).post(forms::submit))
        .route("/stats.css", file(STYLE, "text/css; charset=utf-8"))
        .route("/stats.js", file(SCRIPT, "text/javascript; charset=utf-8"))
        .route("/stats.svg", file(ICON, "image/svg+xml"))
}

/// Shows the page, or asks who is there.
async fn show(
    Extract(state): Extract<State>,
    Extension(arrived): Extension<Arrived>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    match guard::visitor(&state, arrived.via, &headers, &uri) {
        Ok(_) => {
            let operator = Operator::SignIn(None);
            let view = compose::view(&state.handle, Audience::Visitor(operator));
            page(StatusCode::OK, &view)
        }
        Err(refused) => {
            let error = match refused.status() {
                // Nobody has tried yet.
                StatusCode::UNAUTHORIZED => None,
                _ => Some(refused.message().to_owned()),
            };
            page(refused.status(), &SignIn { error })
        }
    }
}

/// A reply with a page.
fn page(status: StatusCode, template: &impl Template) -> Response {
    const RESOURCES: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
    match template.render() {
        Ok(html) => {
            let headers = [
                (
                    CONTENT_TYPE,
                    HeaderValue::from_static("text/html; charset=utf-8"),
                ),
                (CONTENT_SECURITY_POLICY, POLICY),
                (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
                (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
                (RESOURCES, HeaderValue::from_static("same-origin")),
            ];
            (status, headers, html).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "cannot render the page of statistics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The page for everyone, on the HTTP listeners of the tracker.
pub(super) fn public(handle: &Handle) -> Option<PublicPage> {
    let view: View = compose::view(handle, Audience::Everyone);
    match view.render() {
        Ok(html) => Some(PublicPage {
            html,
            style: STYLE,
            icon: ICON,
        }),
        Err(error) => {
            tracing::error!(%error, "cannot render the page of statistics");
            None
        }
    }
}

#[cfg(test)]
mod tests;
