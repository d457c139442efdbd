//! The section `admin` of the configuration: the API for operators, and who may use it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::value;

/// See [`Config::admin`](super::Config::admin).
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
#[non_exhaustive]
pub struct Admin {
    /// Whether to serve the API on the Unix socket admin.sock in the data directory. Only the user that runs
    /// the tracker can connect to it, and needs no token. Subcommands such as `scion-tracker stats` use it.
    #[config(env = "SCION_TRACKER_ADMIN_SOCKET", default = true)]
    pub socket: bool,

    /// Token that may read and change everything over TCP, 8 to 256 printable ASCII characters without
    /// spaces. Requests carry it as `Authorization: Bearer TOKEN` or `?token=TOKEN`.
    #[config(env = "SCION_TRACKER_ADMIN_TOKEN", deserialize_with = value::text)]
    pub token: Option<Token>,

    /// File of such tokens, one per line. A line with # is a comment. The file is read again on a reload, so
    /// that a token can be replaced: add the new one, reload, and later remove the old one.
    #[config(env = "SCION_TRACKER_ADMIN_TOKEN_FILE", parse_env = value::path)]
    pub token_file: Option<PathBuf>,

    /// Token that may only read. It does not get to see passkeys.
    #[config(env = "SCION_TRACKER_ADMIN_READ_TOKEN", deserialize_with = value::text)]
    pub read_token: Option<Token>,

    /// File of tokens that may only read.
    #[config(env = "SCION_TRACKER_ADMIN_READ_TOKEN_FILE", parse_env = value::path)]
    pub read_token_file: Option<PathBuf>,

    /// Whether the listeners in `listen.admin` use TLS, with the certificate of the tracker.
    #[config(env = "SCION_TRACKER_ADMIN_TLS", default = false)]
    pub tls: bool,

    /// Whether they may listen beyond loopback without TLS, for example in a container whose port is
    /// published on loopback only. Tokens then cross the network in the clear.
    #[config(env = "SCION_TRACKER_ADMIN_ALLOW_PLAIN", default = false)]
    pub allow_plain: bool,
}

impl Admin {
    /// Whether a token is set.
    pub(super) const fn has_token(&self) -> bool {
        self.token.is_some()
            || self.token_file.is_some()
            || self.read_token.is_some()
            || self.read_token_file.is_some()
    }
}

/// A token of the admin API. It is a secret: `Debug` does not show it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

/// The text is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token is 8 to 256 printable ASCII characters without spaces")]
pub struct TokenError;

impl Token {
    /// Most characters of a token.
    pub const MAX: usize = 256;
    /// Fewest characters of a token.
    pub const MIN: usize = 8;

    /// The secret itself.
    #[cfg(any(feature = "admin", feature = "cli"))]
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let is_token = (Self::MIN..=Self::MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_token.then(|| Self(text.into())).ok_or(TokenError)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_and_never_shown() {
        let token: Token = "MyAccessToken".parse().unwrap();
        assert_eq!(format!("{token:?}"), "Token(…)");
        for bad in ["", "short", "with space", "tab\ttab\t", "ünicode-token"] {
            assert_eq!(bad.parse::<Token>(), Err(TokenError), "{bad}");
        }
        assert!("x".repeat(256).parse::<Token>().is_ok());
        assert!("x".repeat(257).parse::<Token>().is_err());
    }
}
