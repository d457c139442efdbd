//! `scion-tracker man` and `scion-tracker completions`: what packages install, from the definitions of the
//! command line.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Cli;

#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// Directory for the pages, as in man/man1. It is created if it is missing.
    dir: PathBuf,
}

impl Man {
    /// Writes a page for the program and one for each subcommand.
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Self { dir } = self;
        fs::create_dir_all(&dir)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), &dir))
            .with_context(|| format!("cannot write man pages to {}", dir.display()))
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// Shell to complete for.
    shell: Shell,
}

impl Completions {
    /// Prints the script that the shell reads.
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Self { shell } = self;
        let mut script = Vec::new();
        let mut command = Cli::command();
        let name = command.get_name().to_owned();
        clap_complete::generate(shell, &mut command, name, &mut script);
        Ok(super::print(&String::from_utf8(script)?)?)
    }
}
