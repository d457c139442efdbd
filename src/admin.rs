//! The admin API: HTTP/1.1 on a TCP listener and a Unix socket of its own, apart from everything that clients
//! of the tracker use. docs/api.md describes it for operators.
//!
//! To add a resource, write a handler and name it in [`router`]; a path that is not plainly "GET reads, the
//! rest writes" also gets a row in [`guard`].

mod error;
mod failures;
mod guard;
mod health;
mod serve;
mod tokens;

use std::sync::Arc;

use arc_swap::ArcSwap;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config;
use crate::server::Handle;
use failures::Failures;
pub(crate) use serve::{serve_tcp, serve_unix};
pub(crate) use tokens::{Tokens, TokensError};

/// Name of the Unix socket in the data directory.
pub(crate) const SOCKET: &str = "admin.sock";

/// What the admin API keeps besides the tracker. One per server.
#[derive(Debug)]
pub(crate) struct Shared {
    tokens: ArcSwap<Tokens>,
    failures: Failures,
}

impl Shared {
    /// Reads the files of tokens.
    pub(crate) fn new(config: &config::Admin) -> Result<Self, TokensError> {
        Ok(Self {
            tokens: ArcSwap::from_pointee(Tokens::read(config)?),
            failures: Failures::default(),
        })
    }

    /// Puts other tokens in force.
    pub(crate) fn set_tokens(&self, tokens: Tokens) {
        self.tokens.store(Arc::new(tokens));
    }
}

/// What every handler gets.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// The tracker.
    pub(crate) handle: Handle,
}

impl State {
    pub(crate) fn new(handle: &Handle) -> Self {
        Self {
            handle: handle.clone(),
        }
    }

    fn shared(&self) -> &Shared {
        &self.handle.admin
    }
}

/// All resources.
fn router(state: State) -> axum::Router {
    let (router, _openapi) = OpenApiRouter::new()
        .routes(routes!(health::health_check))
        .split_for_parts();
    guard::protect(router, &state).with_state(state)
}
