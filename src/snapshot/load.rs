//! Reads the snapshot when the tracker starts. One that cannot be used is set aside.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::OFlags;
use scion_tracker_core::registry::memory::Memory;
use scion_tracker_core::registry::memory::transfer::Restored;
use scion_tracker_core::types::Time;

use super::format::{DecodeError, Decoder, Item};
use super::unix_now;

/// What was read at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// When the snapshot was written. The time of the start if the clock was set back since.
    pub written: SystemTime,
    /// How long it took to read.
    pub duration: Duration,
    /// Torrents with peers that are in the registry now.
    pub torrents: u64,
    /// Peers that are in the registry now.
    pub peers: u64,
    /// Peers that had not announced for longer than their lifetime.
    pub expired: u64,
    /// Peers for which the limits in force left no room.
    pub left_out: u64,
}

/// Makes a registry from a snapshot. `None` if there is none that can be used: the tracker starts with an empty
/// registry.
pub(super) fn load<E>(
    path: &Path,
    empty: impl Fn() -> Result<Memory, E>,
) -> Result<Option<(Memory, LoadReport)>, E> {
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            set_aside(path, &error.into());
            return Ok(None);
        }
    };
    let mut memory = empty()?;
    let report = match read(&file, &mut memory, unix_now()) {
        Ok(report) => report,
        Err(error) => {
            set_aside(path, &error);
            return Ok(None);
        }
    };
    tracing::info!(
        torrents = report.torrents,
        peers = report.peers,
        expired = report.expired,
        left_out = report.left_out,
        milliseconds = report.duration.as_millis() as u64,
        "swarms read from the snapshot of {}",
        humantime::format_rfc3339_seconds(report.written)
    );
    if report.left_out > 0 {
        tracing::warn!(
            "{} peers of the snapshot have no room: the limits in registry are lower than before",
            report.left_out
        );
    }
    Ok(Some((memory, report)))
}

/// Opens a file. Anything else, such as a pipe, which would have the start wait, is an error.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = options.read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a file")),
    }
}

/// Reads a snapshot at the time `now`, in seconds since 1970, into a registry whose clock begins. After an error
/// the registry has to be thrown away.
fn read(file: &File, memory: &mut Memory, now: u64) -> Result<LoadReport, DecodeError> {
    let begun = Instant::now();
    let length = file.metadata()?.len();
    let decoder = Decoder::new(BufReader::with_capacity(256 << 10, file), length)?;
    let written = decoder.written();
    if written > now {
        tracing::warn!(
            "the snapshot of the swarms is of the future, so the clock was set back: its peers count as if it were of now"
        );
    }
    let older = u32::try_from(now.saturating_sub(written)).unwrap_or(u32::MAX);
    let mut restored = Restored::default();
    let start = Time::from_secs(0);
    let mut clients = Vec::new();
    decoder.read(older, |item| match item {
        Item::Torrent {
            info_hash,
            completed,
            peers,
        } => restored += memory.restore(info_hash, completed, peers, start),
        Item::Past {
            info_hash,
            completed,
        } => restored += memory.restore(info_hash, completed, &[], start),
        Item::Clients(bytes) => clients = bytes.to_vec(),
    })?;
    memory.restore_clients(&clients);
    let totals = memory.totals();
    Ok(LoadReport {
        written: SystemTime::UNIX_EPOCH + Duration::from_secs(written.min(now)),
        duration: begun.elapsed(),
        torrents: totals.torrents,
        peers: totals.seeders + totals.leechers,
        expired: restored.expired,
        left_out: restored.left_out,
    })
}

/// Where a snapshot goes that cannot be used. One per reason is kept.
fn aside(path: &Path, error: &DecodeError) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    match error {
        DecodeError::Version(version) => name.push(format!(".version-{version}")),
        _ => name.push(".damaged"),
    }
    name.into()
}

fn set_aside(path: &Path, error: &DecodeError) {
    let aside = aside(path, error);
    let renamed = fs::rename(path, &aside);
    let (path, to) = (path.display(), aside.display());
    match renamed {
        Ok(()) => tracing::error!(
            "the snapshot of the swarms {path} cannot be used: {error}; it is now {to}, and the tracker starts without swarms"
        ),
        Err(cannot) => tracing::error!(
            "the snapshot of the swarms {path} cannot be used: {error}; it cannot be renamed to {to}: {cannot}; the tracker starts without swarms"
        ),
    }
}
