//! The log of `serve`: what is logged, and how lines are written to standard error.
//!
//! A line that cannot be written (a full disk, a reader that is gone) is lost, and nothing else happens.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt, reload};

use crate::config::{self, ConfigError, LogFormat};
use crate::log::{Limit, Verdict};

/// The crates of the tracker. Targets of their lines begin like this.
const OURS: &str = "scion_tracker";
/// How often suppressed lines of libraries are reported.
const REPORT: Duration = Duration::from_secs(60);

/// Changes what is logged.
pub(super) type LogReload = Box<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send + Sync>;

/// Starts the log. Call it once.
pub(super) fn start(log: &config::Log) -> anyhow::Result<LogReload> {
    let (filter, handle) = reload::Layer::new(filter(log)?);
    let lines = fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        // Otherwise a line that cannot be written is reported with `eprintln`, which panics.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    let subscriber = tracing_subscriber::registry().with(filter).with(Libraries);
    let started = match log.format {
        LogFormat::Text => subscriber.with(lines).try_init(),
        LogFormat::Json => subscriber
            .with(lines.json().fmt_fields(fmt::format::JsonFields::new()))
            .try_init(),
    };
    started.context("cannot start the log")?;
    Ok(Box::new(move |filter| Ok(handle.reload(filter)?)))
}

/// Reports suppressed lines of libraries once a minute. Never ends.
pub(super) async fn report_suppressed() {
    loop {
        tokio::time::sleep(REPORT).await;
        let suppressed = SUPPRESSED.swap(0, Ordering::Relaxed);
        if suppressed > 0 {
            tracing::warn!(suppressed, "lines of libraries were suppressed");
        }
    }
}

/// Limits the errors that libraries log: strangers may be able to cause them.
struct Libraries;

static LIMIT: Limit = Limit::new();
static SUPPRESSED: AtomicU64 = AtomicU64::new(0);

impl<S: Subscriber> Layer<S> for Libraries {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // An operator who names another level for a library wants to see its lines.
        if metadata.target().starts_with(OURS) || *metadata.level() != Level::ERROR {
            return true;
        }
        let logs = matches!(LIMIT.check(Instant::now()), Verdict::Log { .. });
        if !logs {
            SUPPRESSED.fetch_add(1, Ordering::Relaxed);
        }
        logs
    }
}

/// Reads `log.level`. A level alone is that of the tracker; libraries log errors unless they are named.
pub(super) fn filter(log: &config::Log) -> Result<EnvFilter, ConfigError> {
    let wrong = |why: &dyn std::fmt::Display| ConfigError::Contradiction {
        message: format!("log.level = {:?}: {why}", log.level),
    };
    let directives = log.level.split(',').map(directive);
    let directives = directives.collect::<Option<Vec<_>>>().ok_or_else(|| {
        wrong(&"expected error, warn, info, debug, trace or off, or a list such as info,scion_tracker::tls=debug")
    })?;
    EnvFilter::try_new(directives.join(",")).map_err(|error| wrong(&error))
}

/// A level, or a module and its level. The filter would take another word for a module, and log nothing
/// of the others.
fn directive(text: &str) -> Option<String> {
    let (module, level) = match text.trim().rsplit_once('=') {
        Some((module, level)) => (Some(module), level),
        None => (None, text.trim()),
    };
    let level = match level.to_ascii_lowercase().as_str() {
        "warning" => "warn".to_owned(),
        level @ ("error" | "warn" | "info" | "debug" | "trace" | "off") => level.to_owned(),
        _ => return None,
    };
    match module {
        None if level == "off" => Some(level),
        None => Some(format!("error,{OURS}={level}")),
        Some("") => None,
        Some(module) => Some(format!("{module}={level}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn a_log_level_is_a_level_or_a_list_of_them() {
        let filter = |level: &str| {
            let mut log = Config::default().log;
            log.level = level.into();
            filter(&log).map(|filter| filter.to_string())
        };
        for (level, expected) in [
            ("info", "scion_tracker=info,error"),
            ("warning", "scion_tracker=warn,error"),
            ("WARN", "scion_tracker=warn,error"),
            ("off", "off"),
            ("scion_tracker::tls=warning", "scion_tracker::tls=warn"),
            ("debug,h2=info", "h2=info,scion_tracker=debug,error"),
        ] {
            let mut found: Vec<_> = filter(level)
                .unwrap()
                .split(',')
                .map(String::from)
                .collect();
            let mut expected: Vec<_> = expected.split(',').map(String::from).collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected);
        }
        assert!(filter("info, scion_tracker::tls=debug").is_ok());
        for bad in [
            "",
            "verbose",
            "info,",
            "=info",
            "scion_tracker",
            "a=b=c",
            "info;debug",
        ] {
            let error = filter(bad).unwrap_err().to_string();
            assert!(
                error.contains("log.level") && error.contains("error, warn, info"),
                "{error}"
            );
        }
    }
}
