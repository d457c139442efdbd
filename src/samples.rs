//! Measures one answer in [`EVERY`]: how long it took, and how near the peers were that it handed out.
//!
//! The other answers pay for a counter and a branch. So the sums here are those of the measured answers only;
//! ratios and quantiles of them hold for all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use scion_tracker_core::address::IsdAs;
use scion_tracker_core::registry::MAX_NUMWANT;
use scion_tracker_core::request::{AnnounceRequest, Carries, Origin};
use scion_tracker_core::response::{AnnounceReply, Peer, PeerSink, Refusal};
use scion_tracker_core::select::Tier;
use scion_tracker_core::tracker::Context;

use crate::service::Service;

/// One answer in this many is measured, on each worker. A prime, so that clients which send requests in turns
/// are measured at all of them.
pub(crate) const EVERY: u32 = 61;

/// Upper bounds of the buckets of latency, in nanoseconds.
pub(crate) const BOUNDS: [u64; 14] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    10_000_000,
    50_000_000,
    250_000_000,
];

/// The transport of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// BEP 15, also over SCION.
    Udp,
    /// HTTP/1.1 and HTTP/2.
    Http,
    /// HTTP/3.
    Http3,
}

impl Transport {
    pub(crate) const ALL: [Self; 3] = [Self::Udp, Self::Http, Self::Http3];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Http => "http",
            Self::Http3 => "http3",
        }
    }
}

/// How near a peer is to the client that it was handed out to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Proximity {
    /// In the same AS.
    SameAs,
    /// In another AS of the same ISD.
    SameIsd,
    /// In another ISD.
    OtherIsd,
    /// The peer has no ISD-AS.
    PeerUnplaced,
    /// The client has no ISD-AS.
    ClientUnplaced,
}

impl Proximity {
    /// All of them, nearest first.
    pub const ALL: [Self; 5] = [
        Self::SameAs,
        Self::SameIsd,
        Self::OtherIsd,
        Self::PeerUnplaced,
        Self::ClientUnplaced,
    ];

    /// A stable name, as in labels of metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::SameAs => "same_as",
            Self::SameIsd => "same_isd",
            Self::OtherIsd => "other_isd",
            Self::PeerUnplaced => "peer_unplaced",
            Self::ClientUnplaced => "client_unplaced",
        }
    }

    fn between(client: IsdAs, peer: IsdAs) -> Self {
        if client.is_none() {
            return Self::ClientUnplaced;
        }
        match Tier::between(client, peer) {
            Tier::SameAs => Self::SameAs,
            Tier::SameIsd => Self::SameIsd,
            Tier::OtherIsd => Self::OtherIsd,
            Tier::Unplaced => Self::PeerUnplaced,
        }
    }
}

/// Says which answers of one worker are measured.
#[derive(Debug)]
pub(crate) struct Sampler {
    /// Answers until the next one that is measured.
    left: u32,
    /// When the answer that is being made was begun, if it is measured.
    begun: Option<Instant>,
}

impl Default for Sampler {
    fn default() -> Self {
        Self {
            left: EVERY,
            begun: None,
        }
    }
}

impl Sampler {
    /// Begins an answer.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.left -= 1;
        if self.left == 0 {
            self.left = EVERY;
            self.begun = Some(Instant::now());
        }
    }

    /// Whether the answer that was begun is measured.
    #[inline]
    pub(crate) const fn is_measuring(&self) -> bool {
        self.begun.is_some()
    }

    /// Ends an answer to a request of BEP 15: the bytes of `reply` up to `length`, none for no reply.
    #[inline]
    pub(crate) fn end_udp(
        &mut self,
        service: &Service,
        origin: &Origin,
        reply: &[u8],
        length: usize,
    ) {
        if let Some(begun) = self.begun.take() {
            let reply = reply.get(..length).unwrap_or_default();
            service.samples.took_udp(begun.elapsed(), origin, reply);
        }
    }

    /// Ends an answer over another transport.
    #[inline]
    pub(crate) fn end(&mut self, service: &Service, transport: Transport) {
        if let Some(begun) = self.begun.take() {
            service.samples.took(transport, begun.elapsed());
        }
    }
}

/// A request of BEP 15 that was answered without an error. The numbers are those of its action.
#[cfg(any(feature = "admin", test))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UdpRequest {
    Connect = 0,
    Announce = 1,
    Scrape = 2,
}

/// Measured answers, and their time.
#[derive(Debug, Default)]
struct Sum {
    answers: AtomicU64,
    nanoseconds: AtomicU64,
}

/// The measured answers of one transport.
#[derive(Debug, Default)]
struct Latency {
    /// One per bound, and one for what took longer.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// What was measured so far.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    latency: [Latency; Transport::ALL.len()],
    /// Of UDP over IP: connect requests, announces and scrapes.
    udp: [Sum; 3],
    handed_out: [AtomicU64; Proximity::ALL.len()],
}

/// A histogram at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Histogram {
    /// Answers per bound of [`BOUNDS`], not cumulated, and those that took longer.
    pub(crate) buckets: [u64; BOUNDS.len() + 1],
    /// Time of all answers.
    pub(crate) sum: Duration,
}

impl Samples {
    #[cold]
    fn took(&self, transport: Transport, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < nanoseconds);
        let latency = &self.latency[transport as usize];
        latency.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let sum = &latency.nanoseconds;
        sum.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    #[cold]
    fn took_udp(&self, time: Duration, origin: &Origin, reply: &[u8]) {
        self.took(Transport::Udp, time);
        // A reply begins with its action.
        let Some((action, _)) = reply.split_first_chunk() else {
            return;
        };
        let action = u32::from_be_bytes(*action) as usize;
        if let Some(sum) = self.udp.get(action)
            && !origin.is_scion()
        {
            let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            sum.answers.fetch_add(1, Ordering::Relaxed);
            sum.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        }
    }

    /// The mean time of answers to such requests over UDP over IP. Zero if none was measured.
    #[cfg(any(feature = "admin", test))]
    pub(crate) fn udp_mean(&self, request: UdpRequest) -> Duration {
        let Sum {
            answers,
            nanoseconds,
        } = &self.udp[request as usize];
        let nanoseconds = nanoseconds.load(Ordering::Relaxed);
        let mean = nanoseconds.checked_div(answers.load(Ordering::Relaxed));
        Duration::from_nanos(mean.unwrap_or_default())
    }

    pub(crate) fn latency(&self, transport: Transport) -> Histogram {
        let Latency {
            buckets,
            nanoseconds,
        } = &self.latency[transport as usize];
        Histogram {
            buckets: buckets.each_ref().map(|it| it.load(Ordering::Relaxed)),
            sum: Duration::from_nanos(nanoseconds.load(Ordering::Relaxed)),
        }
    }

    /// Peers in measured answers, in the order of [`Proximity::ALL`].
    pub(crate) fn handed_out(&self) -> [u64; Proximity::ALL.len()] {
        self.handed_out
            .each_ref()
            .map(|it| it.load(Ordering::Relaxed))
    }
}

/// Serves an announce as [`Tracker::announce`](scion_tracker_core::Tracker::announce) does, and counts how near
/// the peers are.
// Apart from the announces that are not measured, so that those stay as they are.
#[cold]
#[inline(never)]
pub(crate) fn announce<S: PeerSink>(
    service: &Service,
    context: &mut Context<'_>,
    origin: &Origin,
    announce: &AnnounceRequest,
    carries: Carries,
    sink: &mut S,
) -> Result<AnnounceReply, Refusal> {
    let mut noting = Noting {
        sink,
        peers: ArrayVec::new(),
    };
    let tracker = &service.tracker;
    let reply = tracker.announce(context, origin, announce, carries, &mut noting)?;
    let places = &context.rules.terms.places;
    let client = places.resolve(origin, announce, carries).ia;
    let mut near = [0; Proximity::ALL.len()];
    for peer in noting.peers {
        near[Proximity::between(client, peer) as usize] += 1;
    }
    for (sum, count) in service.samples.handed_out.iter().zip(near) {
        sum.fetch_add(count, Ordering::Relaxed);
    }
    Ok(reply)
}

/// Passes peers on and notes where they are.
struct Noting<'a, S> {
    sink: &'a mut S,
    peers: ArrayVec<IsdAs, MAX_NUMWANT>,
}

impl<S: PeerSink> PeerSink for Noting<'_, S> {
    fn push(&mut self, peer: Peer<'_>) {
        // A reply never holds more.
        let _ = self.peers.try_push(peer.ia);
        self.sink.push(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_bucket_that_it_does_not_exceed() {
        let samples = Samples::default();
        for nanoseconds in [0, 1_000, 1_001, 250_000_000, 250_000_001] {
            samples.took(Transport::Http, Duration::from_nanos(nanoseconds));
        }
        let latency = samples.latency(Transport::Http);
        let mut expected = [0; BOUNDS.len() + 1];
        (expected[0], expected[1]) = (2, 1);
        (expected[BOUNDS.len() - 1], expected[BOUNDS.len()]) = (1, 1);
        assert_eq!(latency.buckets, expected);
        assert_eq!(latency.sum, Duration::from_nanos(500_002_002));
        assert_eq!(samples.latency(Transport::Udp), Histogram::default());
    }

    #[test]
    fn times_of_udp_are_apart_by_request_and_without_scion() {
        let samples = Samples::default();
        let ip = Origin::ip([192, 0, 2, 1].into());
        for (nanoseconds, reply) in [
            (100, &[0, 0, 0, 0, 9][..]),
            (1_000, &[0, 0, 0, 1]),
            (2_001, &[0, 0, 0, 1]),
            // An error, and no reply.
            (1 << 40, &[0, 0, 0, 3]),
            (1 << 40, &[]),
        ] {
            samples.took_udp(Duration::from_nanos(nanoseconds), &ip, reply);
        }
        let mean = |request| samples.udp_mean(request).as_nanos();
        assert_eq!(mean(UdpRequest::Connect), 100);
        assert_eq!(mean(UdpRequest::Announce), 1_500);
        assert_eq!(mean(UdpRequest::Scrape), 0);
        let latency = samples.latency(Transport::Udp);
        assert_eq!(latency.buckets.iter().sum::<u64>(), 5);
    }

    #[test]
    fn one_answer_in_so_many_is_measured() {
        let mut sampler = Sampler::default();
        let mut measured = 0;
        for _ in 0..10 * EVERY {
            sampler.begin();
            measured += u32::from(sampler.is_measuring());
            sampler.begun = None;
        }
        assert_eq!(measured, 10);
    }

    #[test]
    fn a_client_without_a_place_is_near_to_nobody() {
        let [here, near, far] = ["1-ff00:0:110", "1-ff00:0:111", "2-ff00:0:210"]
            .map(|text| text.parse::<IsdAs>().unwrap());
        let none = IsdAs::NONE;
        for (client, peer, expected) in [
            (here, here, Proximity::SameAs),
            (here, near, Proximity::SameIsd),
            (here, far, Proximity::OtherIsd),
            (here, none, Proximity::PeerUnplaced),
            (none, here, Proximity::ClientUnplaced),
            (none, none, Proximity::ClientUnplaced),
        ] {
            assert_eq!(Proximity::between(client, peer), expected);
        }
    }
}
