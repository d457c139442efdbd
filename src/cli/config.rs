//! `scion-tracker config`: prints the settings with their defaults, or checks a file.

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
    /// Print all settings with their documentation and defaults, as a configuration file.
    Print,
    /// Check a configuration file, with what the environment adds to it. Exit code 78 if it is
    /// wrong.
    Check {
        /// The file.
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
