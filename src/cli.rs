//! The command line: one file a subcommand.
//!
//! Exit codes: 0 done, 1 failed while running, 2 wrong usage, 78 wrong configuration (EX_CONFIG of
//! sysexits.h, on which systemd does not restart).

mod announce;
mod asking;
mod bench;
mod cert;
mod config;
mod health;
mod scion;
mod scrape;
mod serve;

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::ConfigError;
use crate::server::BindError;

/// EX_CONFIG.
const WRONG_CONFIGURATION: u8 = 78;

/// A BitTorrent tracker for SCION and for the ordinary Internet.
///
/// Without a subcommand it serves. Defaults: UDP and HTTP on port 6969, HTTPS and HTTP/3 on port
/// 6443.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    serve: serve::Args,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the tracker.
    Serve(serve::Args),
    /// Announce a peer to a tracker, and show the peers that it hands out.
    Announce(announce::Args),
    /// Ask a tracker for the counts of torrents.
    Scrape(scrape::Args),
    /// Ask the tracker that runs on this host with the same configuration whether it answers. Exit
    /// code 1 if it does not.
    Health(health::Args),
    /// Put load on a tracker of one's own, over any transport, and say what it takes.
    #[command(args_override_self = true)]
    Bench(Box<bench::Args>),
    /// Print or check the configuration.
    Config(config::Args),
    /// Make a certificate authority and a certificate for tests and labs.
    Cert(cert::Args),
}

impl Cli {
    /// Does what the command line says.
    pub fn run(self) -> Result<(), Failure> {
        // The first and only one: rustls would guess, and two features would make it panic.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let Self { serve, command } = self;
        match command {
            None => Ok(serve.run()?),
            Some(Command::Serve(args)) => Ok(args.over(serve).run()?),
            Some(Command::Health(args)) => Ok(args.over(serve).run()?),
            Some(_) if serve != serve::Args::default() => Self::command()
                .error(
                    clap::error::ErrorKind::ArgumentConflict,
                    "flags before the subcommand are for `serve` and `health`",
                )
                .exit(),
            Some(Command::Announce(args)) => Ok(args.run()?),
            Some(Command::Scrape(args)) => Ok(args.run()?),
            Some(Command::Bench(args)) => Ok(args.run()?),
            Some(Command::Config(args)) => Ok(args.run()?),
            Some(Command::Cert(args)) => Ok(args.run()?),
        }
    }
}

/// Why the program ends with an exit code other than 0.
pub struct Failure(anyhow::Error);

impl Failure {
    /// See [`crate::cli`].
    pub fn exit_code(&self) -> ExitCode {
        let Self(error) = self;
        if error.is::<ConfigError>() || matches!(error.downcast_ref(), Some(BindError::Config(_))) {
            return WRONG_CONFIGURATION.into();
        }
        ExitCode::FAILURE
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self(error)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The alternate form has the causes in it.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Data, as against the log: standard output, written out at once. A reader that has gone away is
/// not an error.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
