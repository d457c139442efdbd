//! Keeps the secrets of UDP connection ids in the data directory, so that ids stay valid when the tracker
//! restarts. Otherwise clients would repeat their announces with the old id for 15 seconds or more.
//!
//! Each start makes a new secret and adds it to the file. The earlier ones are accepted as long as ids
//! that were issued with them live. In the file, the newest secret comes first:
//!
//! ```text
//! # comment
//! START KEY        when the tracker started, in seconds since 1970; 16 bytes in hexadecimal digits
//! ```

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use scion_tracker_core::codec::connection::PastSecret;

use crate::data_dir;

/// The file in the data directory.
const FILE: &str = "udp-secrets";
/// Most earlier secrets that are kept, so that some restarts in a row invalidate no ids. While they are
/// accepted, an id that is not valid costs one more hash for each.
const KEPT: usize = 4;
/// Most bytes of the file that are read.
const MAX_BYTES: u64 = 4096;

/// The secrets of UDP connection ids.
#[derive(Clone)]
pub(crate) struct Secrets {
    /// Issues ids.
    pub(crate) key: [u8; 16],
    /// Of earlier runs. Their ages end at the start of this one.
    pub(crate) past: Vec<PastSecret>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Do not print the key.
        f.debug_struct("Secrets")
            .field("past", &self.past)
            .finish_non_exhaustive()
    }
}

/// A line of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// When the tracker started, in seconds since 1970.
    start: u64,
    key: [u8; 16],
}

/// Makes a secret for the run that starts now, and keeps it in this directory together with those of earlier
/// runs whose ids may live, by this validity. If the directory cannot be read and written, warns and returns
/// the new secret alone.
pub(super) fn start(
    directory: Option<&Path>,
    validity: Duration,
) -> Result<Secrets, getrandom::Error> {
    let mut key = [0; 16];
    getrandom::fill(&mut key)?;
    let kept = match directory {
        Some(directory) => keep(directory, key, validity, now()).map_err(|error| {
            let file = directory.join(FILE);
            format!("cannot keep secrets in {}: {error}", file.display())
        }),
        None => Err("there is no directory for what must survive a restart".to_owned()),
    };
    let past = kept.unwrap_or_else(|reason| {
        tracing::warn!(
            "UDP connection ids will not survive a restart, after which clients wait 15 seconds or more: {reason}; name a directory with --data-dir or data_dir"
        );
        Vec::new()
    });
    Ok(Secrets { key, past })
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Adds a secret to the file. Returns the earlier ones whose ids may live.
fn keep(
    directory: &Path,
    key: [u8; 16],
    validity: Duration,
    now: u64,
) -> io::Result<Vec<PastSecret>> {
    fs::create_dir_all(directory)?;
    let file = directory.join(FILE);
    let mut runs = match read(&file) {
        Ok(runs) => runs,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(
                "{} is not a file of secrets and is replaced",
                file.display()
            );
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    retain_live(&mut runs, validity, now);
    runs.insert(0, Run { start: now, key });
    write(&file, &runs)?;
    let past = runs[1..].iter().filter_map(|run| {
        // Rounded up, as this run may have begun late in its second.
        let age = u32::try_from(now - run.start + 1).ok()?;
        Some(PastSecret { key: run.key, age })
    });
    Ok(past.collect())
}

/// Removes the runs whose ids have expired: those that ended too long ago, at the start of the next run. The
/// newest may have ended just now. Also removes runs of the future, which show that the clock was changed.
fn retain_live(runs: &mut Vec<Run>, validity: Duration, now: u64) {
    // A window more, at most, and seconds that were cut off.
    let lifetime = validity.as_secs() + validity.as_secs() / 128 + 3;
    let mut end = now;
    runs.retain(|run| {
        let lives = run.start <= now && end <= now && now - end <= lifetime;
        end = run.start;
        lives
    });
    runs.truncate(KEPT);
}

fn read(file: &Path) -> io::Result<Vec<Run>> {
    let mut text = String::new();
    File::open(file)?
        .take(MAX_BYTES)
        .read_to_string(&mut text)?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| parse(line).ok_or_else(|| io::ErrorKind::InvalidData.into()))
        .collect()
}

fn parse(line: &str) -> Option<Run> {
    let (start, digits) = line.split_once(' ')?;
    if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let key = u128::from_str_radix(digits, 16).ok()?.to_be_bytes();
    let start = start.parse().ok()?;
    Some(Run { start, key })
}

/// Replaces the file atomically. Only its owner can read it.
fn write(file: &Path, runs: &[Run]) -> io::Result<()> {
    let mut text =
        "# Secrets of the connection ids of UDP trackers. Keep them to yourself.\n".to_owned();
    for Run { start, key } in runs {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{start} {:032x}", u128::from_be_bytes(*key));
    }
    data_dir::replace(file, &text, 0o600)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use scion_tracker_core::address::Host;
    use scion_tracker_core::codec::connection::ConnectionIds;
    use scion_tracker_core::types::Time;

    use super::*;

    const VALIDITY: Duration = Duration::from_secs(600);

    fn key(number: u8) -> [u8; 16] {
        [number; 16]
    }

    /// Starts a tracker at this time. Returns the numbers of the secrets that it accepts besides its own.
    fn run(directory: &Path, number: u8, now: u64) -> Vec<(u8, u32)> {
        let past = keep(directory, key(number), VALIDITY, now).unwrap();
        past.iter()
            .map(|secret| (secret.key[0], secret.age))
            .collect()
    }

    #[test]
    fn secrets_are_kept_as_long_as_their_ids_live() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("made/by/us");
        for (number, now, expected) in [
            (1, 1000, &[][..]),
            // The first run may have lasted until now.
            (2, 90_000, &[(1, 89_001)]),
            (3, 90_500, &[(2, 501), (1, 89_501)]),
            // The first run ended at 90,000.
            (4, 90_700, &[(3, 201), (2, 701)]),
            (5, 200_000, &[(4, 109_301)]),
            (6, 200_001, &[(5, 2), (4, 109_302)]),
            (7, 200_001, &[(6, 1), (5, 2), (4, 109_302)]),
            (8, 200_002, &[(7, 2), (6, 2), (5, 3), (4, 109_303)]),
            (9, 200_003, &[(8, 2), (7, 3), (6, 3), (5, 4)]),
            // The clock was set back: these runs are of the future.
            (10, 50_000, &[]),
            (11, 50_001, &[(10, 2)]),
        ] {
            assert_eq!(run(&directory, number, now), expected, "{number}");
        }
        let file = directory.join(FILE);
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = fs::read_dir(&directory).unwrap();
        assert_eq!(files.count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_file_that_is_not_ours_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE);
        let long = "7 00".repeat(5000);
        for text in [
            "nonsense",
            "1 +0112233445566778899aabbccddeeff0",
            "-1 00112233445566778899aabbccddeeff",
            "1 00112233445566778899aabbccddeef",
            "1 00112233445566778899aabbccddeeff\n\n",
            "99999999999999999999 00112233445566778899aabbccddeeff",
            long.as_str(),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(run(directory.path(), 1, 1000), [], "{text}");
            assert_eq!(run(directory.path(), 2, 1001), [(1, 2)]);
        }
        fs::write(&file, [0xff; 9]).unwrap();
        assert_eq!(run(directory.path(), 1, 1000), []);
    }

    #[test]
    fn a_directory_that_cannot_be_used_gives_a_fresh_secret() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(FILE)).unwrap();
        let unusable = [
            None,
            Some(Path::new("/proc/nowhere")),
            Some(file.path()),
            Some(directory.path()),
        ];
        for directory in unusable {
            let secrets = [(); 2].map(|()| start(directory, VALIDITY).unwrap());
            assert!(secrets.iter().all(|secrets| secrets.past.is_empty()));
            assert_ne!(secrets[0].key, secrets[1].key);
        }
    }

    /// An id that was issued at one second of the clock on the wall, by a run that began at another.
    #[test]
    fn ids_survive_restarts_at_any_fraction_of_a_second() {
        let host = Host::ip_only([192, 0, 2, 1].into());
        let ids =
            |number, past: &[PastSecret]| ConnectionIds::new(key(number), 600).accepting(past);
        // Fractions in tenths.
        for began in 0..10 {
            for restarted in 50..60 {
                let directory = tempfile::tempdir().unwrap();
                let seconds = |tenths: u64| 1000 + tenths / 10;
                let first = keep(directory.path(), key(1), VALIDITY, seconds(began)).unwrap();
                let second = keep(directory.path(), key(2), VALIDITY, seconds(restarted)).unwrap();
                let (first, second) = (ids(1, &first), ids(2, &second));
                // Seconds that have passed since each start.
                let of_first = |tenths: u64| Time::from_secs(((tenths - began) / 10) as u32);
                let of_second = |tenths: u64| Time::from_secs(((tenths - restarted) / 10) as u32);
                for issued in [began, restarted] {
                    let id = first.issue(&host, of_first(issued));
                    for later in [0, 1, 9, 10, 100, 5900] {
                        let now = of_second(restarted + later);
                        assert!(
                            second.check(id, &host, now),
                            "{began} {restarted} {issued} {later}"
                        );
                    }
                    let now = of_second(restarted + 6200);
                    assert!(!second.check(id, &host, now));
                }
            }
        }
    }
}
