//! The peers of the demo.

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use scion_tracker::client::{Client, Options, TrackerUrl, Trust};
use scion_tracker::server::Kind;
use scion_tracker_core::address::IsdAs;
use scion_tracker_core::codec::query::AnnounceQuery;
use scion_tracker_core::codec::reply::AnnounceAnswer;
use scion_tracker_core::request::{AnnounceRequest, Event};
use scion_tracker_core::types::{InfoHash, PeerId};

use super::Tracker;
use crate::config::{As, Config};

/// Peers that each peer asks for: fewer than there are, so that the tracker must choose.
pub(super) const WANTED: u32 = 8;

const SWARM: InfoHash = InfoHash([0x5c; 20]);
/// Timeout of a whole request, far longer than a failed link delays it.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Port of the first peer.
const FIRST_PORT: u16 = 7001;

/// The ISD-AS that a peer on plain IP claims.
const CLAIMED: &str = "2-ff00:0:211";

/// A peer.
pub(super) struct Peer {
    name: String,
    /// Its place, from its packets or its claim; [`IsdAs::NONE`] without a claim.
    ia: IsdAs,
    over: &'static str,
    client: Arc<Client>,
    url: TrackerUrl,
    query: AnnounceQuery,
}

/// Distance of a peer from another.
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

/// Creates a seeder and two leechers in each AS, with HTTP/3 and UDP in turn, and some peers on
/// plain IP.
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
        "HTTP, sends ia=",
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
    let mut options = Options::default();
    options.timeout = TIMEOUT;
    options.trust = Trust::Anyone;
    if let Some(it) = place {
        options.scion.daemon = it.daemon.into();
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
    let mut announce = AnnounceRequest::new(SWARM, PeerId(id), port.get(), left);
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

    /// Distances of the peers in a reply, nearest first.
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

    /// Whether it is useful to the other peer: a seeder does not need seeders.
    fn serves(&self, other: &Self) -> bool {
        self.query.announce.left > 0 || other.query.announce.left > 0
    }
}

/// Whether a peer received all peers of its AS, and of the others at least as many from its ISD as
/// from elsewhere, if there are enough. Peers without a place are not checked.
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
