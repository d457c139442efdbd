//! `scion-tracker certificate`: the certificate that the tracker uses.

use super::api::{self, text, time};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    api: api::Args,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let api = self.api.open()?;
        api.show("/api/v2/certificate", |certificate| {
            let made = match certificate["self_signed"].as_bool() {
                Some(true) => "self-signed",
                _ => "from files",
            };
            let expires = time(&certificate["expires"]);
            fingerprint(&text(&certificate["sha256"])) + &format!("{made}, expires {expires}\n")
        })
    }
}

/// The fingerprint on two lines, which fit a terminal.
fn fingerprint(digits: &str) -> String {
    // A colon follows each pair of digits.
    const LINE: usize = 16 * 3;
    match digits.split_at_checked(LINE) {
        Some((start, rest)) => format!("SHA-256  {start}\n         {rest}\n"),
        None => format!("SHA-256  {digits}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_fits_80_columns() {
        let digits = ["AB"; 32].join(":");
        let shown = fingerprint(&digits);
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[0], format!("SHA-256  {}:", ["AB"; 16].join(":")));
        assert_eq!(lines[1], format!("         {}", ["AB"; 16].join(":")));
        assert_eq!(fingerprint("-"), "SHA-256  -\n");
    }
}
