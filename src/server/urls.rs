//! The URLs that clients announce to, as the start prints them, the page shows them and the API returns them.

use super::{Handle, Listening};

impl Handle {
    /// The URLs that clients announce to: those that the configuration calls public, else one for each
    /// listener, on this host.
    pub fn urls(&self) -> Vec<String> {
        let config = self.config.load();
        let public = &config.public_urls;
        match public.is_empty() {
            true => {
                let trackers = self.listening.iter().filter(|it| it.is_tracker());
                trackers.map(Listening::url).collect()
            }
            false => public.iter().map(ToString::to_string).collect(),
        }
    }

    /// The URLs that the holder of a passkey announces to.
    #[cfg(feature = "admin")]
    pub(crate) fn urls_with(&self, passkey: &str) -> Vec<String> {
        let urls = self.urls();
        urls.iter().map(|url| with_passkey(url, passkey)).collect()
    }
}

/// Puts a passkey behind `announce`, or into the query of a URL that ends with something else.
#[cfg(feature = "admin")]
fn with_passkey(url: &str, passkey: &str) -> String {
    let (path, query) = match url.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (url, String::new()),
    };
    match path.ends_with("/announce") || path.ends_with("/announce.php") {
        true => format!("{path}/{passkey}{query}"),
        false if query.is_empty() => format!("{path}?passkey={passkey}"),
        false => format!("{path}{query}&passkey={passkey}"),
    }
}

#[cfg(all(test, feature = "admin"))]
mod tests {
    use scion_tracker_core::codec::target::{Action, Target};

    use super::*;

    #[test]
    fn a_url_with_a_passkey_is_one_that_the_tracker_reads() {
        for (url, expected) in [
            (
                "udp://t.example:6969/announce",
                "udp://t.example:6969/announce/KEY",
            ),
            (
                "https://t.example/announce.php",
                "https://t.example/announce.php/KEY",
            ),
            (
                "https://t.example/announce?a=b",
                "https://t.example/announce/KEY?a=b",
            ),
            (
                "https://t.example/a/announce",
                "https://t.example/a/announce/KEY",
            ),
        ] {
            let with = with_passkey(url, "KEY");
            assert_eq!(with, expected);
            let path = with.split('?').next().unwrap();
            let path = &path[path.find("example").unwrap()..];
            let target = Target::of(&path[path.find('/').unwrap()..], "").unwrap();
            assert_eq!(target.action, Action::Announce);
            assert_eq!(target.passkey, Some("KEY".parse().unwrap()), "{with}");
        }
        for (url, expected) in [
            ("https://t.example/", "https://t.example/?passkey=KEY"),
            (
                "https://t.example/x?a=b",
                "https://t.example/x?a=b&passkey=KEY",
            ),
        ] {
            assert_eq!(with_passkey(url, "KEY"), expected);
        }
    }
}
