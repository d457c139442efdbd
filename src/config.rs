//! The configuration: TOML file, environment and flags, in that order of precedence upward.

/// The whole configuration.
#[derive(Debug, Clone, Default)]
pub struct Config {}
