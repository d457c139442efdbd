//! A URL under which the outside reaches the tracker, as the operator writes it.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::ServerName;
use serde::Deserialize;

use super::value::ListItem;
use crate::client::{TrackerUrl, UrlError};

/// The announce URL of a tracker. It is kept as it was written, with `/announce` added if it has no path.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PublicUrl {
    text: String,
    /// Name or IP address.
    host: String,
}

impl PublicUrl {
    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host in it, if a certificate can name it.
    pub(crate) fn certificate_name(&self) -> Option<&str> {
        let host = self.host.as_str();
        ServerName::try_from(host).is_ok().then_some(host)
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for PublicUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let url: TrackerUrl = text.parse()?;
        // A fragment, which the parser leaves out, is not for a tracker.
        if !text.contains("://") {
            return Err(UrlError::Scheme);
        }
        if text.contains('#') {
            return Err(UrlError::Path);
        }
        let text = match url.path_and_query().is_empty() {
            true => format!("{text}/announce"),
            false => text.into(),
        };
        let host = url.host().to_owned();
        Ok(Self { text, host })
    }
}

impl TryFrom<String> for PublicUrl {
    type Error = UrlError;

    fn try_from(text: String) -> Result<Self, UrlError> {
        text.parse()
    }
}

/// A comma between brackets is part of a SCION address.
impl ListItem for PublicUrl {
    fn split(text: &str) -> Vec<&str> {
        let mut is_inside = false;
        text.split(|c: char| {
            match c {
                '[' => is_inside = true,
                ']' => is_inside = false,
                _ => {}
            }
            matches!(c, ' ' | '\t' | '\n') || c == ',' && !is_inside
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::value;
    use super::*;

    #[test]
    fn a_public_url_is_kept_as_written_and_has_a_path() {
        for (text, expected) in [
            (
                "https://tracker.example",
                "https://tracker.example/announce",
            ),
            (
                "http://tracker.example/a/announce",
                "http://tracker.example/a/announce",
            ),
            (
                "udp://[2001:db8::1]:6969",
                "udp://[2001:db8::1]:6969/announce",
            ),
            (
                "https://[1-ff00:0:110,10.0.0.1]:31969/announce",
                "https://[1-ff00:0:110,10.0.0.1]:31969/announce",
            ),
        ] {
            assert_eq!(text.parse::<PublicUrl>().unwrap().as_str(), expected);
        }
        let name = |text: &str| {
            let url = text.parse::<PublicUrl>().unwrap();
            url.certificate_name().map(ToOwned::to_owned)
        };
        assert_eq!(
            name("https://tracker.example").as_deref(),
            Some("tracker.example")
        );
        assert_eq!(
            name("h3://[2001:db8::1]:6443").as_deref(),
            Some("2001:db8::1")
        );
        for bad in [
            "",
            "tracker.example",
            "ftp://tracker.example",
            "udp://tracker.example",
            "https://tracker.example/#x",
            "1-ff00:0:110,[10.0.0.1]:31969",
        ] {
            assert!(bad.parse::<PublicUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_list_is_split_outside_of_brackets() {
        let text = "udp://a:1/announce,https://[1-ff00:0:110,10.0.0.1]:31969/announce http://b";
        let urls = value::list::<PublicUrl>(text).unwrap();
        let urls: Vec<_> = urls.iter().map(PublicUrl::as_str).collect();
        assert_eq!(
            urls,
            [
                "udp://a:1/announce",
                "https://[1-ff00:0:110,10.0.0.1]:31969/announce",
                "http://b/announce",
            ]
        );
    }
}
