//! What the page of statistics needs of a server.

use std::sync::Arc;

use super::Handle;
use crate::config::Config;
use crate::transport::http::page::PublicPage;

impl Handle {
    /// The configuration that was put in force last.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Whether somebody can see statistics: `has_admin` says whether there is an admin listener.
    pub(crate) fn is_watched(&self, has_admin: bool) -> bool {
        has_admin || self.config.load().page.public
    }

    /// Replaces the page that the HTTP listeners serve to everyone.
    pub(crate) fn set_public_page(&self, page: Option<PublicPage>) {
        self.service.public_page.store(page.map(Arc::new));
    }
}
