//! The `scion-tracker` program.

use std::process::ExitCode;

use scion_tracker::cli::Cli;

fn main() -> ExitCode {
    // Wrong usage ends here, with 2.
    match Cli::from_args().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            failure.exit_code()
        }
    }
}
