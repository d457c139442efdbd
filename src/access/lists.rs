//! Reads lists of torrents and passkeys, one entry per line.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use scion_tracker_core::access::{Expiry, PasskeyTable, TorrentSet};
use scion_tracker_core::request::{Passkey, PasskeyError};
use scion_tracker_core::types::{InfoHash, InfoHashError};

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The file cannot be read.
    #[error("cannot read the list {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line has an error.
    #[error("{}:{line}: {kind}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong there. Passkeys are not shown.
        kind: LineError,
    },
}

/// What is wrong with a line of a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// Not the info hash of a torrent.
    #[error("{error}, found {found:?}")]
    InfoHash {
        /// The beginning of what is there.
        found: String,
        /// What was expected.
        error: InfoHashError,
    },
    /// Not a passkey.
    #[error(transparent)]
    Passkey(#[from] PasskeyError),
    /// The second field of a passkey's line is not an expiry.
    #[error(
        "expected when the passkey expires: a date such as 2027-01-31, a time such as 2027-01-31T12:00:00Z, seconds since 1970, or - for never; found {0:?}"
    )]
    Expiry(String),
    /// Not text.
    #[error("the line is not UTF-8 text")]
    Encoding,
}

/// The fields of a line. `None` for an empty line or a comment.
fn fields(line: &str) -> Option<impl Iterator<Item = &str>> {
    let mut fields = line.split_ascii_whitespace().peekable();
    let first = fields.peek()?;
    (!first.starts_with('#')).then_some(fields)
}

/// Reads a file of torrents into a table like `empty`. The hash ends at the first space, as in the lists of
/// opentracker; what follows is a comment.
pub(super) fn torrents(path: &Path, empty: &TorrentSet) -> Result<TorrentSet, ListError> {
    read(path, |bytes| parse_torrents(bytes, empty))
}

/// Reads a file of passkeys into a table like `empty`.
pub(super) fn passkeys(path: &Path, empty: &PasskeyTable) -> Result<PasskeyTable, ListError> {
    read(path, |bytes| parse_passkeys(bytes, empty))
}

fn read<T>(
    path: &Path,
    parse: impl FnOnce(&[u8]) -> Result<T, (usize, LineError)>,
) -> Result<T, ListError> {
    let path = path.to_path_buf();
    let bytes = match read_file(&path) {
        Ok(bytes) => bytes,
        Err(source) => return Err(ListError::Read { path, source }),
    };
    parse(&bytes).map_err(|(line, kind)| ListError::Line { path, line, kind })
}

/// Reads a file. Refuses a pipe: opening one can wait forever, and what it holds can be read only once.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    match fs::metadata(path)?.file_type().is_fifo() {
        true => Err(io::Error::other("it is a pipe and not a file")),
        false => fs::read(path),
    }
}

/// Hands each line to `parse`. An error comes with the number of its line.
fn each_line(
    bytes: &[u8],
    mut parse: impl FnMut(&str) -> Result<(), LineError>,
) -> Result<(), (usize, LineError)> {
    // Editors on Windows put a byte order mark at the start.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let text = str::from_utf8(line).map_err(|_| LineError::Encoding);
        text.and_then(&mut parse)
            .map_err(|error| (number + 1, error))?;
    }
    Ok(())
}

/// About how many lines there are.
fn lines(bytes: &[u8], length: usize) -> usize {
    bytes.len() / length
}

fn parse_torrents(bytes: &[u8], empty: &TorrentSet) -> Result<TorrentSet, (usize, LineError)> {
    let mut torrents = empty.emptied(lines(bytes, 41));
    each_line(bytes, |line| {
        let Some(hash) = fields(line).and_then(|mut fields| fields.next()) else {
            return Ok(());
        };
        let info_hash: InfoHash = hash.parse().map_err(|error| LineError::InfoHash {
            found: hash.chars().take(80).collect(),
            error,
        })?;
        torrents.insert(info_hash, ());
        Ok(())
    })?;
    Ok(torrents)
}

fn parse_passkeys(bytes: &[u8], empty: &PasskeyTable) -> Result<PasskeyTable, (usize, LineError)> {
    let mut passkeys = empty.emptied(lines(bytes, 33));
    each_line(bytes, |line| {
        let Some(mut fields) = fields(line) else {
            return Ok(());
        };
        let Some(passkey) = fields.next() else {
            return Ok(());
        };
        let passkey: Passkey = passkey.parse()?;
        let expiry = match fields.next() {
            None => Expiry::Never,
            Some(comment) if comment.starts_with('#') => Expiry::Never,
            Some(text) => parse_expiry(text)
                .ok_or_else(|| LineError::Expiry(text.chars().take(40).collect()))?,
        };
        passkeys.insert(passkey, expiry);
        Ok(())
    })?;
    Ok(passkeys)
}

fn parse_expiry(text: &str) -> Option<Expiry> {
    if text == "-" {
        return Some(Expiry::Never);
    }
    if let Ok(seconds) = text.parse() {
        return Some(Expiry::At(seconds));
    }
    let time = match text.contains('T') {
        true => humantime::parse_rfc3339(text),
        false => humantime::parse_rfc3339(&format!("{text}T00:00:00Z")),
    };
    let since = time.ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Expiry::At(since.as_secs()))
}

/// What a list changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Difference {
    pub(super) entries: usize,
    pub(super) before: usize,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries, {} before", self.entries, self.before)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;

    use proptest::prelude::*;
    use scion_tracker_core::access::{Access, Table};

    use super::*;

    const HASH: &str = "0123456789abcdefABCD0123456789abcdef0123";

    fn hashes(text: &str) -> Result<Vec<InfoHash>, (usize, LineError)> {
        let set = parse_torrents(text.as_bytes(), Access::default().allowed())?;
        let hashes: BTreeSet<_> = set.iter().map(|(hash, ())| *hash).collect();
        Ok(hashes.into_iter().collect())
    }

    fn keys(text: &str) -> Result<Vec<(String, Expiry)>, (usize, LineError)> {
        let table = parse_passkeys(text.as_bytes(), Access::default().passkeys())?;
        let mut keys: Vec<_> = table
            .iter()
            .map(|(key, expiry)| (String::from_utf8(key.as_bytes().to_vec()).unwrap(), *expiry))
            .collect();
        keys.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(keys)
    }

    #[test]
    fn reads_info_hashes_of_both_versions_and_comments() {
        let hash: InfoHash = HASH.parse().unwrap();
        let v2 = format!("{HASH}{}", "9".repeat(24));
        for text in [
            HASH.to_owned(),
            format!("{HASH}\n"),
            format!("\u{feff}# listed\r\n\r\n  {HASH}\r\n"),
            format!("{HASH} Debian 13\n#{HASH}\n   # more"),
            format!("{HASH}\t# a comment\n{}\n", HASH.to_lowercase()),
            v2,
        ] {
            assert_eq!(hashes(&text), Ok(vec![hash]), "{text}");
        }
        assert_eq!(hashes(""), Ok(vec![]));
        assert_eq!(hashes("# nothing\n\n"), Ok(vec![]));
    }

    #[test]
    fn says_which_line_of_torrents_is_wrong() {
        for (text, line, found) in [
            ("x", 1, "x"),
            (&format!("# a\n{HASH}\n{HASH}0\n"), 3, &format!("{HASH}0")),
            (
                &format!("{HASH},{HASH}"),
                1,
                &format!("{HASH},{}", &HASH[..39]),
            ),
        ] {
            let kind = LineError::InfoHash {
                found: found.to_owned(),
                error: InfoHashError,
            };
            assert_eq!(hashes(text), Err((line, kind)), "{text}");
        }
        let table = Access::default();
        let binary = parse_torrents(b"\n\xff\n", table.allowed()).unwrap_err();
        assert_eq!(binary, (2, LineError::Encoding));
    }

    #[test]
    fn reads_passkeys_with_expiry_and_note() {
        let text = "# members\nalpha\nbeta -\r\ngamma 1800000000 paid until 2027\n\n\
            delta 2027-01-31 Ann\nepsilon 2027-01-31T12:00:00Z\nzeta # no expiry\n";
        let expected = [
            ("alpha", Expiry::Never),
            ("beta", Expiry::Never),
            ("delta", Expiry::At(1_801_353_600)),
            ("epsilon", Expiry::At(1_801_396_800)),
            ("gamma", Expiry::At(1_800_000_000)),
            ("zeta", Expiry::Never),
        ];
        let expected = expected.map(|(key, expiry)| (key.to_owned(), expiry));
        assert_eq!(keys(text), Ok(expected.to_vec()));
    }

    #[test]
    fn says_which_line_of_passkeys_is_wrong_and_hides_them() {
        for (text, line, kind) in [
            ("a\nsecret!\n", 2, LineError::Passkey(PasskeyError)),
            ("secret Ann", 1, LineError::Expiry("Ann".into())),
            (
                "secret 2027-13-01",
                1,
                LineError::Expiry("2027-13-01".into()),
            ),
        ] {
            let error = keys(text).unwrap_err();
            assert!(!error.1.to_string().contains("secret"), "{error:?}");
            assert_eq!(error, (line, kind));
        }
    }

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("allow");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let read = torrents(&pipe, Access::default().allowed());
            let _ = done.send(read.map(|set| set.len()));
        });
        let read = is_done.recv_timeout(std::time::Duration::from_secs(20));
        let error = read.expect("it waits for the pipe").unwrap_err();
        assert!(matches!(error, ListError::Read { .. }), "{error:?}");
    }

    proptest! {
        /// What is written is read, with any comments and white space, and no bytes cause a panic.
        #[test]
        fn reads_what_was_written(
            entries in prop::collection::btree_map(any::<[u8; 20]>(), (any::<bool>(), "[ \t]{0,2}", "( [a-z# ]{0,9})?"), 0..40),
            noise in any::<Vec<u8>>(),
        ) {
            let mut text = String::new();
            for (hash, (comment, before, after)) in &entries {
                if *comment {
                    text += "# comment\n";
                }
                writeln!(text, "{before}{}{after}", InfoHash(*hash)).unwrap();
            }
            let expected: Vec<_> = entries.keys().copied().map(InfoHash).collect();
            prop_assert_eq!(hashes(&text), Ok(expected));
            let _ = parse_torrents(&noise, &Table::new([0; 4]));
            let _ = parse_passkeys(&noise, &Table::new([0; 4]));
        }
    }

    /// The figure of docs/access.md: `cargo test --release --lib a_million_lines -- --ignored --nocapture`.
    #[test]
    #[ignore = "measures time, which means something only in a release build on a quiet machine"]
    #[expect(clippy::print_stdout, reason = "it is there to show a figure")]
    fn a_million_lines_within_a_second() {
        let mut text = String::new();
        for number in 0..1_000_000u64 {
            let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            writeln!(text, "{spread:016x}{number:024x}").unwrap();
        }
        let access = Access::default();
        let start = std::time::Instant::now();
        let set = parse_torrents(text.as_bytes(), access.allowed()).unwrap();
        let took = start.elapsed();
        println!("{} lines in {took:?}", set.len());
        assert_eq!(set.len(), 1_000_000);
        assert!(took.as_secs_f64() < 1.0);
    }
}
