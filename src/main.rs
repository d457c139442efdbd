//! The `scion-tracker` program.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use scion_tracker::cli::Cli;

fn main() -> ExitCode {
    // Wrong usage ends here, with 2.
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody may read it, or the disk be full: the exit code says it, too.
            let _ = writeln!(std::io::stderr(), "scion-tracker: {failure:#}");
            failure.exit_code()
        }
    }
}
