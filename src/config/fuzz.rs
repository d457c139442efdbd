//! Checks of configuration files and of lists in the environment, for fuzzing and tests.

use std::path::Path;

use super::check::{Source, Sources};
use super::load::from_toml;
use super::{Config, value};

/// Checks that a file is accepted or refused, and that an accepted configuration can be used.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let file = Path::new("config.toml");
    let loaded = from_toml(file, text)
        .and_then(|layer| Config::join(Sources::new(vec![(Source::file(file, text), layer)])));
    match loaded {
        Ok((config, _)) => {
            assert_eq!(config.check(), Ok(()));
            let _ = (config.terms(), config.ceilings(), config.workers());
            let _ = (config.limits(), config.asks_for_scion());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let _ = value::networks_from_env(text);
    let _ = value::prefixes_from_env(text);
    let _ = value::parse_duration(text);
}
