//! The path of a tracker URL: what it asks for, and the passkey in it. The same for HTTP and for the
//! URL data of BEP 41.
//!
//! | path | meaning |
//! |---|---|
//! | `/announce`, `/scrape` | an announce, a scrape |
//! | `/announce/KEY`, `/KEY/announce` | an announce with a passkey; `scrape` likewise |
//! | `/` with an `info_hash` in the query | an announce: torrents of the first SCION tracker carry `/` |
//! | `/` | the index |
//!
//! A segment that is not a [`Passkey`] is allowed in the place of one and ignored.

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
    /// The passkey in the path. One in the query counts only where the path has none.
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
            _ => Self::with_passkey(path),
        }
    }

    fn with_passkey(path: &str) -> Option<Self> {
        let (first, second) = path.strip_prefix('/')?.split_once('/')?;
        let (action, segment) = match (first, second) {
            ("announce", segment) | (segment, "announce") => (Action::Announce, segment),
            // Clients make the scrape URL by replacing `announce` wherever it is.
            ("scrape", segment) | (segment, "scrape") => (Action::Scrape, segment),
            _ => return None,
        };
        let is_segment = !segment.is_empty() && !segment.contains('/');
        is_segment.then(|| Self {
            action,
            passkey: Passkey::from_bytes(segment.as_bytes()),
        })
    }
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
        for (path, query, expected) in [
            ("/announce", "", target(Action::Announce, None)),
            ("/announce", "info_hash=x", target(Action::Announce, None)),
            (
                "/announce/secret",
                "x",
                target(Action::Announce, Some("secret")),
            ),
            (
                "/secret/announce",
                "",
                target(Action::Announce, Some("secret")),
            ),
            ("/announce/not%20one", "", target(Action::Announce, None)),
            ("/", "info_hash=x", target(Action::Announce, None)),
            ("/", "compact=1&info_hash=x", target(Action::Announce, None)),
            ("/scrape", "", target(Action::Scrape, None)),
            ("/scrape/secret", "", target(Action::Scrape, Some("secret"))),
            ("/secret/scrape", "", target(Action::Scrape, Some("secret"))),
            ("/", "", target(Action::Index, None)),
            ("", "", None),
            ("*", "", None),
            ("/announce/", "", None),
            ("/announce/a/b", "", None),
            ("//announce", "", None),
            ("/other", "", None),
            ("/other", "u=://x/announce", None),
        ] {
            assert_eq!(Target::of(path, query), expected, "{path}?{query}");
        }
    }
}
