//! `scion-tracker health`: whether the tracker that runs on this host answers, for supervisors such
//! as Docker that run a command to find out.

use std::time::Duration;

use anyhow::Context as _;
use scion_tracker_core::address::ScionAddr;
use scion_tracker_core::types::InfoHash;

use super::serve;
use crate::client::{Client, Options, ScionOptions, TrackerUrl, Trust};
use crate::config::{Config, Listener, ScionListener};
use crate::server::{Kind, Listening, scion_listeners};

/// Asking for the counts of a torrent leaves nothing behind in the tracker, whether it has the
/// torrent or not.
const ANY_TORRENT: InfoHash = InfoHash([0; 20]);

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// What to ask, on this host. Without it, the first UDP listener of the configuration; if there is
    /// none, the first for HTTP, HTTPS or HTTP/3, and then UDP over SCION.
    url: Option<TrackerUrl>,
    /// How long to wait for the answer.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    serve: serve::Args,
}

impl Args {
    /// These flags, and where they say nothing those before the subcommand.
    pub(super) fn over(self, before: serve::Args) -> Self {
        let serve = self.serve.over(before);
        Self { serve, ..self }
    }

    pub(super) fn run(self) -> anyhow::Result<()> {
        let url = match self.url {
            Some(url) => url,
            None => listener(&self.serve.config()?)?,
        };
        ask(&url, self.timeout).with_context(|| format!("{url} is not healthy"))?;
        Ok(super::print(&format!("{url} answers\n"))?)
    }
}

/// Anybody's certificate will do: whether there is an answer is all that is asked.
fn ask(url: &TrackerUrl, timeout: Duration) -> anyhow::Result<()> {
    let client = Client::new(&Options {
        timeout,
        trust: Trust::Anyone,
        scion: ScionOptions {
            // To ourselves, for which nobody is asked for a path.
            local: url.scion().map(|tracker| tracker.host),
            ..ScionOptions::default()
        },
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let answer = runtime.block_on(client.scrape(url, &[ANY_TORRENT]));
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    answer?;
    Ok(())
}

/// The first listener that can be asked: one with a port, that does not wait for the header of a
/// proxy.
fn listener(config: &Config) -> anyhow::Result<TrackerUrl> {
    let listen = &config.listen;
    let of_kind = |kind, list: &[Listener]| {
        let askable = |it: &&Listener| it.address.port() != 0 && !it.proxy_protocol;
        list.iter().find(askable).map(|it| Listening {
            kind,
            address: it.address,
            scion: None,
        })
    };
    let found = of_kind(Kind::Udp, &listen.udp)
        .or_else(|| of_kind(Kind::Http, &listen.http))
        .or_else(|| of_kind(Kind::Https, &listen.https))
        .or_else(|| of_kind(Kind::Http3, &listen.http3));
    if let Some(found) = found {
        return Ok(found.url().parse()?);
    }
    let over_scion = scion_listeners(config)?;
    let found = over_scion.iter().find(|it| it.port != 0);
    let ScionListener { host, port } =
        found.context("no listener of the configuration can be asked: name a URL to ask")?;
    let address = ScionAddr::new(host.ia, host.ip(), *port)?;
    Ok(format!("udp://{}/announce", address.url_authority()).parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Listen;

    fn check(listen: [&[&str]; 4], expected: Option<&str>) {
        let [udp, http, https, http3] = listen.map(|list| {
            let listeners = list.iter().map(|text| text.parse().unwrap());
            listeners.collect::<Vec<Listener>>()
        });
        let config = Config {
            listen: Listen {
                udp,
                http,
                https,
                http3,
                scion: vec![],
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
                udp: vec![],
                http: vec![],
                https: vec![],
                http3: vec![],
                scion: vec!["1-ff00:0:110,[10.0.0.1]:31969".parse().unwrap()],
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
