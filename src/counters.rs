//! Counts what happened: one row per event, and refusals by reason, transport and network.
//!
//! A transport that handles batches counts into a [`Snapshot`] of its own and adds it once per batch.
//! Requests, connections and dropped datagrams are also counted by the [`Network`] they came over.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use scion_tracker_core::request::Origin;
use scion_tracker_core::response::Refusal;

use crate::samples::Transport;

/// Makes the enum of counters, its list and its labels from one table.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// An event that is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Counter { $($(#[$doc])* $name,)* }

        impl Counter {
            /// Every counter.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// A stable name, in the manner of metrics.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

counters! {
    /// UDP: connect requests answered.
    UdpConnects = "udp_connects",
    /// UDP: announces answered with peers.
    UdpAnnounces = "udp_announces",
    /// UDP: scrapes answered.
    UdpScrapes = "udp_scrapes",
    /// UDP: requests answered with an error.
    UdpErrors = "udp_errors",
    /// UDP: datagrams too short, of unknown action or otherwise not BEP 15: dropped in silence.
    UdpMalformed = "udp_malformed",
    /// UDP: wrong, foreign or outdated connection ids: dropped in silence.
    UdpBadConnectionId = "udp_bad_connection_id",
    /// UDP sockets, also those of HTTP/3 and SCION: datagrams that the kernel dropped, nearly always
    /// because the receive buffer was full. Read once per second.
    UdpKernelDrops = "udp_kernel_drops",
    /// Lines of the log that strangers caused, suppressed because there were too many.
    LogLinesSuppressed = "log_lines_suppressed",
    /// Lines of the access log that were lost because its disk was slow or full.
    AccessLogLost = "access_log_lost",
    /// UDP: replies that the socket would not take.
    UdpSendFailures = "udp_send_failures",
    /// HTTP/1.1, also over SCION, and HTTP/2: announces answered with peers.
    HttpAnnounces = "http_announces",
    /// HTTP/1.1 and HTTP/2: scrapes answered.
    HttpScrapes = "http_scrapes",
    /// HTTP/1.1 and HTTP/2: requests answered with a failure reason.
    HttpFailures = "http_failures",
    /// HTTP/1.1 and HTTP/2: requests answered with a 4xx status.
    HttpRejected = "http_rejected",
    /// TCP connections accepted.
    TcpConnections = "tcp_connections",
    /// TCP connections closed at once because of the limit per source or the overall limit.
    TcpRefused = "tcp_refused",
    /// TCP connections ended by a deadline or a protocol error.
    TcpAborted = "tcp_aborted",
    /// TLS handshakes over TCP that failed.
    TlsFailures = "tls_failures",
    /// Connections over TCP and QUIC refused or ended because the memory for connections was used up.
    ConnectionsOverMemory = "connections_over_memory",
    /// Connections over TCP and QUIC closed to make room in the memory for connections.
    ConnectionsEvicted = "connections_evicted",
    /// HTTP/3: announces answered with peers.
    Http3Announces = "http3_announces",
    /// HTTP/3: scrapes answered.
    Http3Scrapes = "http3_scrapes",
    /// HTTP/3: requests answered with a failure reason.
    Http3Failures = "http3_failures",
    /// HTTP/3: requests answered with a 4xx status, or streams reset for a malformed request.
    Http3Rejected = "http3_rejected",
    /// HTTP/3: connections closed because they cost too much for what they carried.
    Http3Excessive = "http3_excessive",
    /// QUIC connections that completed the handshake.
    QuicConnections = "quic_connections",
    /// QUIC connection attempts refused because of the limit per source or the overall limit.
    QuicRefused = "quic_refused",
    /// QUIC connection attempts answered with Retry.
    QuicRetries = "quic_retries",
    /// QUIC connections ended by a deadline or a protocol error.
    QuicAborted = "quic_aborted",
    /// QUIC handshakes that the tracker ended to make room for a source with fewer.
    QuicEvicted = "quic_evicted",
    /// QUIC: dropped packets of a connection from another host than its own.
    QuicElsewhere = "quic_elsewhere",
    /// QUIC: dropped packets that another worker should have got, because its queue was full.
    QuicUnforwarded = "quic_unforwarded",
    /// Errors of receiving from a UDP socket that passed, on any transport over UDP.
    ReceiveFailures = "receive_failures",
    /// SCION: dropped, as they were no packets that can be answered.
    ScionMalformed = "scion_malformed",
    /// SCION: dropped packets for another host, port or AS.
    ScionElsewhere = "scion_elsewhere",
    /// SCION: dropped packets over a path that does not fit their source.
    ScionWrongPath = "scion_wrong_path",
    /// SCION: dropped packets that did not come from the border router of their path, or from their own host.
    ScionWrongUnderlay = "scion_wrong_underlay",
    /// SCION: dropped packets to which no answer is possible.
    ScionUnanswerable = "scion_unanswerable",
    /// SCION: packets taken although their checksum is wrong.
    ScionWrongChecksum = "scion_wrong_checksum",
    /// SCION: remotes of QUIC that were new.
    ScionRemotesAdded = "scion_remotes_added",
    /// SCION: dropped packets of QUIC for a remote that is not in the table (any more).
    ScionRemotesUnknown = "scion_remotes_unknown",
    /// SCION: answers to a remote that took another path than before.
    ScionPathsAdopted = "scion_paths_adopted",
    /// SCION: paths in use that an SCMP error named.
    ScionPathsFailed = "scion_paths_failed",
    /// SCION: packets that a router returned and that were sent again over another path.
    ScionResent = "scion_resent",
    /// SCION: SCMP messages that say nothing about us.
    ScionScmpIgnored = "scion_scmp_ignored",
    /// SCION: SCMP echo requests answered.
    ScionEchoes = "scion_echoes",
    /// SCION: SCMP echo requests above the limit per second.
    ScionEchoesRefused = "scion_echoes_refused",
    /// SCION: packets answered with QUIC Version Negotiation.
    ScionVersionsNegotiated = "scion_versions_negotiated",
    /// SCION: packets of QUIC and SCMP that the socket would not take: lost, as on a full link.
    ScionSendFailures = "scion_send_failures",
    /// SCION: packets that the kernel refused as longer than the MTU of their link. Also counted as send
    /// failures.
    ScionTooLong = "scion_too_long",
}

impl Counter {
    /// Requests that were answered, also with a failure.
    #[cfg(feature = "admin")]
    pub(crate) const REQUESTS: &[Self] = &[
        Self::UdpConnects,
        Self::UdpAnnounces,
        Self::UdpScrapes,
        Self::UdpErrors,
        Self::HttpAnnounces,
        Self::HttpScrapes,
        Self::HttpFailures,
        Self::Http3Announces,
        Self::Http3Scrapes,
        Self::Http3Failures,
    ];
}

/// What a request, a connection or a datagram came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Network {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// SCION, whatever its addresses.
    Scion,
    /// A trusted proxy that does not say.
    Unknown,
}

impl Network {
    /// All networks.
    pub const ALL: &[Self] = &[Self::V4, Self::V6, Self::Scion, Self::Unknown];

    /// A stable name, as in labels of metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
            Self::Scion => "scion",
            Self::Unknown => "unknown",
        }
    }

    /// The network of a requester.
    #[inline]
    pub(crate) fn of(origin: &Origin) -> Self {
        match origin.host.ip() {
            _ if origin.is_scion() => Self::Scion,
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// The counters that are also counted by network.
const BY_NETWORK: &[Counter] = &[
    Counter::UdpConnects,
    Counter::UdpAnnounces,
    Counter::UdpScrapes,
    Counter::UdpErrors,
    Counter::UdpMalformed,
    Counter::UdpBadConnectionId,
    Counter::HttpAnnounces,
    Counter::HttpScrapes,
    Counter::HttpFailures,
    Counter::HttpRejected,
    Counter::Http3Announces,
    Counter::Http3Scrapes,
    Counter::Http3Failures,
    Counter::Http3Rejected,
    Counter::TcpConnections,
    Counter::TcpRefused,
    Counter::TcpAborted,
    Counter::TlsFailures,
    Counter::QuicConnections,
    Counter::QuicRefused,
    Counter::QuicAborted,
    Counter::QuicRetries,
    Counter::QuicEvicted,
    Counter::Http3Excessive,
];
const _: () = assert!(BY_NETWORK.len() <= 32, "split_used has a bit for each");

/// Networks except IPv4, whose count is what the others leave of the whole.
const OTHERS: usize = Network::ALL.len() - 1;

/// Position among [`BY_NETWORK`] of each counter, or its length.
const ROWS: [u8; Counter::ALL.len()] = {
    let mut rows = [BY_NETWORK.len() as u8; Counter::ALL.len()];
    let mut row = 0;
    while row < BY_NETWORK.len() {
        rows[BY_NETWORK[row] as usize] = row as u8;
        row += 1;
    }
    rows
};

/// Row and column of a counter of one network among the counters by network. `None` for IPv4 and for
/// counters that are not counted by network.
#[inline]
const fn split(counter: Counter, network: Network) -> Option<(usize, usize)> {
    let row = ROWS[counter as usize] as usize;
    match network {
        Network::V4 => None,
        _ if row == BY_NETWORK.len() => None,
        _ => Some((row, network as usize - 1)),
    }
}

/// Events.
const LENGTH: usize = Counter::ALL.len();
/// Counters by network.
const SPLIT: usize = BY_NETWORK.len();
/// Refusals for one reason: a cell per transport and network.
const CELLS: usize = Transport::ALL.len() * Network::ALL.len();
/// Reasons to refuse.
const REASONS: usize = Refusal::ALL.len();
const _: () = assert!(REASONS <= 32, "refused_used has a bit for each");
const _: () = assert!(LENGTH <= 64, "used has a bit for each");

/// Where refusals over this transport and network are counted among the [`CELLS`] of their reason.
const fn cell(transport: Transport, network: Network) -> usize {
    transport as usize * Network::ALL.len() + network as usize
}

/// Counters at one moment, or as one worker has counted since its last flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    values: [u64; LENGTH],
    /// Bit set of the values that are not 0.
    used: u64,
    split: [[u64; OTHERS]; SPLIT],
    /// Bit set of the rows of `split` that are not 0.
    split_used: u32,
    refused: [[u64; CELLS]; REASONS],
    /// Bit set of the reasons with a cell that is not 0.
    refused_used: u32,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            values: [0; LENGTH],
            used: 0,
            split: [[0; OTHERS]; SPLIT],
            split_used: 0,
            refused: [[0; CELLS]; REASONS],
            refused_used: 0,
        }
    }
}

impl Snapshot {
    /// One counter.
    pub const fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }

    /// The part of a counter that came over this network. `None` if the counter is not counted by network.
    pub fn of_network(&self, counter: Counter, network: Network) -> Option<u64> {
        if ROWS[counter as usize] as usize == BY_NETWORK.len() {
            return None;
        }
        let of =
            |network| split(counter, network).map_or(0, |(row, column)| self.split[row][column]);
        Some(match network {
            Network::V4 => {
                let others: u64 = Network::ALL.iter().map(|network| of(*network)).sum();
                self.get(counter).saturating_sub(others)
            }
            _ => of(network),
        })
    }

    /// Requests refused for this reason, over all transports.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused[refusal.index()].iter().sum()
    }

    /// Requests refused for this reason over one transport and network.
    #[cfg(any(feature = "admin", test))]
    pub(crate) const fn refused_over(
        &self,
        refusal: Refusal,
        transport: Transport,
        network: Network,
    ) -> u64 {
        self.refused[refusal.index()][cell(transport, network)]
    }

    pub(crate) const fn add(&mut self, counter: Counter, by: u64) {
        self.values[counter as usize] += by;
        if by != 0 {
            self.used |= 1 << counter as usize;
        }
    }

    /// Counts what came over this network.
    pub(crate) const fn count_over(&mut self, counter: Counter, network: Network) {
        self.add(counter, 1);
        if let Some((row, column)) = split(counter, network) {
            self.split[row][column] += 1;
            self.split_used |= 1 << row;
        }
    }

    /// Counts a request that was refused.
    pub(crate) const fn refuse(
        &mut self,
        refusal: Refusal,
        transport: Transport,
        network: Network,
    ) {
        self.refused[refusal.index()][cell(transport, network)] += 1;
        self.refused_used |= 1 << refusal.index();
    }
}

/// The shared counters.
#[derive(Debug)]
pub(crate) struct Counters {
    values: [AtomicU64; LENGTH],
    split: [[AtomicU64; OTHERS]; SPLIT],
    refused: [[AtomicU64; CELLS]; REASONS],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            values: [const { AtomicU64::new(0) }; LENGTH],
            split: [const { [const { AtomicU64::new(0) }; OTHERS] }; SPLIT],
            refused: [const { [const { AtomicU64::new(0) }; CELLS] }; REASONS],
        }
    }
}

impl Counters {
    pub(crate) fn add(&self, counter: Counter, by: u64) {
        self.values[counter as usize].fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts what came over this network.
    pub(crate) fn count_over(&self, counter: Counter, network: Network) {
        self.count(counter);
        if let Some((row, column)) = split(counter, network) {
            self.split[row][column].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a request that was refused.
    pub(crate) fn refuse(&self, refusal: Refusal, transport: Transport, network: Network) {
        let cells = &self.refused[refusal.index()];
        cells[cell(transport, network)].fetch_add(1, Ordering::Relaxed);
    }

    /// Adds a worker's own counts and empties them.
    pub(crate) fn flush(&self, counts: &mut Snapshot) {
        while counts.used != 0 {
            let at = counts.used.trailing_zeros() as usize;
            counts.used &= counts.used - 1;
            let count = std::mem::take(&mut counts.values[at]);
            self.values[at].fetch_add(count, Ordering::Relaxed);
        }
        while counts.split_used != 0 {
            let row = counts.split_used.trailing_zeros() as usize;
            counts.split_used &= counts.split_used - 1;
            move_row(&self.split[row], &mut counts.split[row]);
        }
        if counts.refused_used != 0 {
            self.flush_refused(counts);
        }
    }

    /// Batches without a refusal do not come here.
    #[cold]
    fn flush_refused(&self, counts: &mut Snapshot) {
        while counts.refused_used != 0 {
            let at = counts.refused_used.trailing_zeros() as usize;
            counts.refused_used &= counts.refused_used - 1;
            move_row(&self.refused[at], &mut counts.refused[at]);
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            values: std::array::from_fn(|i| self.values[i].load(Ordering::Relaxed)),
            used: 0,
            split: self
                .split
                .each_ref()
                .map(|row| row.each_ref().map(|it| it.load(Ordering::Relaxed))),
            split_used: 0,
            refused: self
                .refused
                .each_ref()
                .map(|cells| cells.each_ref().map(|it| it.load(Ordering::Relaxed))),
            refused_used: 0,
        }
    }
}

/// Adds a worker's own counts and empties them.
#[inline]
fn move_row<const N: usize>(values: &[AtomicU64; N], counts: &mut [u64; N]) {
    for (value, count) in values.iter().zip(counts) {
        if *count != 0 {
            value.fetch_add(std::mem::take(count), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_over_a_network_is_counted_for_it() {
        use Network::{Scion, Unknown, V4, V6};
        let counters = Counters::default();
        let mut own = Snapshot::default();
        for network in [V4, V6, V6, Scion] {
            own.count_over(Counter::UdpAnnounces, network);
        }
        counters.flush(&mut own);
        assert_eq!(own, Snapshot::default());
        counters.count_over(Counter::UdpAnnounces, V4);
        counters.count_over(Counter::HttpFailures, Unknown);
        let counted = counters.snapshot();
        let of = |counter, network| counted.of_network(counter, network);
        assert_eq!(counted.get(Counter::UdpAnnounces), 5);
        for (network, count) in [(V4, 2), (V6, 2), (Scion, 1), (Unknown, 0)] {
            assert_eq!(of(Counter::UdpAnnounces, network), Some(count));
        }
        assert_eq!(of(Counter::HttpFailures, Unknown), Some(1));
        assert_eq!(of(Counter::HttpFailures, V4), Some(0));
        counters.count_over(Counter::TcpRefused, V6);
        assert_eq!(
            counters.snapshot().of_network(Counter::TcpRefused, V6),
            Some(1)
        );
        assert_eq!(of(Counter::UdpSendFailures, V4), None);
    }

    #[test]
    fn a_flush_moves_the_counts() {
        let counters = Counters::default();
        let mut own = Snapshot::default();
        own.add(Counter::UdpAnnounces, 3);
        counters.flush(&mut own);
        counters.count(Counter::UdpAnnounces);
        assert_eq!(own, Snapshot::default());
        assert_eq!(counters.snapshot().get(Counter::UdpAnnounces), 4);
    }

    #[test]
    fn every_refusal_has_a_counter_of_its_own_per_transport_and_network() {
        let counters = Counters::default();
        let mut own = Snapshot::default();
        let mut cells = Vec::new();
        for refusal in Refusal::ALL {
            for transport in Transport::ALL {
                for network in Network::ALL {
                    cells.push((*refusal, transport, *network));
                }
            }
        }
        // As many as the place in the list says.
        for (at, (refusal, transport, network)) in cells.iter().enumerate() {
            for _ in 0..at {
                own.refuse(*refusal, *transport, *network);
            }
            counters.refuse(*refusal, *transport, *network);
        }
        counters.flush(&mut own);
        assert_eq!(own, Snapshot::default());
        let counted = counters.snapshot();
        let mut all = 0;
        for (at, (refusal, transport, network)) in cells.iter().enumerate() {
            let count = counted.refused_over(*refusal, *transport, *network);
            assert_eq!(count, at as u64 + 1, "{refusal} {transport:?} {network:?}");
            all += count;
        }
        let refused = Refusal::ALL.iter().map(|refusal| counted.refused(*refusal));
        assert_eq!(refused.sum::<u64>(), all);
        assert!(
            Counter::ALL
                .iter()
                .all(|counter| counted.get(*counter) == 0)
        );
    }

    #[test]
    fn labels_are_unique() {
        let refusals = Refusal::ALL.iter().map(|refusal| refusal.label());
        let mut labels: Vec<_> = Counter::ALL
            .iter()
            .map(|c| c.label())
            .chain(refusals)
            .collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Counter::ALL.len() + Refusal::ALL.len());
    }
}
