//! `scion-tracker health`: checks that the tracker on this host answers and is ready, for supervisors such as
//! Docker that run a command for this.

mod socket;

use std::time::Duration;

use anyhow::Context as _;
use scion_tracker_core::types::InfoHash;

use super::serve;
use crate::client::{Client, Options, RequestError, ScionOptions, TrackerUrl, Trust};
use crate::config::{self, Config};
use crate::server::{admin_socket, local_url};

/// A scrape changes nothing in the tracker, whether it has the torrent or not.
const ANY_TORRENT: InfoHash = InfoHash([0; 20]);

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// URL to scrape. Without it, the admin socket in the data directory is asked whether all parts of the
    /// tracker are ready, if there is one, and then the first listener of the configuration, in the order UDP, HTTP,
    /// HTTPS, HTTP/3, UDP over SCION.
    url: Option<TrackerUrl>,
    /// Time to wait for the answer.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = config::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    serve: serve::Args,
}

impl Args {
    /// These flags, and those before the subcommand that are not among them.
    pub(super) fn over(self, before: serve::Args) -> Self {
        let serve = self.serve.over(before);
        Self { serve, ..self }
    }

    pub(super) fn run(self) -> anyhow::Result<()> {
        let url = match self.url {
            Some(url) => url,
            None => {
                let config = self.serve.config()?;
                let is_ready = match admin_socket(&config) {
                    Some(path) => socket::check(&path, self.timeout)?,
                    None => false,
                };
                match listener(&config) {
                    // There may be none that can be asked, behind a proxy for example.
                    Err(_) if is_ready => return Ok(super::print("the tracker is ready\n")?),
                    url => url?,
                }
            }
        };
        ask(&url, self.timeout).with_context(|| format!("{url} is not healthy"))?;
        Ok(super::print(&format!("{url} answers\n"))?)
    }
}

/// Scrapes. Accepts any certificate. A refusal shows that the tracker answers: a private tracker refuses clients
/// without a passkey, and a listed one refuses other torrents.
fn ask(url: &TrackerUrl, timeout: Duration) -> anyhow::Result<()> {
    let client = Client::new(&Options {
        timeout,
        trust: Trust::Anyone,
        scion: ScionOptions {
            // The tracker is on this host, so that no daemon is asked for a path.
            local: url.scion().map(|tracker| tracker.host),
            ..ScionOptions::default()
        },
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let answer = runtime.block_on(client.scrape(url, &[ANY_TORRENT]));
    // Does not wait for a name lookup that still runs.
    runtime.shutdown_background();
    match answer {
        Ok(_) | Err(RequestError::Refused(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The first listener that can be asked: it has a port, and does not wait for the header of a proxy.
fn listener(config: &Config) -> anyhow::Result<TrackerUrl> {
    let url = local_url(config)?
        .context("no listener of the configuration can be asked: name a URL to ask")?;
    Ok(url.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Listen, Listener};

    fn check(listen: [&[&str]; 4], expected: Option<&str>) {
        fn parse<T: std::str::FromStr<Err: std::fmt::Debug>>(list: &[&str]) -> Vec<T> {
            list.iter().map(|text| text.parse().unwrap()).collect()
        }
        let [udp, http, https, http3] = listen;
        let config = Config {
            listen: Listen {
                udp: parse(udp),
                http: parse(http),
                https: parse(https),
                http3: parse(http3),
                ..Listen::none()
            },
            ..Config::default()
        };
        let url = listener(&config).ok().map(|url| url.to_string());
        assert_eq!(url.as_deref(), expected, "{listen:?}");
    }

    #[test]
    fn the_first_listener_is_asked_on_this_host() {
        for (listen, expected) in [
            (
                [&["[::]:1", "[::]:2"][..], &["[::]:3"], &[], &[]],
                Some("udp://127.0.0.1:1/announce"),
            ),
            (
                [&["[::]:0"], &["[2001:db8::1]:3"], &["[::]:4"], &[]],
                Some("http://[2001:db8::1]:3/announce"),
            ),
            (
                [&[], &[], &["0.0.0.0:4"], &["[::]:5"]],
                Some("https://127.0.0.1:4/announce"),
            ),
            ([&[], &[], &[], &["[::1]:5"]], Some("h3://[::1]:5/announce")),
            ([&["[::]:0"], &[], &[], &[]], None),
        ] {
            check(listen, expected);
        }
        let default = listener(&Config::default()).unwrap();
        assert_eq!(default.to_string(), "udp://127.0.0.1:6969/announce");
    }

    #[test]
    fn scion_is_asked_where_there_is_nothing_else() {
        let mut config = Config {
            listen: Listen {
                scion: vec!["1-ff00:0:110,[10.0.0.1]:31969".parse().unwrap()],
                ..Listen::none()
            },
            ..Config::default()
        };
        let url = listener(&config).unwrap().to_string();
        assert_eq!(url, "udp://[1-ff00:0:110,10.0.0.1]:31969/announce");
        config.listen.udp = vec!["127.0.0.1:1".parse().unwrap()];
        let url = listener(&config).unwrap().to_string();
        assert_eq!(url, "udp://127.0.0.1:1/announce");
    }

    #[test]
    fn a_listener_that_waits_for_a_proxy_is_not_asked() {
        let behind = Listener {
            proxy_protocol: true,
            ..Listener::from(std::net::SocketAddr::from(([127, 0, 0, 1], 1)))
        };
        let mut config = Config::default();
        config.listen.udp.clear();
        config.listen.http = vec![behind];
        let url = listener(&config).unwrap().to_string();
        assert_eq!(url, "https://127.0.0.1:6443/announce");
    }
}
