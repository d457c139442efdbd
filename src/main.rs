//! The `scion-tracker` program.

use std::process::ExitCode;

use clap::Parser as _;
use scion_tracker::cli::Cli;

fn main() -> ExitCode {
    // Wrong usage ends here, with 2.
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("scion-tracker: {failure:#}");
            failure.exit_code()
        }
    }
}
