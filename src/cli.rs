//! The command line: one file per subcommand.
//!
//! Exit codes: 0 success, 1 failure while running, 2 wrong usage, 78 wrong configuration (EX_CONFIG of
//! sysexits.h, after which systemd does not restart).

mod advice;
mod announce;
mod asking;
mod bench;
mod cert;
mod config;
mod generate;
mod health;
mod legacy;
mod log;
mod notify;
mod scion;
mod scrape;
mod serve;
mod visible;

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::ConfigError;
use crate::server::BindError;
use crate::tls::TlsError;

/// EX_CONFIG.
const WRONG_CONFIGURATION: u8 = 78;

/// A BitTorrent tracker for SCION and for the ordinary Internet.
///
/// Without a subcommand it runs the tracker, as `serve` does. By default it serves UDP and HTTP on
/// port 6969, HTTPS and HTTP/3 on port 6443.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 80)]
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
    /// Announce a peer to a tracker and print the peers of its reply.
    Announce(announce::Args),
    /// Scrape a tracker: print how many seeds and leechers torrents have.
    Scrape(scrape::Args),
    /// Check that the tracker on this host answers. Exits with 1 if it does not.
    Health(health::Args),
    /// Put load on your own tracker over any transport and measure it.
    #[command(args_override_self = true)]
    Bench(Box<bench::Args>),
    /// Print or check the configuration.
    Config(config::Args),
    /// Make a certificate authority and a certificate for tests and labs.
    Cert(cert::Args),
    /// Write man pages, one for each command, into a directory.
    Man(generate::Man),
    /// Print a script with which a shell completes commands and flags.
    Completions(generate::Completions),
}

impl Cli {
    /// Reads the arguments of the program. Ends it if they are wrong or ask for help.
    pub fn from_args() -> Self {
        let legacy::Translated { args, notes } = legacy::translate(std::env::args_os());
        for note in notes {
            // A note that cannot be written is lost.
            let _ = writeln!(io::stderr(), "scion-tracker: {note}");
        }
        Self::parse_from(args)
    }

    /// Runs what the command line asks for.
    pub fn run(self) -> Result<(), Failure> {
        // Without a default, rustls panics if features enable two providers.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let Self { serve, command } = self;
        match command {
            None => Ok(serve.run()?),
            Some(Command::Serve(args)) => Ok(args.over(serve).run()?),
            Some(Command::Health(args)) => Ok(args.over(serve).run()?),
            Some(_) if serve != serve::Args::default() => Self::command()
                .error(
                    clap::error::ErrorKind::ArgumentConflict,
                    "flags before the subcommand are only for `serve` and `health`",
                )
                .exit(),
            Some(Command::Announce(args)) => Ok(args.run()?),
            Some(Command::Scrape(args)) => Ok(args.run()?),
            Some(Command::Bench(args)) => Ok(args.run()?),
            Some(Command::Config(args)) => Ok(args.run()?),
            Some(Command::Cert(args)) => Ok(args.run()?),
            Some(Command::Man(args)) => Ok(args.run()?),
            Some(Command::Completions(args)) => Ok(args.run()?),
        }
    }
}

/// Why the program ends with an exit code other than 0.
pub struct Failure(anyhow::Error);

impl Failure {
    /// Writes it to standard error. If nobody reads there, it is given up after a second: the exit code says
    /// that something went wrong, too.
    pub fn report(&self) {
        let text = format!("scion-tracker: {self:#}\n");
        let (done, is_done) = mpsc::sync_channel(1);
        thread::spawn(move || {
            let _ = io::stderr().write_all(text.as_bytes());
            let _ = done.send(());
        });
        let _ = is_done.recv_timeout(Duration::from_secs(1));
    }

    /// See [`crate::cli`].
    pub fn exit_code(&self) -> ExitCode {
        let Self(error) = self;
        let wrong_configuration = error.is::<ConfigError>()
            || matches!(
                error.downcast_ref(),
                Some(
                    BindError::Config(_)
                        | BindError::Topology { .. }
                        | BindError::Tls(TlsError::Pem { .. } | TlsError::Unusable { .. })
                )
            );
        match wrong_configuration {
            true => WRONG_CONFIGURATION.into(),
            false => ExitCode::FAILURE,
        }
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

/// The alternate form has the causes in it. Control characters are escaped, except line breaks: the
/// error of a configuration file quotes lines of it.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(error) = self;
        let text = match f.alternate() {
            true => format!("{error:#}"),
            false => error.to_string(),
        };
        f.write_str(&visible::visible_lines(&text))
    }
}

/// Writes data to standard output at once. The log goes to standard error. A closed pipe is no error.
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
