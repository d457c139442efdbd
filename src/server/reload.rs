//! Reloads that the server is asked for while it runs: the program knows where its configuration comes from,
//! and the server does not.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;

use tokio::sync::Mutex;

use super::{Handle, ReloadError, Server};
use crate::config::Changes;

/// Any error of a function that reloads.
type AnyError = Box<dyn Error + Send + Sync>;
type Reloading = Pin<Box<dyn Future<Output = Result<Changes, AnyError>> + Send>>;

/// Reads the configuration again and puts it in force.
#[derive(Default)]
pub(super) struct Reloader {
    function: OnceLock<Box<dyn Fn(Handle) -> Reloading + Send + Sync>>,
    /// Held while a reload runs: two at once could put the older configuration in force last.
    one_at_a_time: Mutex<()>,
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_set = self.function.get().is_some();
        f.debug_struct("Reloader").field("is_set", &is_set).finish()
    }
}

/// Why a reload that was asked for did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadRequestError {
    /// The program has not called [`Server::on_reload`].
    #[error("this program cannot read its configuration again")]
    Unsupported,
    /// The configuration cannot be used. The old one stays in force.
    #[error("{}", chain(.0.as_ref()))]
    Failed(AnyError),
}

/// An error and its causes on one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text += ": ";
            text += &cause_text;
        }
        source = cause.source();
    }
    text
}

impl Server {
    /// Sets what [`Handle::request_reload`] and the admin API call: it reads the configuration from where it
    /// came from, and passes it to [`Handle::reload`] of the handle that it gets. Only the first call counts.
    pub fn on_reload<F, E>(&self, reload: impl Fn(Handle) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<Changes, E>> + Send + 'static,
        E: Into<AnyError>,
    {
        let function = move |handle| -> Reloading {
            let reloading = reload(handle);
            Box::pin(async { reloading.await.map_err(Into::into) })
        };
        // A second function is dropped.
        let _ = self.handle.reloader.function.set(Box::new(function));
    }
}

impl Handle {
    /// Reads the configuration again and puts it in force, with the function that [`Server::on_reload`] has
    /// set. If anything is wrong, nothing changes.
    pub async fn request_reload(&self) -> Result<Changes, ReloadRequestError> {
        let function = self.reloader.function.get();
        let function = function.ok_or(ReloadRequestError::Unsupported)?;
        let _running = self.reloader.one_at_a_time.lock().await;
        function(self.clone())
            .await
            .map_err(ReloadRequestError::Failed)
    }

    /// Puts the configuration in force again: reads the files of lists, tokens and the certificate that it
    /// names. Blocks like [`Handle::reload`].
    pub fn reload_files(&self) -> Result<Changes, ReloadError> {
        self.reload((**self.config.load()).clone())
    }
}
