//! `scion-tracker config`: prints all settings with their defaults, or checks a configuration.

use std::path::PathBuf;

use super::serve;
use crate::config::template;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print a configuration file with all settings, their documentation and defaults.
    Print,
    /// Check a configuration: the file, the environment and the flags that `serve` would use. Exits
    /// with 78 if it is wrong.
    Check(Box<Check>),
}

#[derive(Debug, clap::Args)]
#[group(skip)]
struct Check {
    /// Configuration file.
    #[arg(conflicts_with = "config")]
    file: Option<PathBuf>,
    #[command(flatten)]
    serve: serve::Args,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Print => super::print(&template())?,
            Command::Check(check) => {
                let Check { file, serve } = *check;
                for warning in serve::unknown_variables() {
                    eprintln!("scion-tracker: {warning}");
                }
                let name = file
                    .as_ref()
                    .map_or_else(|| "configuration".into(), |file| file.display().to_string());
                serve.check(file)?;
                super::print(&format!("{name}: ok\n"))?;
            }
        }
        Ok(())
    }
}
