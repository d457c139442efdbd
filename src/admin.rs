//! The admin API: HTTP/1.1 on a TCP listener and a Unix socket of its own, apart from everything that clients
//! of the tracker use. docs/api.md describes it for operators.
//!
//! To add a resource, write a handler and name it in [`router`]; a path that is not plainly "GET reads, the
//! rest writes" also gets a row in [`guard`].

#![expect(
    unused_qualifications,
    reason = "utoipa writes out the types of parameters"
)]

mod clients;
mod error;
mod events;
mod failures;
mod guard;
mod health;
pub(crate) mod history;
mod metrics;
mod openapi;
mod page;
mod patience;
mod peers;
mod schemas;
mod serve;
mod sources;
mod stats_json;
mod tokens;
mod unix_time;
mod v1;
mod v2;

use std::sync::Arc;

use arc_swap::ArcSwap;
use scion_tracker_core::registry::memory::Memory;
use scion_tracker_core::registry::read::{Census, TorrentPage, TorrentQuery};
use tokio::sync::Mutex;
use tokio::task;
use tokio_util::task::TaskTracker;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config;
use crate::server::Handle;
pub(crate) use events::Events;
use failures::Failures;
pub(crate) use serve::{serve_tcp, serve_unix};
pub(crate) use tokens::{Tokens, TokensError};

/// What the admin API keeps besides the tracker. One per server.
#[derive(Debug)]
pub(crate) struct Shared {
    tokens: ArcSwap<Tokens>,
    failures: Failures,
    /// Changes that are being made. They go on when the client is gone.
    changes: TaskTracker,
    /// Held while somebody goes through the whole registry: one at a time, so that most cores stay free.
    walking: Arc<Mutex<()>>,
    /// The last hour.
    pub(crate) history: history::History,
}

impl Shared {
    /// Reads the files of tokens.
    pub(crate) fn new(config: &config::Admin) -> Result<Self, TokensError> {
        Ok(Self {
            tokens: ArcSwap::from_pointee(Tokens::read(config)?),
            failures: Failures::default(),
            changes: TaskTracker::new(),
            walking: Arc::default(),
            history: history::History::default(),
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

    /// A page of torrents. `None` if that panicked.
    async fn list_torrents(&self, query: TorrentQuery) -> Option<TorrentPage> {
        self.walk(move |registry| registry.list_torrents(&query))
            .await
    }

    /// Counts all peers. `None` if that panicked.
    async fn census(&self) -> Option<Census> {
        self.walk(|registry| {
            let mut census = registry.census();
            while !registry.count(&mut census) {}
            census.finish()
        })
        .await
    }

    /// Goes through the registry on a thread of its own, one at a time.
    async fn walk<T: Send + 'static>(
        &self,
        walk: impl FnOnce(&Memory) -> T + Send + 'static,
    ) -> Option<T> {
        let walking = Arc::clone(&self.shared().walking).lock_owned().await;
        let handle = self.handle.clone();
        let walked = task::spawn_blocking(move || {
            let walked = walk(handle.registry());
            drop(walking);
            walked
        });
        walked.await.ok()
    }
}

/// All resources.
fn router(state: State) -> axum::Router {
    let (router, openapi) = OpenApiRouter::with_openapi(openapi::begin())
        .routes(routes!(health::health_check))
        // The API of torrust.
        .routes(routes!(v1::keys::generate, v1::keys::delete))
        .routes(routes!(v1::keys::add_key))
        .routes(routes!(v1::keys::reload_keys))
        .routes(routes!(v1::whitelist::add, v1::whitelist::remove))
        .routes(routes!(v1::whitelist::reload_list))
        .routes(routes!(v1::torrents::torrent))
        .routes(routes!(v1::torrents::torrents))
        .routes(routes!(v1::stats::stats))
        .routes(routes!(v1::metrics::metrics))
        // Our own.
        .routes(routes!(v2::torrents::list))
        .routes(routes!(v2::torrents::get))
        .routes(routes!(v2::torrents::places))
        .routes(routes!(v2::keys::list, v2::keys::add))
        .routes(routes!(v2::keys::get, v2::keys::put, v2::keys::delete))
        .routes(routes!(
            v2::lists::allow::list,
            v2::lists::allow::add_text
        ))
        .routes(routes!(v2::lists::allow::put, v2::lists::allow::delete))
        .routes(routes!(v2::lists::deny::list, v2::lists::deny::add_text))
        .routes(routes!(v2::lists::deny::put, v2::lists::deny::delete))
        .routes(routes!(
            v2::rules::get,
            v2::rules::put,
            v2::rules::delete
        ))
        .routes(routes!(v2::rules::list))
        .routes(routes!(
            v2::rules::get_torrent,
            v2::rules::put_torrent,
            v2::rules::delete_torrent
        ))
        .routes(routes!(v2::bans::list, v2::bans::add, v2::bans::delete))
        .routes(routes!(v2::bans::busiest))
        .routes(routes!(v2::isolation::list))
        .routes(routes!(v2::isolation::put, v2::isolation::delete))
        .routes(routes!(v2::stats::stats))
        .routes(routes!(v2::events::events))
        .routes(routes!(v2::control::reload))
        .routes(routes!(v2::control::certificate))
        .routes(routes!(v2::snapshot::state, v2::snapshot::write))
        .routes(routes!(
            v2::control::draining,
            v2::control::drain,
            v2::control::end_drain
        ))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
        .routes(routes!(stats_json::stats_json))
        .split_for_parts();
    let router = router.merge(page::router());
    let description = openapi::Description::new(&openapi::complete(openapi));
    let router = router.route(
        "/api/openapi.json",
        axum::routing::get(move || async move { description.response() }),
    );
    let router = router
        .fallback(guard::unknown)
        .method_not_allowed_fallback(guard::wrong_method);
    guard::protect(router, &state).with_state(state)
}
