//! Who announces in the demo.

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use scion_tracker::client::{Client, Options, ScionOptions, TrackerUrl, Trust};
use scion_tracker::server::Kind;
use scion_tracker_core::address::IsdAs;
use scion_tracker_core::codec::query::AnnounceQuery;
use scion_tracker_core::codec::reply::AnnounceAnswer;
use scion_tracker_core::request::{AnnounceRequest, Event};
use scion_tracker_core::types::{InfoHash, PeerId};

use super::Tracker;
use crate::config::{As, Config};

/// How many peers each asks for: fewer than there are, so that the tracker has to choose.
pub(super) const WANTED: u32 = 8;

const SWARM: InfoHash = InfoHash([0x5c; 20]);
/// For a request as a whole: far more than a failed link costs.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Where the first peer listens.
const FIRST_PORT: u16 = 7001;

/// A peer on plain IP that says where it is in SCION.
const CLAIMED: &str = "2-ff00:0:211";

/// A peer.
pub(super) struct Peer {
    name: String,
    /// Where it is, by its packets or by what it says; [`IsdAs::NONE`] if it says nothing.
    ia: IsdAs,
    over: &'static str,
    client: Arc<Client>,
    url: TrackerUrl,
    query: AnnounceQuery,
}

/// How near a peer is to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Nearness {
    SameAs,
    SameIsd,
    OtherIsd,
    NoPlace,
}

impl fmt::Display for Nearness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SameAs => "A",
            Self::SameIsd => "I",
            Self::OtherIsd => "o",
            Self::NoPlace => "-",
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.ia {
            IsdAs::NONE => "plain IP".into(),
            ia => ia.to_string(),
        };
        write!(f, "{:<10} {place:<12}  {:<17}", self.name, self.over)
    }
}

/// A seeder and two leechers in each AS, over HTTP/3 and UDP in turn, and some on plain IP.
pub(super) fn all(network: &Config, tracker: &Tracker) -> anyhow::Result<Vec<Arc<Peer>>> {
    let mut peers = Vec::new();
    let mut add = |left, ia, over, client: &Arc<Client>, url: String| {
        peers.push(Arc::new(peer(peers.len(), left, ia, over, client, &url)?));
        anyhow::Ok(())
    };
    for (number, it) in network.ases.iter().enumerate() {
        let client = client(Some(it))?;
        let http3 = ("HTTP/3 over SCION", tracker.url(Kind::Http3, true)?);
        let udp = ("UDP over SCION", tracker.url(Kind::Udp, true)?);
        let [one, other] = if number % 2 == 0 {
            [http3, udp]
        } else {
            [udp, http3]
        };
        add(0, it.ia, one.0, &client, one.1.clone())?;
        add(1, it.ia, one.0, &client, one.1)?;
        add(1, it.ia, other.0, &client, other.1)?;
    }
    let client = client(None)?;
    let claimed = CLAIMED.parse()?;
    add(
        1,
        claimed,
        "HTTP, says ia=",
        &client,
        tracker.url(Kind::Http, false)?,
    )?;
    add(
        0,
        IsdAs::NONE,
        "UDP",
        &client,
        tracker.url(Kind::Udp, false)?,
    )?;
    add(
        1,
        IsdAs::NONE,
        "HTTP/3",
        &client,
        tracker.url(Kind::Http3, false)?,
    )?;
    Ok(peers)
}

fn client(place: Option<&As>) -> anyhow::Result<Arc<Client>> {
    let mut options = Options {
        timeout: TIMEOUT,
        trust: Trust::Anyone,
        ..Options::default()
    };
    if let Some(it) = place {
        options.scion = ScionOptions {
            daemon: it.daemon.into(),
            ..ScionOptions::default()
        };
    }
    Ok(Arc::new(Client::new(&options)?))
}

fn peer(
    number: usize,
    left: u64,
    ia: IsdAs,
    over: &'static str,
    client: &Arc<Client>,
    url: &str,
) -> anyhow::Result<Peer> {
    let role = if left == 0 { "seeder" } else { "leecher" };
    let name = format!("{role}-{}", number + 1);
    let mut id = *b"-ST0001-demo        ";
    id[12..][..name.len().min(8)].copy_from_slice(&name.as_bytes()[name.len().saturating_sub(8)..]);
    let port = u16::try_from(number)
        .ok()
        .and_then(|it| it.checked_add(FIRST_PORT));
    let port = port.and_then(NonZeroU16::new).context("too many peers")?;
    let mut announce = AnnounceRequest::new(SWARM, PeerId(id), port, left);
    announce.numwant = Some(WANTED);
    if !over.ends_with("SCION") && !ia.is_none() {
        announce.claim.ia = Some(ia);
    }
    Ok(Peer {
        name,
        ia,
        over,
        client: Arc::clone(client),
        url: url.parse()?,
        query: AnnounceQuery {
            announce,
            compact: None,
            no_peer_id: false,
        },
    })
}

impl Peer {
    pub(super) async fn announce(&self, event: Event) -> anyhow::Result<AnnounceAnswer> {
        let mut query = self.query;
        query.announce.event = event;
        Ok(self.client.announce(&self.url, &query).await?)
    }

    /// How near those are that it was given, the nearest first.
    pub(super) fn nearness(&self, answer: &AnnounceAnswer) -> Vec<Nearness> {
        let given = answer
            .peers
            .iter()
            .map(|it| self.nearness_of(it.endpoint.ia));
        let mut given: Vec<_> = given.collect();
        given.sort_unstable();
        given
    }

    fn nearness_of(&self, ia: IsdAs) -> Nearness {
        match ia {
            IsdAs::NONE => Nearness::NoPlace,
            ia if ia == self.ia => Nearness::SameAs,
            ia if ia.isd() == self.ia.isd() => Nearness::SameIsd,
            _ => Nearness::OtherIsd,
        }
    }

    /// Whether it is of use to the other: a seeder wants nothing of seeders.
    fn serves(&self, other: &Self) -> bool {
        self.query.announce.left > 0 || other.query.announce.left > 0
    }
}

/// Whether a peer was given all those of its AS, and of the others not more from elsewhere than from
/// its ISD, where there are enough. For those without a place there is nothing to check.
pub(super) fn nearest_first(peer: &Peer, all: &[Arc<Peer>], given: &[Nearness]) -> bool {
    if peer.ia.is_none() {
        return true;
    }
    let others = all
        .iter()
        .filter(|it| it.name != peer.name && it.serves(peer));
    let there: Vec<_> = others.map(|it| peer.nearness_of(it.ia)).collect();
    let count = |list: &[Nearness], of| list.iter().filter(|it| **it == of).count();
    let near = count(given, Nearness::SameIsd);
    count(given, Nearness::SameAs) == count(&there, Nearness::SameAs)
        && near >= count(given, Nearness::OtherIsd).min(count(&there, Nearness::SameIsd))
}
