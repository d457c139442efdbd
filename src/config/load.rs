//! Loads the configuration from its sources, and reports what is wrong with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use confique::meta::{FieldKind, Meta};
use confique::{Config as _, Layer as _};
use toml::de::{DeTable, DeValue};

use super::check::{self, Source, Sources};
use super::{Config, Layer, effective, listener};
use crate::budget::{self, Budget};
use crate::scion::daemon;

/// All variables of the environment that set something begin like this.
const PREFIX: &str = "SCION_TRACKER_";
/// Variables that are not settings: the file itself.
const OTHERS: [&str; 1] = ["SCION_TRACKER_CONFIG"];

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file has an error.
    #[error("{}:{line}:{column}: {message}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// An environment variable has an error.
    #[error("{message}")]
    Environment {
        /// Which, and why.
        message: String,
    },
    /// Values are valid one by one and contradict each other.
    #[error("{message}")]
    Contradiction {
        /// Which, and why.
        message: String,
    },
}

impl Config {
    /// Reads the file, if one is given, and the environment. `flags` override both. The SCION daemon that
    /// the environment names for all programs of the host comes last.
    pub fn load(file: Option<&Path>, flags: Layer) -> Result<Self, ConfigError> {
        let (config, _) = Self::join(Self::sources(file, flags)?)?;
        Ok(config)
    }

    /// Loads the configuration like [`Config::load`]. Returns it as text: each setting with its value and
    /// where it comes from.
    pub fn effective(file: Option<&Path>, flags: Layer) -> Result<String, ConfigError> {
        let (config, sources) = Self::join(Self::sources(file, flags)?)?;
        Ok(effective::effective(&config, &sources))
    }

    fn sources(file: Option<&Path>, flags: Layer) -> Result<Sources, ConfigError> {
        let mut layers = vec![(Source::Flags, flags), (Source::Environment, from_env()?)];
        if let Some(path) = file {
            let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
                path: path.into(),
                source,
            })?;
            layers.push((Source::file(path, &text), from_toml(path, &text)?));
        }
        let mut host = Layer::empty();
        host.scion.daemon = daemon::from_env();
        host.memory = fitting_memory(&layers);
        layers.push((Source::Host, host));
        Ok(Sources::new(layers))
    }

    /// Joins sources over the defaults, and checks the result.
    pub(super) fn join(mut sources: Sources) -> Result<(Self, Sources), ConfigError> {
        let contradiction = |message| ConfigError::Contradiction { message };
        sources.complete(listener::complete);
        let config =
            Self::from_layer(sources.join()).map_err(|error| contradiction(error.to_string()))?;
        check::check(&config, &sources).map_err(contradiction)?;
        Ok((config, sources))
    }
}

/// The memory that fits the host, or what the parts need that these layers set.
fn fitting_memory(layers: &[(Source, Layer)]) -> Option<usize> {
    let layers = || layers.iter().map(|(_, layer)| layer);
    let needed = Budget::total_for(
        layers().find_map(|layer| layer.registry.memory),
        layers().find_map(|layer| layer.connections.memory),
    );
    budget::of_host().map(|bytes| bytes.max(needed))
}

/// A TOML file with all settings, their documentation and their defaults.
pub fn template() -> String {
    let template = confique::toml::template::<Config>(confique::toml::FormatOptions::default());
    // The fences of examples in the documentation.
    let lines = template.lines().filter(|line| !line.starts_with("# ```"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Variables of the environment that look like settings and are none, each with the name that may have
/// been meant.
pub fn unknown_variables() -> Vec<(String, Option<&'static str>)> {
    let mut known = Vec::new();
    env_keys(&Config::META, &mut known);
    env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with(PREFIX))
        .filter(|name| !known.contains(&name.as_str()) && !OTHERS.contains(&name.as_str()))
        .map(|name| {
            let meant = closest(&name, known.iter().copied());
            (name, meant)
        })
        .collect()
}

fn env_keys(meta: &'static Meta, keys: &mut Vec<&'static str>) {
    for field in meta.fields {
        match field.kind {
            FieldKind::Leaf { env, .. } => keys.extend(env),
            FieldKind::Nested { meta } => env_keys(meta, keys),
        }
    }
}

fn from_env() -> Result<Layer, ConfigError> {
    Layer::from_env().map_err(|error| ConfigError::Environment {
        // The alternate form has the source in it.
        message: format!("{error:#}"),
    })
}

/// The line of every key of a file, from 1, by its whole name as in "announce.interval". Empty if the file
/// cannot be read.
pub(super) fn lines(text: &str) -> BTreeMap<String, usize> {
    fn walk(table: &DeTable<'_>, prefix: &str, text: &str, lines: &mut BTreeMap<String, usize>) {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let before = text.get(..name.span().start).unwrap_or_default();
            if let DeValue::Table(table) = value.get_ref() {
                walk(table, &format!("{key}."), text, lines);
            }
            lines.insert(key, before.matches('\n').count() + 1);
        }
    }

    let mut lines = BTreeMap::new();
    if let Ok(table) = DeTable::parse(text) {
        walk(table.get_ref(), "", text, &mut lines);
    }
    lines
}

pub(super) fn from_toml(path: &Path, text: &str) -> Result<Layer, ConfigError> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or_default();
        let column = before
            .chars()
            .rev()
            .take_while(|char| *char != '\n')
            .count()
            + 1;
        ConfigError::File {
            path: path.into(),
            line: before.matches('\n').count() + 1,
            column,
            message: with_suggestion(error.message()),
        }
    })
}

/// serde quotes the unknown key first and then all that it knows.
fn with_suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let meant = quoted
        .next()
        .filter(|_| message.starts_with("unknown field"))
        .and_then(|key| closest(key, quoted));
    match meant {
        Some(meant) => format!("{message}; did you mean `{meant}`?"),
        None => message.into(),
    }
}

/// The candidate that is nearly the same text, if there is one.
fn closest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(text, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}
