//! Collects what the page shows. Reads only what is kept anyway, so it takes the same time with a million
//! torrents as with one.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scion_tracker_core::address::IsdAs;
use scion_tracker_core::registry::read::{Census, TorrentView};
use scion_tracker_core::response::Refusal;

use super::picture::{Chart, Dots};
use super::view::{
    Bar, Check, Event, Health, Hour, Isd, Level, Limit, Near, Operator, Part, Places, Tile,
    Torrent, Traffic, View, bars, bytes, count, percent, rate, some, span, width,
};
use crate::admin::history::{self, Moment};
use crate::admin::{clients, unix_time};
use crate::config::Config;
use crate::counters::{Counter, Snapshot};
use crate::server::Handle;
use crate::server::vitals::{Limited, Vitals};

/// ISDs that are shown, and ASes of each.
const ISDS: usize = 12;
const ASES: usize = 6;
/// Rows of lists.
const CLIENTS: usize = 10;
const REFUSALS: usize = 10;
const HOSTS: usize = 10;
const TORRENTS: usize = 10;
/// Rows of the table of the last hour.
const ROWS: usize = 12;
/// A certificate that expires sooner is worth a note.
const EXPIRES_SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// Who sees the page.
#[derive(Debug, Clone)]
pub(super) enum Audience {
    /// Everyone who can reach the tracker.
    Everyone,
    /// A visitor of an admin listener.
    Visitor(Operator),
}

/// The page as it is now.
pub(super) fn view(handle: &Handle, audience: Audience) -> View {
    let vitals = handle.vitals();
    let config = handle.config();
    let history = &handle.admin.history;
    let moments = history.moments();
    let census = &vitals.census.census;
    let (operator, is_public) = match audience {
        Audience::Everyone => (Operator::Nobody, true),
        Audience::Visitor(operator) => (operator, false),
    };
    let is_signed = matches!(operator, Operator::Signed { .. });
    let urls = handle.urls();
    View {
        name: name(&config, &urls),
        version: env!("CARGO_PKG_VERSION"),
        uptime: span(vitals.uptime),
        now: unix_time::text(unix(vitals.now)),
        health: Health {
            checks: checks(&vitals, &moments),
        },
        tiles: tiles(&vitals, history.rates()),
        near: near(&vitals),
        hour: hour(&moments),
        places: places(census),
        traffic: traffic(&vitals.counters),
        clients: client_bars(census),
        refusals: refusals(&vitals.counters),
        limits: match is_public {
            true => vec![],
            false => limits(&vitals),
        },
        torrents: (is_signed || config.page.torrents && !is_public).then(|| torrents(&census.top)),
        hosts: is_signed.then(|| hosts(handle)),
        events: match is_public {
            true => vec![],
            false => events(history.events(), vitals.uptime),
        },
        operator,
        is_public,
        urls,
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The host of the first public URL, or the name of the program.
fn name(config: &Config, urls: &[String]) -> String {
    let public = urls.first().filter(|_| !config.public_urls.is_empty());
    let authority = public
        .and_then(|url| url.split("://").nth(1))
        .and_then(|rest| rest.split('/').next());
    let host = authority.map(|it| match it.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => it,
    });
    host.filter(|host| !host.is_empty())
        .unwrap_or("scion-tracker")
        .into()
}

fn tiles(vitals: &Vitals, rates: Option<(f64, f64)>) -> Vec<Tile> {
    let registry = &vitals.registry;
    let (seeds, leechers) = (registry.seeders, registry.leechers);
    let peers = seeds + leechers;
    let each = match registry.torrents {
        0 => "none yet".into(),
        torrents => format!("{:.1} peers each", peers as f64 / torrents as f64),
    };
    let (announces, scrapes) = rates.map_or_else(
        || ("–".into(), "counting".into()),
        |(announces, scrapes)| {
            (
                rate(announces),
                format!("{} scrapes per second", rate(scrapes)),
            )
        },
    );
    let tile = |name, value, note| Tile { name, value, note };
    let held = format!("{} for peers", bytes(registry.memory));
    let memory = vitals.process.as_ref().map(|it| bytes(it.resident));
    vec![
        tile(
            "Peers",
            count(peers),
            format!("{}, {}", some(seeds, "seed"), some(leechers, "leecher")),
        ),
        tile("Torrents", count(registry.torrents), each),
        tile("Announces per second", announces, scrapes),
        tile(
            "Memory",
            memory.unwrap_or_else(|| bytes(registry.memory)),
            held,
        ),
    ]
}

fn near(vitals: &Vitals) -> Near {
    let [same_as, same_isd, other_isd, unplaced, _] = vitals.handed_out;
    let counts = [same_as, same_isd, other_isd, unplaced];
    let all = counts.iter().sum();
    let part = |(class, name, part)| Part {
        class,
        name,
        percent: percent(part, all),
    };
    Near {
        picture: Dots::new(&counts),
        parts: [
            ("as", "in the same AS", same_as),
            ("isd", "in the same ISD", same_isd),
            ("world", "in another ISD", other_isd),
            ("none", "without an ISD-AS", unplaced),
        ]
        .map(part)
        .into(),
        inside: percent(same_as + same_isd, all),
    }
}

fn hour(moments: &[Moment]) -> Hour {
    let rates: Vec<_> = moments
        .windows(2)
        .map(|pair| pair[1].announce_rates(&pair[0]))
        .collect();
    let series = |at: usize| rates.iter().map(|rate| rate[at]).collect::<Vec<_>>();
    let peers = |of: fn(&Moment) -> u64| {
        let later = moments.iter().skip(1);
        later.map(|it| of(it) as f64).collect::<Vec<_>>()
    };
    let last = moments.last().map_or(Duration::ZERO, |last| last.at);
    let ago = |it: &Moment| ago_text(last.saturating_sub(it.at));
    let row = |(moment, rates): (&Moment, &[f64; 3])| {
        [
            ago(moment),
            rate(rates.iter().sum()),
            count(moment.seeders + moment.leechers),
        ]
    };
    let rows: Vec<_> = moments.iter().skip(1).zip(&rates).collect();
    let every = rows.len().div_ceil(ROWS).max(1);
    Hour {
        announces: Chart::new(&[series(0), series(1), series(2)]),
        peers: Chart::new(&[peers(|it| it.seeders), peers(|it| it.leechers)]),
        rows: rows.into_iter().rev().step_by(every).map(row).collect(),
        begin: moments.get(1).map_or_else(String::new, ago),
    }
}

fn ago_text(time: Duration) -> String {
    match time.as_secs() {
        0 => "now".into(),
        _ => format!("{} ago", span(time)),
    }
}

fn places(census: &Census) -> Places {
    let mut isds: BTreeMap<u16, Vec<(IsdAs, u64)>> = BTreeMap::new();
    let mut without = 0;
    for place in &census.places {
        match place.ia.is_none() {
            true => without += place.counts.peers(),
            false => {
                let ases = isds.entry(place.ia.isd().0).or_default();
                ases.push((place.ia, place.counts.peers()));
            }
        }
    }
    let sum = |ases: &[(IsdAs, u64)]| ases.iter().map(|(_, peers)| peers).sum::<u64>();
    let mut isds: Vec<_> = isds.into_iter().collect();
    isds.sort_by_key(|(number, ases)| (std::cmp::Reverse(sum(ases)), *number));
    let isd = |(number, ases): &(u16, Vec<(IsdAs, u64)>)| Isd {
        number: *number,
        peers: some(sum(ases), "peer"),
        ases: bars(
            ases.iter().map(|(ia, peers)| (ia.to_string(), *peers)),
            ASES,
        ),
        more: ases.len().saturating_sub(ASES),
    };
    let all = census.counts.peers();
    Places {
        more: isds.len().saturating_sub(ISDS),
        isds: isds.iter().take(ISDS).map(isd).collect(),
        without: (without > 0).then(|| Bar {
            name: percent(without, all),
            value: some(without, "peer"),
            width: width(without, all),
        }),
    }
}

fn traffic(counters: &Snapshot) -> Vec<Traffic> {
    [
        ("UDP", Counter::UdpAnnounces, Counter::UdpErrors),
        ("HTTP", Counter::HttpAnnounces, Counter::HttpFailures),
        ("HTTP/3", Counter::Http3Announces, Counter::Http3Failures),
    ]
    .map(|(name, served, failed)| {
        let [v4, v6, scion] = history::by_network(counters, served);
        let cells = [v4, v6, scion, counters.get(served), counters.get(failed)];
        Traffic {
            name,
            cells: cells.map(count),
        }
    })
    .into()
}

fn client_bars(census: &Census) -> Vec<Bar> {
    let (named, others) = clients::by_name(census);
    let rest: u64 = named.iter().skip(CLIENTS).map(|(_, peers)| peers).sum();
    let named = named.into_iter().take(CLIENTS);
    let named = named.map(|(name, peers)| (name.to_owned(), peers));
    let others = [("others".to_owned(), others + rest)];
    bars(named.chain(others), CLIENTS + 1)
}

fn refusals(counters: &Snapshot) -> Vec<Bar> {
    let refused = Refusal::ALL.iter();
    let refused = refused.map(|it| (it.label().replace('_', " "), counters.refused(*it)));
    bars(refused, REFUSALS)
}

fn torrents(top: &[TorrentView]) -> Vec<Torrent> {
    let torrent = |it: &TorrentView| Torrent {
        info_hash: it.info_hash.to_string(),
        peers: count(it.peers().into()),
        seeds: count(it.counts.seeders.into()),
        completed: count(it.counts.completed.into()),
    };
    top.iter().take(TORRENTS).map(torrent).collect()
}

fn hosts(handle: &Handle) -> Vec<Bar> {
    let hosts = handle.busiest_hosts(HOSTS);
    bars(
        hosts.iter().map(|it| (it.host.to_string(), it.announces)),
        HOSTS,
    )
}

fn events(events: Vec<history::Event>, uptime: Duration) -> Vec<Event> {
    let event = |it: history::Event| Event {
        ago: ago_text(uptime.saturating_sub(it.at)),
        level: match it.is_problem {
            true => Level::Note,
            false => Level::Good,
        },
        text: it.text,
    };
    events.into_iter().map(event).collect()
}

fn limits(vitals: &Vitals) -> Vec<Limit> {
    let limit = |name, it: Limited, show: fn(u64) -> String| Limit {
        name,
        now: show(it.now),
        limit: show(it.limit),
        width: width(it.now, it.limit),
        level: match it.now as f64 >= 0.9 * it.limit as f64 {
            true => Level::Note,
            false => Level::Good,
        },
    };
    let (registry, ceilings) = (&vitals.registry, &vitals.ceilings);
    let torrents = Limited {
        now: registry.torrents,
        limit: ceilings.torrents as u64,
    };
    let memory = Limited {
        now: registry.memory,
        limit: ceilings.memory as u64,
    };
    let mut limits = vec![
        limit("Memory for peers", memory, bytes),
        limit("Torrents", torrents, count),
        limit("Memory for connections", vitals.connection_memory, bytes),
        limit("TCP connections", vitals.tcp, count),
        limit("QUIC connections", vitals.quic, count),
        limit("QUIC handshakes", vitals.handshakes, count),
    ];
    let files = vitals.process.as_ref().and_then(|it| it.open_files);
    limits.extend(files.map(|files| limit("Open files", files, count)));
    limits
}

fn checks(vitals: &Vitals, moments: &[Moment]) -> Vec<Check> {
    let mut checks = Vec::new();
    let listeners = vitals.listeners.iter().filter(|it| it.is_tracker()).count();
    checks.push(match (vitals.is_stopping, vitals.is_draining, listeners) {
        (true, ..) => Check::new("Listeners", Level::Bad, "the tracker is stopping"),
        (_, true, _) => Check::new("Listeners", Level::Note, "draining: clients are sent away"),
        (_, _, 0) => Check::new("Listeners", Level::Bad, "nobody is served: there are none"),
        (_, _, 1) => Check::new("Listeners", Level::Good, "1 takes requests"),
        (_, _, n) => Check::new("Listeners", Level::Good, format!("{n} take requests")),
    });
    if let Some(expires) = vitals.certificate_expires {
        checks.push(match expires.duration_since(vitals.now) {
            Err(_) => Check::new("Certificate", Level::Bad, "has expired"),
            Ok(left) => {
                let level = if left < EXPIRES_SOON {
                    Level::Note
                } else {
                    Level::Good
                };
                Check::new("Certificate", level, format!("expires in {}", span(left)))
            }
        });
    }
    let records = &vitals.records;
    let store = records.store.name();
    checks.push(match records.outage {
        Some(outage) => Check::new(
            "Records",
            Level::Bad,
            format!("{store} cannot be used for {}", span(outage)),
        ),
        None => {
            let written = records.last_write.map_or_else(
                || "nothing to write yet".into(),
                |ago| format!("last written {}", ago_text(ago)),
            );
            Check::new("Records", Level::Good, format!("{store}, {written}"))
        }
    });
    checks.extend(snapshot(vitals));
    for buffer in vitals
        .receive_buffers
        .iter()
        .filter(|it| it.granted < it.asked)
    {
        checks.push(Check::new(
            "Receive buffer",
            Level::Good,
            format!(
                "{} has {} of {}: raise net.core.rmem_max",
                buffer.listener,
                bytes(buffer.granted as u64),
                bytes(buffer.asked as u64)
            ),
        ));
    }
    let drops = vitals.counters.get(Counter::UdpKernelDrops);
    let before = moments.first().map_or(drops, |it| it.kernel_drops);
    checks.push(match drops.saturating_sub(before) {
        0 => Check::new("Dropped datagrams", Level::Good, "none in the last hour"),
        new => {
            let dropping = vitals.receive_buffers.iter().filter(|it| it.dropped > 0);
            let dropping: Vec<_> = dropping.map(|it| it.listener.to_string()).collect();
            let text = format!(
                "{} in the last hour: a receive buffer of {} was full",
                count(new),
                dropping.join(", ")
            );
            Check::new("Dropped datagrams", Level::Note, text)
        }
    });
    checks
}

/// The snapshot of the swarms, if the configuration asks for one.
fn snapshot(vitals: &Vitals) -> Option<Check> {
    let state = &vitals.snapshots;
    let (level, text) = if let Some(error) = &state.last_error {
        (Level::Note, format!("it cannot be written: {error}"))
    } else if let Some(reason) = &state.off_because {
        (
            Level::Note,
            format!("peers will not survive a restart: {reason}"),
        )
    } else if let Some(last) = &state.last {
        let text = format!(
            "{}, {}, written {}",
            some(last.peers, "peer"),
            bytes(last.bytes),
            ago_text(last.age())
        );
        (Level::Good, text)
    } else if state.file.is_some() {
        let due = vitals.snapshot_interval.unwrap_or_default();
        (
            Level::Good,
            format!("the first one is written {} after the start", span(due)),
        )
    } else {
        return None;
    };
    Some(Check::new("Snapshot", level, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snapshot_is_named_with_its_trouble() {
        let server = crate::server::Server::bind(Config::of_a_test()).unwrap();
        let mut vitals = server.handle().vitals();
        let said = |vitals: &Vitals| snapshot(vitals).map(|it| (it.level, it.text));
        assert_eq!(said(&vitals), None);
        vitals.snapshots.off_because = Some("no directory".into());
        let text = "peers will not survive a restart: no directory".to_owned();
        assert_eq!(said(&vitals), Some((Level::Note, text)));
        vitals.snapshots.off_because = None;
        vitals.snapshots.file = Some("file".into());
        vitals.snapshot_interval = Some(Duration::from_secs(300));
        let text = "the first one is written 5 min after the start".to_owned();
        assert_eq!(said(&vitals), Some((Level::Good, text)));
        vitals.snapshots.last = Some(crate::snapshot::SnapshotReport::of_a_test(vitals.now));
        let text = said(&vitals).unwrap().1;
        assert!(text.starts_with("1 peer, 1 B, written "), "{text}");
        vitals.snapshots.last_error = Some("disk full".into());
        let text = "it cannot be written: disk full".to_owned();
        assert_eq!(said(&vitals), Some((Level::Note, text)));
    }

    #[test]
    fn the_name_is_that_of_the_first_public_url() {
        for (urls, expected) in [
            (&[][..], "scion-tracker"),
            (&["udp://tracker.example:6969/announce"], "tracker.example"),
            (&["https://tracker.example/announce"], "tracker.example"),
            (&["udp://[2001:db8::1]:6969/announce"], "[2001:db8::1]"),
        ] {
            let config = Config {
                public_urls: urls.iter().map(|url| url.parse().unwrap()).collect(),
                ..Config::default()
            };
            let urls: Vec<_> = urls.iter().map(ToString::to_string).collect();
            assert_eq!(name(&config, &urls), expected);
        }
        let urls = ["udp://127.0.0.1:6969/announce".to_owned()];
        assert_eq!(name(&Config::default(), &urls), "scion-tracker");
    }
}
