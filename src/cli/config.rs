//! `scion-tracker config`: prints all settings with their defaults, prints what is in force, or checks a
//! configuration.

use std::io::Write as _;
use std::path::PathBuf;

use clap::CommandFactory as _;

use super::{Cli, serve};
use crate::config::template;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print a configuration file with all settings, their documentation and defaults.
    ///
    /// With --effective: print what is in force with this file, the environment and these flags, and
    /// where each setting comes from.
    Print(Box<Print>),
    /// Check a configuration: the file, the environment and the flags that `serve` would use. Exits
    /// with 78 if it is wrong.
    Check(Box<Check>),
}

#[derive(Debug, clap::Args)]
#[group(skip)]
struct Print {
    /// Print what is in force, and where it comes from.
    #[arg(long)]
    effective: bool,
    /// Configuration file.
    #[arg(conflicts_with = "config", requires = "effective")]
    file: Option<PathBuf>,
    #[command(flatten)]
    serve: serve::Args,
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
            Command::Print(print) => print.run(),
            Command::Check(check) => check.run(),
        }
    }
}

impl Print {
    fn run(self) -> anyhow::Result<()> {
        let Self {
            effective,
            file,
            serve,
        } = self;
        if !effective {
            if serve != serve::Args::default() {
                let error = clap::error::ErrorKind::MissingRequiredArgument;
                let message = "flags of `serve` change only what --effective prints";
                Cli::command().error(error, message).exit();
            }
            return Ok(super::print(&template())?);
        }
        warn_of_unknown_variables();
        Ok(super::print(&serve.over_file(file).effective()?)?)
    }
}

impl Check {
    fn run(self) -> anyhow::Result<()> {
        let Self { file, serve } = self;
        warn_of_unknown_variables();
        let name = file
            .as_ref()
            .map_or_else(|| "configuration".into(), |file| file.display().to_string());
        serve.over_file(file).check()?;
        Ok(super::print(&format!("{name}: ok\n"))?)
    }
}

fn warn_of_unknown_variables() {
    for warning in serve::unknown_variables() {
        // A warning that cannot be written is lost.
        let _ = writeln!(std::io::stderr(), "scion-tracker: {warning}");
    }
}
