//! The command line: one file per subcommand.
//!
//! Exit codes: 0 success, 1 failure while running, 2 wrong usage, 78 wrong configuration (EX_CONFIG of
//! sysexits.h, after which systemd does not restart).

mod advice;
mod announce;
mod api;
mod asking;
mod ban;
mod bench;
mod cert;
mod certificate;
mod config;
mod drain;
mod events;
mod generate;
mod health;
mod isolate;
mod keys;
mod legacy;
mod lists;
mod log;
mod notify;
mod reload;
mod rules;
mod scion;
mod scrape;
mod serve;
mod snapshot;
mod stats;
mod torrents;
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
    /// Show what the running tracker holds and has done.
    Stats(stats::Args),
    /// List torrents of the running tracker, or show one with its peers.
    Torrents(torrents::Args),
    /// List, add and remove passkeys of the running tracker.
    Keys(keys::Args),
    /// List, add and remove torrents of the allow list.
    Allow(lists::Args),
    /// List, add and remove torrents of the deny list.
    Deny(lists::Args),
    /// Ban hosts and networks, and show the hosts that announce most.
    Ban(ban::Args),
    /// Hand a torrent out only inside some ISDs.
    Isolate(isolate::Args),
    /// Show and change the rules about networks, clients and ISD-ASes.
    Rules(rules::Args),
    /// Follow what requests change, live.
    Events(events::Args),
    /// Write a snapshot of the swarms now.
    Snapshot(snapshot::Args),
    /// Have the running tracker read its configuration, lists and certificate again, as SIGHUP does.
    Reload(reload::Args),
    /// Send clients to other trackers, then stop the running tracker.
    Drain(drain::Args),
    /// Show the certificate that the running tracker uses.
    Certificate(certificate::Args),
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
            Some(Command::Stats(args)) => Ok(args.run()?),
            Some(Command::Torrents(args)) => Ok(args.run()?),
            Some(Command::Keys(args)) => Ok(args.run()?),
            Some(Command::Allow(args)) => Ok(args.run(lists::List::Allow)?),
            Some(Command::Deny(args)) => Ok(args.run(lists::List::Deny)?),
            Some(Command::Ban(args)) => Ok(args.run()?),
            Some(Command::Isolate(args)) => Ok(args.run()?),
            Some(Command::Rules(args)) => Ok(args.run()?),
            Some(Command::Events(args)) => Ok(args.run()?),
            Some(Command::Snapshot(args)) => Ok(args.run()?),
            Some(Command::Reload(args)) => Ok(args.run()?),
            Some(Command::Drain(args)) => Ok(args.run()?),
            Some(Command::Certificate(args)) => Ok(args.run()?),
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
                        | BindError::List(_)
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
