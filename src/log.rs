//! Helps with lines of the log that strangers can cause: a limit per place, and values that are safe to
//! show. The submodules write logs without making anyone wait.

pub(crate) mod access;
pub(crate) mod file;
pub(crate) mod queue;

use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;

/// Lines of one place that are logged per [`WINDOW`]. Further ones are counted.
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);

/// Whether anything logs at this level. One load of an atomic, so that a hot path pays for nothing else.
#[inline(always)]
pub(crate) fn is_on(level: LevelFilter) -> bool {
    level <= LevelFilter::current()
}

/// Limits how often one place of the program logs.
#[derive(Debug)]
pub(crate) struct Limit(Mutex<Window>);

#[derive(Debug)]
struct Window {
    began: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

/// What to do with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Log it. So many before it were suppressed.
    Log {
        /// Number of lines.
        suppressed: u64,
    },
    /// Log that lines are suppressed from now on.
    First,
    /// Log nothing.
    Suppress,
}

impl Limit {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Window {
            began: None,
            lines: 0,
            suppressed: 0,
        }))
    }

    /// Decides about one line.
    pub(crate) fn check(&self, now: Instant) -> Verdict {
        let mut window = self.0.lock();
        let is_over = |began: Instant| now.duration_since(began) >= WINDOW;
        if window.began.is_none_or(is_over) {
            window.began = Some(now);
            window.lines = 1;
            let suppressed = std::mem::take(&mut window.suppressed);
            return Verdict::Log { suppressed };
        }
        if window.lines < LINES {
            window.lines += 1;
            return Verdict::Log { suppressed: 0 };
        }
        window.suppressed += 1;
        match window.suppressed {
            1 => Verdict::First,
            _ => Verdict::Suppress,
        }
    }
}

/// Logs a warning that strangers can cause, at most [`LINES`] times per minute. Counts what it suppresses.
macro_rules! warn_limited {
    ($counters:expr, $what:literal, $($field:tt)*) => {{
        static LIMIT: $crate::log::Limit = $crate::log::Limit::new();
        let verdict = LIMIT.check(std::time::Instant::now());
        match verdict {
            $crate::log::Verdict::Log { suppressed } => {
                if suppressed > 0 {
                    tracing::warn!(suppressed, concat!($what, ": lines like this were suppressed"));
                }
                tracing::warn!($($field)*, $what);
            }
            $crate::log::Verdict::First => {
                tracing::warn!(concat!($what, ": more lines like this are suppressed for a minute"));
            }
            $crate::log::Verdict::Suppress => {}
        }
        if !matches!(verdict, $crate::log::Verdict::Log { .. }) {
            $counters.count($crate::counters::Counter::LogLinesSuppressed);
        }
    }};
}
pub(crate) use warn_limited;

/// Bytes of a stranger: escaped to printable ASCII, and cut.
pub(crate) struct Shown<'a>(pub(crate) &'a [u8]);

/// Bytes that [`Shown`] shows at most.
const SHOWN: usize = 64;

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        let shown = &bytes[..bytes.len().min(SHOWN)];
        shown.escape_ascii().fmt(f)?;
        match bytes.len() > SHOWN {
            true => write!(f, "... ({} bytes)", bytes.len()),
            false => Ok(()),
        }
    }
}

/// The path and query of a request, without what may be secret.
///
/// A passkey can stand in any segment of the path and in several fields, and a misspelt URL is just what
/// an operator looks for. So only words that are no secret are shown, and `*` stands for all others.
pub(crate) struct ShownTarget<'a>(pub(crate) &'a [u8]);

/// Fields of a query with harmless values. `key` is missing: it proves who a peer is.
const FIELDS: &[&str] = &[
    "info_hash",
    "peer_id",
    "port",
    "uploaded",
    "downloaded",
    "left",
    "corrupt",
    "event",
    "compact",
    "numwant",
    "num_want",
    "no_peer_id",
    "supportcrypto",
    "requirecrypto",
    "ip",
    "ipv4",
    "ipv6",
    "ia",
    "scion",
];
/// Fields whose name is shown and whose value is not.
const SECRET_FIELDS: &[&str] = &["key", "passkey", "auth", "token", "trackerid"];
/// Most fields and segments that are shown.
const PARTS: usize = 24;

impl fmt::Display for ShownTarget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(target) = self;
        let query = target.iter().position(|byte| *byte == b'?');
        let (path, query) = target.split_at(query.unwrap_or(target.len()));
        for (at, segment) in path.split(|byte| *byte == b'/').enumerate() {
            if at == PARTS {
                return f.write_str("/...");
            }
            if at > 0 {
                f.write_char('/')?;
            }
            match segment.is_empty() || is_public(segment) {
                true => Shown(segment).fmt(f)?,
                false => f.write_char('*')?,
            }
        }
        let Some((_, query)) = query.split_first() else {
            return Ok(());
        };
        for (at, pair) in query.split(|byte| *byte == b'&').enumerate() {
            if at == PARTS {
                return f.write_str("&...");
            }
            f.write_char(if at == 0 { '?' } else { '&' })?;
            let name = pair.iter().position(|byte| *byte == b'=');
            let (name, value) = pair.split_at(name.unwrap_or(pair.len()));
            let is_one_of = |names: &[&str]| names.iter().any(|it| it.as_bytes() == name);
            if is_one_of(FIELDS) {
                Shown(name).fmt(f)?;
                Shown(value).fmt(f)?;
            } else if is_one_of(SECRET_FIELDS) {
                Shown(name).fmt(f)?;
                f.write_str("=*")?;
            } else if !pair.is_empty() {
                f.write_char('*')?;
            }
        }
        Ok(())
    }
}

/// Whether a segment of a path is no passkey: the words of trackers, and names of files that browsers and
/// scanners ask for.
fn is_public(segment: &[u8]) -> bool {
    let words: [&[u8]; 5] = [
        b"announce",
        b"scrape",
        b"tracker",
        b"favicon.ico",
        b"robots.txt",
    ];
    let name = segment.strip_suffix(b".php").unwrap_or(segment);
    words.iter().any(|word| name.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_logs_some_lines_a_minute_and_counts_the_others() {
        let limit = Limit::new();
        let start = Instant::now();
        let at = |seconds| limit.check(start + Duration::from_secs(seconds));
        let line = |suppressed| Verdict::Log { suppressed };
        for number in 0..u64::from(LINES) {
            assert_eq!(at(number), line(0));
        }
        assert_eq!(at(10), Verdict::First);
        for _ in 0..99 {
            assert_eq!(at(59), Verdict::Suppress);
        }
        assert_eq!(at(60), line(100));
        assert_eq!(at(61), line(0));
        assert_eq!(at(3600), line(0));
    }

    #[test]
    fn bytes_of_strangers_are_escaped_and_cut() {
        let shown = Shown(b"\x1b[31m\r\nforged\xff\"").to_string();
        assert_eq!(shown, r#"\x1b[31m\r\nforged\xff\""#);
        let long = Shown(&[b'a'; 100]).to_string();
        assert_eq!(long, format!("{}... (100 bytes)", "a".repeat(64)));
    }

    #[test]
    fn secrets_in_a_target_are_masked() {
        for (target, expected) in [
            ("/announce", "/announce"),
            ("/", "/"),
            ("", ""),
            ("/announce/s3cret", "/announce/*"),
            ("/s3cret/announce", "/*/announce"),
            ("/%733cret/anounce", "/*/*"),
            ("/s3cret/announce.php?x", "/*/announce.php?*"),
            (
                "/announce?passkey=s3cret&port=1",
                "/announce?passkey=*&port=1",
            ),
            ("/announce?s3cret", "/announce?*"),
            ("/announce?key=s3cret&left=&", "/announce?key=*&left=&"),
            ("/announce?pass=s3cret&left=x\n", "/announce?*&left=x\\n"),
            ("/announce?event=\x1b[2J", "/announce?event=\\x1b[2J"),
            ("http://s3cret@host/announce", "*//*/announce"),
        ] {
            let shown = ShownTarget(target.as_bytes()).to_string();
            assert_eq!(shown, expected);
            assert!(!shown.contains("cret"));
        }
        let long = format!("/announce?{}", "left=1&".repeat(10_000));
        let shown = ShownTarget(long.as_bytes()).to_string();
        assert!(shown.len() < 300, "{shown}");
        let longest = format!(
            "/announce?{}",
            format!("left={}&", "\n".repeat(900)).repeat(100)
        );
        assert!(ShownTarget(longest.as_bytes()).to_string().len() < 24 * 330);
    }
}
