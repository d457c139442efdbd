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

    /// Replaces the page that the HTTP listeners serve to everyone.
    pub(crate) fn set_public_page(&self, page: Option<PublicPage>) {
        self.service.public_page.store(page.map(Arc::new));
    }
}
