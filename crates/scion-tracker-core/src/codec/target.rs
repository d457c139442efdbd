//! The path of a tracker URL: what it asks for, and the passkey in it. The same for HTTP and for the
//! URL data of BEP 41.
//!
//! | path | meaning |
//! |---|---|
//! | `/announce`, `/scrape`, also with `.php` | an announce, a scrape |
//! | `/announce/KEY`, `/KEY/announce` | an announce with a passkey; `scrape` likewise |
//! | `/any/prefix/announce` | an announce: a proxy has left its prefix in |
//! | `/` with an `info_hash` in the query | an announce: torrents of the first SCION tracker carry `/` |
//! | `/` | the index |
//!
//! Empty segments (`//announce`, `/announce/`), letter case and percent-encoding make no difference. A
//! segment that is not a [`Passkey`] is allowed in the place of one and ignored. A passkey in the query
//! wins over one in the path, because the segment before `announce` may as well be a prefix.

use crate::request::Passkey;

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// An announce (BEP 3).
    Announce,
    /// A scrape (BEP 48).
    Scrape,
    /// What a person sees who opens the tracker's address.
    Index,
}

/// A path that leads somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// What it asks for.
    pub action: Action,
    /// The passkey in the path. One in the query wins over it.
    pub passkey: Option<Passkey>,
}

impl Target {
    const fn new(action: Action) -> Self {
        Self {
            action,
            passkey: None,
        }
    }

    /// Reads a path. `None` if it leads nowhere.
    #[inline]
    pub fn of(path: &str, query: &str) -> Option<Self> {
        match path {
            "/announce" => Some(Self::new(Action::Announce)),
            "/scrape" => Some(Self::new(Action::Scrape)),
            "/" if has_info_hash(query) => Some(Self::new(Action::Announce)),
            "/" => Some(Self::new(Action::Index)),
            _ => Self::of_segments(path),
        }
    }

    #[cold]
    fn of_segments(path: &str) -> Option<Self> {
        let path = percent_decode(path.strip_prefix('/')?);
        let mut last = None;
        let mut found = None;
        for segment in path.split(|byte| *byte == b'/').filter(|it| !it.is_empty()) {
            let before = last.replace(segment);
            found = match (Action::of_segment(segment), found) {
                // Clients make the scrape URL by replacing the last `announce`.
                (Some(action), _) => Some((action, before)),
                // Behind `announce`: the passkey, and nothing more.
                (None, Some((action, _))) if Action::of_segment(before?).is_some() => {
                    Some((action, Some(segment)))
                }
                (None, Some(_)) => return None,
                (None, None) => None,
            };
        }
        let (action, passkey) = found?;
        Some(Self {
            action,
            passkey: passkey.and_then(Passkey::from_bytes),
        })
    }
}

impl Action {
    fn of_segment(segment: &[u8]) -> Option<Self> {
        let name = match segment.len().checked_sub(4).map(|at| segment.split_at(at)) {
            Some((name, extension)) if extension.eq_ignore_ascii_case(b".php") => name,
            _ => segment,
        };
        if name.eq_ignore_ascii_case(b"announce") {
            Some(Self::Announce)
        } else if name.eq_ignore_ascii_case(b"scrape") {
            Some(Self::Scrape)
        } else {
            None
        }
    }
}

/// Decodes `%xx`. Anything else is kept as it is.
fn percent_decode(path: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, after @ ..] = rest {
        let decoded = match (first, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match decoded {
            // An encoded slash is a part of its segment, which is then no passkey.
            Some((high, low)) if high << 4 | low != b'/' => {
                out.push(high << 4 | low);
                rest = &after[2..];
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

fn has_info_hash(query: &str) -> bool {
    query.split('&').any(|pair| pair.starts_with("info_hash="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_clients_expect() {
        let target = |action, passkey: Option<&str>| {
            Some(Target {
                action,
                passkey: passkey.map(|text| text.parse().unwrap()),
            })
        };
        let announce = |passkey| target(Action::Announce, passkey);
        let scrape = |passkey| target(Action::Scrape, passkey);
        for (path, query, expected) in [
            ("/announce", "", announce(None)),
            ("/announce", "info_hash=x", announce(None)),
            ("/announce/secret", "x", announce(Some("secret"))),
            ("/secret/announce", "", announce(Some("secret"))),
            ("/announce/not.one", "", announce(None)),
            ("/announce/K%2FEY", "", announce(None)),
            ("/announce/", "", announce(None)),
            ("//announce", "", announce(None)),
            ("/announce/secret/", "", announce(Some("secret"))),
            ("/secret/announce/", "", announce(Some("secret"))),
            ("/tracker/announce", "", announce(Some("tracker"))),
            ("/a/b/announce", "", announce(Some("b"))),
            ("/a/b/announce/secret", "", announce(Some("secret"))),
            ("/announce.php", "", announce(None)),
            ("/ANNOUNCE", "", announce(None)),
            ("/%61nnounce", "", announce(None)),
            ("/%", "", None),
            ("/", "info_hash=x", announce(None)),
            ("/", "compact=1&info_hash=x", announce(None)),
            ("/scrape", "", scrape(None)),
            ("/scrape/secret", "", scrape(Some("secret"))),
            ("/secret/scrape", "", scrape(Some("secret"))),
            ("/announce/scrape", "", scrape(Some("announce"))),
            ("/tracker/scrape.php", "", scrape(Some("tracker"))),
            ("/", "", target(Action::Index, None)),
            ("", "", None),
            ("*", "", None),
            ("//", "", None),
            ("/announce/a/b", "", None),
            ("/announces", "", None),
            ("/other", "", None),
            ("/other", "u=://x/announce", None),
        ] {
            assert_eq!(Target::of(path, query), expected, "{path}?{query}");
        }
    }
}
