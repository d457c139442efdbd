//! The log of `serve`: what is logged, and where it goes.
//!
//! A thread writes the lines, behind a bounded queue. A line that cannot be written (a full disk, a reader
//! that is gone or does not read) is lost and counted, and nothing else happens.

mod datagrams;
mod journald;
mod record;
pub(super) mod start;
pub(super) mod summary;
mod syslog;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use self::datagrams::Datagrams;
use self::record::{Record, Records};
use crate::config::{self, ConfigError, LogFormat, LogTarget};
use crate::log::file::LogFile;
use crate::log::queue::{Queue, Sink};
use crate::log::{Limit, Verdict};

/// The crates of the tracker. Targets of their lines begin like this.
const OURS: &str = "scion_tracker";
/// The name of the program in the journal and in syslog.
const IDENTIFIER: &str = "scion-tracker";
/// How often suppressed lines of libraries are reported.
const REPORT: Duration = Duration::from_secs(60);
/// Lines that wait to be written, at most.
const WAITING: usize = 4096;
/// How long the end of the program waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The started log. The last lines are written when it is dropped.
pub(super) struct Log {
    queue: Queue<Vec<u8>>,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Log {
    /// Starts the log. Call it once.
    pub(super) fn start(log: &config::Log) -> anyhow::Result<Self> {
        let target = target(log);
        let queue = open(&target)?;
        let (filter, handle) = reload::Layer::new(filter(log)?);
        let subscriber = tracing_subscriber::registry().with(filter).with(Libraries);
        let lines = || {
            fmt::layer()
                .with_ansi(target == LogTarget::Stderr && io::stderr().is_terminal())
                // Otherwise a line that cannot be written is reported with `eprintln`, which panics.
                .log_internal_errors(false)
                .with_writer(ToQueue(queue.clone()))
        };
        let started = match (&target, log.format) {
            (LogTarget::Journald, _) => {
                let queue = queue.clone();
                let encode = journald::encode;
                subscriber.with(Records { queue, encode }).try_init()
            }
            (LogTarget::Syslog, _) => {
                let queue = queue.clone();
                let header = syslog::Header::new(log.facility);
                let encode = move |record: &Record| header.encode(record, SystemTime::now());
                subscriber.with(Records { queue, encode }).try_init()
            }
            (LogTarget::Stderr | LogTarget::File(_), LogFormat::Text) => {
                subscriber.with(lines()).try_init()
            }
            (LogTarget::Stderr | LogTarget::File(_), LogFormat::Json) => subscriber
                .with(lines().json().fmt_fields(fmt::format::JsonFields::new()))
                .try_init(),
        };
        started.context("cannot start the log")?;
        Ok(Self {
            queue,
            filter: handle,
        })
    }

    /// Changes what is logged.
    pub(super) fn set_filter(&self, filter: EnvFilter) -> anyhow::Result<()> {
        Ok(self.filter.reload(filter)?)
    }

    /// Opens the file again, if the log goes to one.
    pub(super) fn reopen(&self) {
        self.queue.reopen();
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.drain(LAST_LINES);
    }
}

/// Where the log goes.
fn target(log: &config::Log) -> LogTarget {
    match &log.to {
        Some(target) => target.clone(),
        None if log.format == LogFormat::Text && journald::is_stderr() => LogTarget::Journald,
        None => LogTarget::Stderr,
    }
}

/// Opens the target and starts the thread that writes to it.
fn open(target: &LogTarget) -> anyhow::Result<Queue<Vec<u8>>> {
    let start = |sink: io::Result<Datagrams>| Queue::start("log", WAITING, sink?);
    match target {
        LogTarget::Stderr => Queue::start("log", WAITING, Stderr),
        LogTarget::Journald => start(Datagrams::to(Path::new(journald::SOCKET))),
        LogTarget::Syslog => start(Datagrams::to(Path::new(syslog::SOCKET))),
        LogTarget::File(path) => {
            LogFile::open(path).and_then(|file| Queue::start("log", WAITING, ToFile(file)))
        }
    }
    .with_context(|| {
        let to = match target {
            LogTarget::Stderr => "standard error".into(),
            LogTarget::Journald => format!("the journal at {}", journald::SOCKET),
            LogTarget::Syslog => format!("syslog at {}", syslog::SOCKET),
            LogTarget::File(path) => format!("the file {}", path.display()),
        };
        format!("cannot log to {to}")
    })
}

/// Says that lines were lost. Called by the thread that writes, when the queue has room.
fn report_lost(lost: u64) {
    tracing::warn!(lost, "lines of the log could not be written and were lost");
}

/// Sends each line to the thread that writes.
struct ToQueue(Queue<Vec<u8>>);

impl<'a> MakeWriter<'a> for ToQueue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

/// A line is written at once.
struct Line<'a>(&'a Queue<Vec<u8>>);

impl io::Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.send(line.into());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Stderr;

impl Sink<Vec<u8>> for Stderr {
    fn write(&mut self, line: Vec<u8>) -> io::Result<()> {
        io::stderr().write_all(&line)
    }

    fn report_lost(&mut self, lost: u64) {
        report_lost(lost);
    }
}

struct ToFile(LogFile);

impl Sink<Vec<u8>> for ToFile {
    fn write(&mut self, line: Vec<u8>) -> io::Result<()> {
        self.0.push(&line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }

    fn reopen(&mut self) {
        if let Err(error) = self.0.reopen() {
            tracing::error!(%error, "cannot open the log file again: the old file stays in use");
        }
    }

    fn report_lost(&mut self, lost: u64) {
        report_lost(lost);
    }
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
