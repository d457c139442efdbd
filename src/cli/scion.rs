//! Flags of `announce` and `scrape` for trackers over SCION, and the list of paths.

use std::path::PathBuf;
use std::time::SystemTime;

use scion_tracker_core::address::{AddressError, Host, ScionAddr};
use serde::Serialize;

use super::asking::table;
use crate::client::{Acl, DaemonAddr, ScionOptions, ScionPath, ScionPaths};
use crate::scion::daemon;

#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Over SCION")]
pub(super) struct Args {
    /// SCION daemon [env: SCION_DAEMON or SCION_DAEMON_ADDRESS] [default: 127.0.0.1:30255].
    #[arg(long, value_name = "ADDR:PORT")]
    scion_daemon: Option<DaemonAddr>,
    /// SCION address of this host. Without it, the daemon tells the ISD-AS, and the IP address is the
    /// one that leads to the next hop.
    #[arg(long, value_name = "ISD-AS,[IP]", value_parser = parse_host)]
    scion_local: Option<Host>,
    /// Names of SCION hosts, one per line, as in 1-ff00:0:110,[10.0.0.1] tracker.lab [env:
    /// SCION_HOSTS] [default: /etc/scion/hosts].
    #[arg(long, value_name = "FILE")]
    scion_hosts: Option<PathBuf>,
    /// Use only the path with this number in --show-paths. Without it, the first usable path is used,
    /// and another one if it fails.
    #[arg(long, value_name = "N")]
    path: Option<usize>,
    /// Allowed paths: rules of the form +|- ISD-AS#IF, separated by commas, as in
    /// "- 2, - 1-ff00:0:111, +". For each interface the first matching rule decides.
    #[arg(long, value_name = "ACL", allow_hyphen_values = true)]
    path_policy: Option<Acl>,
    /// Only list the paths to the tracker.
    #[arg(long)]
    show_paths: bool,
}

fn parse_host(text: &str) -> Result<Host, AddressError> {
    // A host is what stands before the port.
    let addr: ScionAddr = format!("{text}:1").parse()?;
    Ok(addr.host)
}

impl Args {
    pub(super) const fn show_paths(&self) -> bool {
        self.show_paths
    }

    pub(super) fn options(&self) -> anyhow::Result<ScionOptions> {
        let defaults = ScionOptions::default();
        let daemon = match &self.scion_daemon {
            Some(addr) => addr.clone(),
            None => daemon::from_env().unwrap_or(defaults.daemon),
        };
        let hosts = self.scion_hosts.clone().or_else(|| {
            let set = std::env::var_os("SCION_HOSTS").filter(|file| !file.is_empty());
            set.map(PathBuf::from)
        });
        Ok(ScionOptions {
            daemon,
            local: self.scion_local,
            hosts: hosts.unwrap_or(defaults.hosts),
            policy: self.path_policy.clone().unwrap_or_default(),
            path: self.path,
        })
    }
}

/// Paths as they are printed.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    from: String,
    to: String,
    paths: Vec<ShownPath>,
}

#[derive(Debug, Serialize)]
struct ShownPath {
    number: usize,
    status: String,
    /// As in `1-ff00:0:110 1>2 2-ff00:0:210`.
    hops: String,
    interfaces: Vec<String>,
    /// Of a packet with its SCION header, in bytes.
    mtu: Option<u16>,
    /// The MTU that QUIC needs, if that of the path is smaller.
    #[serde(skip_serializing_if = "Option::is_none")]
    quic_needs_mtu: Option<usize>,
    /// RFC 3339, in UTC.
    expires: Option<String>,
    latency_ms: Option<f64>,
    next_hop: String,
}

impl From<&ScionPaths> for Shown {
    fn from(found: &ScionPaths) -> Self {
        let show = |(number, path): (usize, &ScionPath)| ShownPath {
            number,
            status: path.status().to_string(),
            hops: path.to_string(),
            interfaces: path.interfaces().iter().map(ToString::to_string).collect(),
            mtu: path.mtu(),
            quic_needs_mtu: path.too_small_for_quic(),
            expires: path.expiry().map(rfc3339),
            latency_ms: path.latency().map(|it| it.as_secs_f64() * 1000.0),
            next_hop: path.next_hop().to_string(),
        };
        Self {
            from: found.from.to_string(),
            to: found.to.to_string(),
            paths: found.paths.iter().enumerate().map(show).collect(),
        }
    }
}

/// The same time without seconds, for the table.
fn to_minutes(time: &str) -> Option<String> {
    Some(format!("{}Z", time.get(..16)?))
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

impl Shown {
    pub(super) fn to_text(&self) -> String {
        let head = format!("from {} to {}\n", self.from, self.to);
        let known = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let rows: Vec<_> = self
            .paths
            .iter()
            .map(|path| {
                let inside = "inside the AS".to_owned();
                [
                    path.number.to_string(),
                    path.status.clone(),
                    known(path.mtu.map(|mtu| mtu.to_string())),
                    known(path.expires.as_deref().and_then(to_minutes)),
                    known(path.latency_ms.map(|ms| format!("{ms:.1} ms"))),
                    Some(path.hops.clone())
                        .filter(|it| !it.is_empty())
                        .unwrap_or(inside),
                ]
            })
            .collect();
        if rows.is_empty() {
            return format!("{head}no paths\n");
        }
        let columns = ["PATH", "STATUS", "MTU", "EXPIRES", "LATENCY", "HOPS"];
        let mut text = format!("{head}\n{}", table(columns, &rows));
        let notes = self.paths.iter().filter_map(|path| {
            let needs = path.quic_needs_mtu?;
            Some(format!(
                "path {} is too small for QUIC, which needs an MTU of {needs}\n",
                path.number
            ))
        });
        let notes: String = notes.collect();
        if !notes.is_empty() {
            text.push('\n');
            text.push_str(&notes);
            text.push_str("HTTP/3 works there only if the routers fragment the packets\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::client::{Client, Options, TrackerUrl};
    use crate::scion::daemon::fake::FakeDaemon;
    use crate::scion::socket::tests::net;

    #[tokio::test]
    async fn paths_are_shown_with_their_numbers() {
        let daemon = FakeDaemon::start("2-ff00:0:210").await;
        let router: SocketAddr = "127.0.0.17:31002".parse().unwrap();
        let hops = ["2-ff00:0:210#1", "1-ff00:0:110#2"];
        daemon.add_path(net::path(1), router, &hops);
        daemon.add_path(net::path(3), router, &["2-ff00:0:210#3", "1-ff00:0:110#4"]);
        let client = Client::new(&Options {
            scion: ScionOptions {
                daemon: daemon.addr.into(),
                policy: "- 1-ff00:0:110#4, +".parse().unwrap(),
                ..ScionOptions::default()
            },
            ..Options::default()
        })
        .unwrap();
        let url: TrackerUrl = "1-ff00:0:110,[10.0.0.1]:31969".parse().unwrap();
        let shown = Shown::from(&client.paths(&url).await.unwrap());
        let text = shown.to_text();
        let mut lines = text.lines();
        let first = "from 2-ff00:0:210 to 1-ff00:0:110,[10.0.0.1]:31969";
        assert_eq!(lines.next(), Some(first));
        let columns = lines.nth(1).unwrap().split_whitespace();
        assert_eq!(columns.last(), Some("HOPS"));
        let row: Vec<_> = lines.next().unwrap().split_whitespace().collect();
        assert_eq!(row[..3], ["0", "usable", "1472"]);
        assert_eq!(
            row[4..],
            ["10.0", "ms", "2-ff00:0:210", "1>2", "1-ff00:0:110"]
        );
        assert!(row[3].ends_with('Z'), "{}", row[3]);
        assert!(lines.next().unwrap().starts_with("1     denied"), "{text}");
        let json = serde_json::to_value(&shown).unwrap();
        assert_eq!(json["paths"][0]["interfaces"], serde_json::json!(hops));
        assert_eq!(json["paths"][0]["latency_ms"], 10.0);
        assert_eq!(json["paths"][1]["next_hop"], "127.0.0.17:31002");

        assert!(!text.contains("QUIC"), "{text}");

        daemon.set_mtu(0, 1279);
        let shown = Shown::from(&client.paths(&url).await.unwrap());
        let text = shown.to_text();
        let notes = "\n\npath 1 is too small for QUIC, which needs an MTU of 1280\n\
            HTTP/3 works there only if the routers fragment the packets\n";
        assert!(text.ends_with(notes), "{text}");

        let near: TrackerUrl = "2-ff00:0:210,[10.0.0.1]:31969".parse().unwrap();
        let shown = Shown::from(&client.paths(&near).await.unwrap());
        assert!(
            shown.to_text().ends_with("inside the AS\n"),
            "{}",
            shown.to_text()
        );
        let nothing = Shown {
            paths: Vec::new(),
            ..shown
        };
        assert!(nothing.to_text().ends_with("\nno paths\n"));
    }

    #[test]
    fn this_host_is_written_without_a_port() {
        for good in [
            "1-ff00:0:110,[10.0.0.1]",
            "1-ff00:0:110,10.0.0.1",
            "64-559,[fd00::1]",
        ] {
            assert!(parse_host(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "1-ff00:0:110",
            "10.0.0.1",
            "1-ff00:0:110,[10.0.0.1]:80",
            "0-0,10.0.0.1",
        ] {
            assert!(parse_host(bad).is_err(), "{bad}");
        }
    }
}
