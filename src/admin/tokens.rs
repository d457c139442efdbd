//! The tokens of the admin API, from the configuration and from files.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use subtle::{Choice, ConstantTimeEq as _};

use crate::config::{Admin, Token, TokenError};

/// Most bytes of a file of tokens.
const MAX_BYTES: u64 = 64 * 1024;

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// To read everything but passkeys.
    Read,
    /// To read and change everything.
    Write,
}

/// The tokens in force.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    write: Vec<Token>,
    read: Vec<Token>,
}

/// Why a file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokensError {
    #[error("cannot read {key} {}: {source}", path.display())]
    Read {
        key: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{}:{line}: {source}", path.display())]
    Line {
        path: PathBuf,
        line: usize,
        source: TokenError,
    },
    #[error("{key} {} has no token", path.display())]
    Empty { key: &'static str, path: PathBuf },
}

impl Tokens {
    /// The tokens that the configuration names. Reads its files.
    pub(crate) fn read(admin: &Admin) -> Result<Self, TokensError> {
        let read = |token: &Option<Token>, key, file: &Option<PathBuf>| {
            let mut tokens: Vec<_> = token.iter().cloned().collect();
            if let Some(path) = file {
                tokens.extend(from_file(key, path)?);
            }
            Ok(tokens)
        };
        Ok(Self {
            write: read(&admin.token, "admin.token_file", &admin.token_file)?,
            read: read(
                &admin.read_token,
                "admin.read_token_file",
                &admin.read_token_file,
            )?,
        })
    }

    /// What this token allows, `None` if it is none of these. The time does not depend on where it differs
    /// from them.
    pub(super) fn level(&self, token: &[u8]) -> Option<Level> {
        let is_among = |tokens: &[Token]| -> bool {
            let found = tokens.iter().fold(Choice::from(0), |found, known| {
                found | known.secret().as_bytes().ct_eq(token)
            });
            found.into()
        };
        match (is_among(&self.write), is_among(&self.read)) {
            (true, _) => Some(Level::Write),
            (false, true) => Some(Level::Read),
            (false, false) => None,
        }
    }
}

/// The tokens of a file: one per line, with comments.
fn from_file(key: &'static str, path: &Path) -> Result<Vec<Token>, TokensError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
    read.map_err(|source| TokensError::Read {
        key,
        path: path.into(),
        source,
    })?;
    let mut tokens = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let token = line.parse().map_err(|source| TokensError::Line {
            path: path.into(),
            line: at + 1,
            source,
        })?;
        tokens.push(token);
    }
    match tokens.is_empty() {
        true => Err(TokensError::Empty {
            key,
            path: path.into(),
        }),
        false => Ok(tokens),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn tokens_come_from_settings_and_files() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tokens");
        fs::write(&file, "# old\nold-token-1\n\n  new-token-2 \n").unwrap();
        let mut admin = crate::Config::default().admin;
        admin.token_file = Some(file.clone());
        admin.token = "set-token-3".parse().ok();
        admin.read_token = "read-token-4".parse().ok();
        let tokens = Tokens::read(&admin).unwrap();
        for (token, level) in [
            ("old-token-1", Some(Level::Write)),
            ("new-token-2", Some(Level::Write)),
            ("set-token-3", Some(Level::Write)),
            ("read-token-4", Some(Level::Read)),
            ("", None),
            ("# old", None),
            ("old-token-", None),
            ("old-token-11", None),
        ] {
            assert_eq!(tokens.level(token.as_bytes()), level, "{token}");
        }
        assert_eq!(Tokens::default().level(b""), None);

        let error = |text: &str| {
            fs::write(&file, text).unwrap();
            let error = Tokens::read(&admin).unwrap_err().to_string();
            error.replace(&file.display().to_string(), "FILE")
        };
        assert_eq!(error("# nothing\n"), "admin.token_file FILE has no token");
        assert_eq!(
            error("good-token\nbad token\n"),
            "FILE:2: a token is 8 to 256 printable ASCII characters without spaces"
        );
        fs::remove_file(&file).unwrap();
        let error = Tokens::read(&admin).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot read admin.token_file "),
            "{error}"
        );
    }
}
