//! `scion-tracker config`: prints all settings with their defaults, or checks a configuration file.

use std::path::PathBuf;

use confique::Layer as _;

use crate::config::{Config, ConfigError, Layer, template};
use crate::tls::Certificates;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print a configuration file with all settings, their documentation and defaults.
    Print,
    /// Check a configuration file together with the environment. Exits with 78 if it is wrong.
    Check {
        /// Configuration file.
        file: PathBuf,
    },
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Print => super::print(&template())?,
            Command::Check { file } => {
                let config = Config::load(Some(&file), Layer::empty())?;
                super::serve::log_filter(&config.log)?;
                if config.tls.cert.is_some() {
                    Certificates::load(&config.tls, None)
                        .map_err(|error| wrong(&anyhow::Error::new(error)))?;
                }
                super::print(&format!("{}: ok\n", file.display()))?;
            }
        }
        Ok(())
    }
}

fn wrong(error: &anyhow::Error) -> ConfigError {
    ConfigError::Contradiction {
        message: format!("{error:#}"),
    }
}
