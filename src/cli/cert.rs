//! `scion-tracker cert`: makes a certificate authority and a certificate for tests and labs.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::tls;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory to write ca.pem, ca.key, cert.pem and key.pem to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Host name or IP address for the certificate, in addition to localhost, 127.0.0.1, ::1 and the
    /// name of this host. Repeatable.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
}

impl Args {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        tls::authority(&self.out, &self.names).context("cannot make the certificates")?;
        let files = ["ca.pem", "ca.key", "cert.pem", "key.pem"];
        let lines: String = files
            .iter()
            .map(|file| format!("{}\n", self.out.join(file).display()))
            .collect();
        Ok(super::print(&lines)?)
    }
}
