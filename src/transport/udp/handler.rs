//! Answers BEP 15 datagrams, over IP and over SCION alike.

use std::sync::Arc;

use arrayvec::ArrayVec;
use scion_tracker_core::address::{CompactAddr, Host};
use scion_tracker_core::codec::bep15::{
    self, AnnounceWriter, Hashes, MAX_SCRAPE, Request, TransactionId,
};
use scion_tracker_core::codec::compact::Layout;
use scion_tracker_core::codec::connection::ConnectionIds;
use scion_tracker_core::request::PeerKey;
use scion_tracker_core::request::{AnnounceRequest, Origin};
use scion_tracker_core::response::Refusal;
use scion_tracker_core::tracker::Context;
use scion_tracker_core::types::{Rng, Time};
use tracing::level_filters::LevelFilter;

use crate::counters::{Counter, Network, Snapshot};
use crate::log::{self, Shown};
use crate::samples::{self, Sampler, Transport};
use crate::service::{RulesCache, Service};
use crate::socket::mmsg::BATCH;

/// Answers the requests of one worker, and counts them until the worker flushes the counts.
pub(super) struct Handler {
    pub(super) service: Arc<Service>,
    pub(super) ids: ConnectionIds,
    pub(super) max_scrape: usize,
    pub(super) rng: Rng,
    pub(super) rules: RulesCache,
    pub(super) counts: Snapshot,
    pub(super) sampler: Sampler,
}

impl Handler {
    /// Prefetches the peers of announces that are answered next.
    pub(super) fn prefetch<'a>(&self, datagrams: impl Iterator<Item = (&'a [u8], Host)>) {
        let mut peers: ArrayVec<PeerKey, BATCH> = ArrayVec::new();
        for (datagram, source) in datagrams.take(BATCH) {
            if let Some((info_hash, port)) = bep15::peek_announce(datagram) {
                peers.push(PeerKey {
                    info_hash,
                    // Over IP most clients have no ISD-AS. An ISD-AS in the request is not read
                    // here.
                    ia: source.ia,
                    addr: CompactAddr::new(source.ip(), port),
                });
            }
        }
        self.service.tracker.prefetch(&peers);
    }

    /// Answers one datagram. Returns the length of the reply, 0 for no reply.
    pub(super) fn answer(
        &mut self,
        datagram: &[u8],
        origin: &Origin,
        now: Time,
        reply: &mut [u8],
    ) -> usize {
        self.sampler.begin();
        let length = self.respond(datagram, origin, now, reply);
        self.sampler.end_udp(&self.service, origin, reply, length);
        length
    }

    fn respond(&mut self, datagram: &[u8], origin: &Origin, now: Time, reply: &mut [u8]) -> usize {
        let Ok(mut request) = bep15::parse(datagram, self.max_scrape) else {
            log_dropped(origin, "not a request of BEP 15", datagram);
            return self.silence(Counter::UdpMalformed, origin);
        };
        if log::is_on(LevelFilter::TRACE) {
            log_request(origin, &request);
        }
        // Read where it is: an announce is long.
        match &mut request {
            Request::Connect { transaction } => {
                self.count(Counter::UdpConnects, origin);
                bep15::write_connect(reply, *transaction, self.ids.issue(&origin.host, now))
            }
            Request::Announce {
                connection,
                transaction,
                announce,
                reads_scion46,
                url: _,
            } => {
                if !self.ids.check(*connection, &origin.host, now) {
                    log_dropped(origin, WRONG_CONNECTION, datagram);
                    return self.silence(Counter::UdpBadConnectionId, origin);
                }
                match announce {
                    Ok(announce) => {
                        let layout = match *reads_scion46 && origin.is_scion() {
                            true => Layout::Scion46,
                            false => Layout::of(origin),
                        };
                        self.announce(origin, announce, layout, *transaction, now, reply)
                    }
                    Err(error) => {
                        log_refused(origin, "announce", error.message());
                        self.error(origin, *transaction, &error.to_string(), reply)
                    }
                }
            }
            Request::Scrape {
                connection,
                transaction,
                hashes,
            } => {
                if !self.ids.check(*connection, &origin.host, now) {
                    log_dropped(origin, WRONG_CONNECTION, datagram);
                    return self.silence(Counter::UdpBadConnectionId, origin);
                }
                self.scrape(origin, *hashes, *transaction, now, reply)
            }
        }
    }

    fn announce(
        &mut self,
        origin: &Origin,
        announce: &mut AnnounceRequest,
        layout: Layout,
        transaction: TransactionId,
        now: Time,
        reply: &mut [u8],
    ) -> usize {
        // Asks for no more peers than fit, so that the tracker chooses them all.
        let room = bep15::announce_room(reply.len(), layout) as u32;
        let rules = self.rules.load();
        let wanted = announce.numwant.unwrap_or(rules.terms.numwant_default);
        announce.numwant = Some(wanted.min(room));
        let mut writer = AnnounceWriter::new(reply, transaction, layout);
        let carries = layout.carries();
        let mut context = Context {
            rules,
            now,
            rng: &mut self.rng,
        };
        let tracker = &self.service.tracker;
        let answer = match self.sampler.is_measuring() {
            false => tracker.announce(&mut context, origin, announce, carries, &mut writer),
            true => samples::announce(
                &self.service,
                &mut context,
                origin,
                announce,
                carries,
                &mut writer,
            ),
        };
        match answer {
            Ok(answer) => {
                self.count(Counter::UdpAnnounces, origin);
                writer.finish(&answer)
            }
            Err(refusal) => {
                log_refused(origin, "announce", refusal.message());
                self.refuse(refusal, origin, transaction, reply)
            }
        }
    }

    /// A BEP 15 scrape has no room for URL data, so it never has a passkey.
    fn scrape(
        &mut self,
        origin: &Origin,
        hashes: Hashes<'_>,
        transaction: TransactionId,
        now: Time,
        reply: &mut [u8],
    ) -> usize {
        let rules = self.rules.load();
        let tracker = &self.service.tracker;
        let counts = hashes.map(|info_hash| tracker.scrape(rules, now, origin, None, &info_hash));
        match counts.collect::<Result<ArrayVec<_, MAX_SCRAPE>, _>>() {
            Ok(counts) => {
                self.count(Counter::UdpScrapes, origin);
                bep15::write_scrape(reply, transaction, counts)
            }
            Err(refusal) => {
                log_refused(origin, "scrape", refusal.message());
                self.refuse(refusal, origin, transaction, reply)
            }
        }
    }

    fn refuse(
        &mut self,
        refusal: Refusal,
        origin: &Origin,
        transaction: TransactionId,
        reply: &mut [u8],
    ) -> usize {
        let network = Network::of(origin);
        self.counts.refuse(refusal, Transport::Udp, network);
        self.error(origin, transaction, refusal.message(), reply)
    }

    fn error(
        &mut self,
        origin: &Origin,
        transaction: TransactionId,
        message: &str,
        reply: &mut [u8],
    ) -> usize {
        self.count(Counter::UdpErrors, origin);
        bep15::write_error(reply, transaction, message)
    }

    #[inline]
    fn count(&mut self, counter: Counter, origin: &Origin) {
        self.counts.count_over(counter, Network::of(origin));
    }

    pub(super) fn silence(&mut self, counter: Counter, origin: &Origin) -> usize {
        self.count(counter, origin);
        0
    }
}

const WRONG_CONNECTION: &str = "wrong or expired connection id";

/// Logs a datagram that gets no answer.
#[cold]
fn log_dropped(origin: &Origin, reason: &str, datagram: &[u8]) {
    // The bytes that follow may hold a passkey (BEP 41).
    const HEAD: usize = 36;
    let client = origin.host;
    let length = datagram.len();
    let datagram = Shown(&datagram[..length.min(HEAD)]);
    tracing::debug!(%client, reason, length, %datagram, "UDP datagram dropped");
}

/// Logs a request that is answered with an error.
#[cold]
fn log_refused(origin: &Origin, request: &str, reason: &str) {
    tracing::debug!(client = %origin.host, request, reason, "UDP request refused");
}

/// Logs a request.
#[cold]
fn log_request(origin: &Origin, request: &Request<'_>) {
    let client = origin.host;
    match request {
        Request::Connect { .. } => tracing::trace!(%client, request = "connect", "UDP request"),
        Request::Announce {
            announce: Ok(announce),
            ..
        } => tracing::trace!(
            %client,
            request = "announce",
            info_hash = %announce.info_hash,
            port = announce.port,
            event = ?announce.event,
            "UDP request"
        ),
        // The refusal is logged.
        Request::Announce { .. } => {}
        Request::Scrape { hashes, .. } => {
            tracing::trace!(%client, request = "scrape", torrents = hashes.len(), "UDP request");
        }
    }
}

#[cfg(test)]
mod tests {
    use scion_tracker_core::Tracker;
    use scion_tracker_core::codec::bep15::{Reply, parse_reply, write_announce_request};
    use scion_tracker_core::codec::connection::ConnectionId;
    use scion_tracker_core::registry::memory::{Ceilings, Memory};
    use scion_tracker_core::tracker::Rules;
    use scion_tracker_core::types::{InfoHash, PeerId};

    use super::*;
    use crate::transport::Limits;
    use crate::watch::Watch;

    fn handler(ceilings: Ceilings) -> Handler {
        let tracker = Tracker::observed(Memory::new(ceilings, [1, 2, 3, 4]), Watch::default());
        let service = Arc::new(Service::new(tracker, Rules::default(), Limits::default()));
        Handler {
            rules: service.rules_cache(),
            service,
            ids: ConnectionIds::new([7; 16], 600),
            max_scrape: MAX_SCRAPE,
            rng: Rng::with_seed(1),
            counts: Snapshot::default(),
            sampler: Sampler::default(),
        }
    }

    fn origin() -> Origin {
        Origin::ip([192, 0, 2, 1].into())
    }

    const NOW: Time = Time::from_secs(100);
    const TRANSACTION: TransactionId = TransactionId(9);

    fn announce(connection: ConnectionId, port: u16) -> Vec<u8> {
        let announce = AnnounceRequest::new(InfoHash([1; 20]), PeerId([2; 20]), port, 1);
        let mut request = Vec::new();
        write_announce_request(connection, TRANSACTION, &announce, "", &mut request);
        request
    }

    /// Sends a million random datagrams of random lengths, a third of them with the headers of
    /// announces and scrapes. None is answered, each is counted.
    #[test]
    fn a_million_random_datagrams_get_no_answer() {
        let mut handler = handler(Ceilings::default());
        let mut rng = Rng::with_seed(42);
        let mut datagram = [0; 160];
        let mut reply = [0; 1432];
        for number in 0..1_000_000u32 {
            let length = rng.usize(0..=datagram.len());
            rng.fill(&mut datagram[..length]);
            if number % 3 == 0 && length >= 16 {
                datagram[8..12].copy_from_slice(&(1 + number % 2).to_be_bytes());
            }
            let sent = handler.answer(&datagram[..length], &origin(), NOW, &mut reply);
            assert_eq!(sent, 0, "{:02x?}", &datagram[..length]);
        }
        let silent = [Counter::UdpMalformed, Counter::UdpBadConnectionId]
            .map(|counter| handler.counts.get(counter));
        assert_eq!(silent.iter().sum::<u64>(), 1_000_000);
        assert!(silent[1] > 100_000, "{silent:?}");
        assert_eq!(handler.service.tracker.registry().totals().torrents, 0);
    }

    #[test]
    fn every_truncation_of_an_announce_is_silence() {
        let mut handler = handler(Ceilings::default());
        let connection = handler.ids.issue(&origin().host, NOW);
        let request = announce(connection, 6881);
        let mut reply = [0; 1432];
        for length in 0..request.len() {
            let sent = handler.answer(&request[..length], &origin(), NOW, &mut reply);
            assert_eq!(sent, 0, "{length}");
        }
        assert_eq!(
            handler.answer(&request, &origin(), NOW, &mut reply),
            bep15::ANNOUNCE_HEADER
        );
    }

    #[test]
    fn a_refusal_is_an_error_and_counted() {
        let ceilings = Ceilings {
            peers_per_source: 1,
            ..Ceilings::default()
        };
        let mut handler = handler(ceilings);
        let connection = handler.ids.issue(&origin().host, NOW);
        let mut reply = [0; 1432];
        handler.answer(&announce(connection, 1), &origin(), NOW, &mut reply);
        let sent = handler.answer(&announce(connection, 2), &origin(), NOW, &mut reply);
        let Ok(Reply::Error {
            transaction,
            message,
        }) = parse_reply(&reply[..sent], Layout::Ip4)
        else {
            panic!("no error: {:02x?}", &reply[..sent]);
        };
        assert_eq!(transaction, TRANSACTION);
        assert_eq!(message, b"too many peers from your address");
        assert_eq!(handler.counts.refused(Refusal::SourceLimit), 1);
        assert_eq!(handler.counts.get(Counter::UdpErrors), 1);
    }
}
