//! The counters of the tracker as metrics. A counter that has no row here does not compile.

use std::collections::BTreeMap;

use scion_tracker_core::response::Refusal;

use super::{Labels, Out, Written};
use crate::counters::{Counter, Network, Snapshot};
use crate::samples::Transport;

/// The metric of a counter.
struct Metric {
    name: &'static str,
    labels: &'static [(&'static str, &'static str)],
}

/// Names without the prefix and `_total`, with their help.
const HELP: &[(&str, &str)] = &[
    ("requests", "Requests answered"),
    (
        "rejected_requests",
        "Requests over HTTP answered with a 4xx status",
    ),
    ("dropped_datagrams", "Datagrams that got no answer"),
    ("send_failures", "Datagrams that a socket would not take"),
    (
        "receive_failures",
        "Passing errors of receiving from a UDP socket",
    ),
    (
        "oversized_packets",
        "Packets over SCION that were longer than the MTU of their link",
    ),
    ("connections", "Connections opened"),
    ("refused_connections", "Connections refused"),
    (
        "closed_connections",
        "Connections that the tracker closed early",
    ),
    (
        "tls_handshake_failures",
        "TLS handshakes over TCP that failed",
    ),
    (
        "quic_retries",
        "QUIC connection attempts answered with Retry",
    ),
    (
        "suppressed_log_lines",
        "Log lines that strangers caused, suppressed because there were too many",
    ),
    (
        "lost_access_log_lines",
        "Lines of the access log that were lost because its disk was slow or full",
    ),
    (
        "scion_remotes_added",
        "Remotes of QUIC over SCION that were new",
    ),
    (
        "scion_paths_adopted",
        "Answers over SCION that took another path than before",
    ),
    (
        "scion_paths_failed",
        "Paths in use that an SCMP error named",
    ),
    (
        "scion_resent_packets",
        "Packets that a router returned and that were sent again over another path",
    ),
    (
        "scion_wrong_checksums",
        "Packets over SCION that were taken although their checksum is wrong",
    ),
    ("scmp_messages", "SCMP messages"),
    (
        "scion_versions_negotiated",
        "Packets answered with QUIC Version Negotiation",
    ),
];

/// The metric of a counter. `None` if `gauges` writes it, by listener.
fn metric(counter: Counter) -> Option<Metric> {
    use Counter as C;
    const UDP: (&str, &str) = ("transport", "udp");
    const HTTP: (&str, &str) = ("transport", "http");
    const HTTP3: (&str, &str) = ("transport", "http3");
    const TCP: (&str, &str) = ("transport", "tcp");
    const QUIC: (&str, &str) = ("transport", "quic");
    const SCION: (&str, &str) = ("transport", "scion");
    const ANY: (&str, &str) = ("transport", "any");
    macro_rules! metric {
        ($name:literal $(, $label:expr)*) => { ($name, &[$($label),*]) };
    }
    let (name, labels): (_, &'static [_]) = match counter {
        C::UdpConnects => metric!("requests", UDP, ("outcome", "connect")),
        C::UdpAnnounces => metric!("requests", UDP, ("outcome", "announce")),
        C::UdpScrapes => metric!("requests", UDP, ("outcome", "scrape")),
        C::UdpErrors => metric!("requests", UDP, ("outcome", "failure")),
        C::HttpAnnounces => metric!("requests", HTTP, ("outcome", "announce")),
        C::HttpScrapes => metric!("requests", HTTP, ("outcome", "scrape")),
        C::HttpFailures => metric!("requests", HTTP, ("outcome", "failure")),
        C::Http3Announces => metric!("requests", HTTP3, ("outcome", "announce")),
        C::Http3Scrapes => metric!("requests", HTTP3, ("outcome", "scrape")),
        C::Http3Failures => metric!("requests", HTTP3, ("outcome", "failure")),
        C::HttpRejected => metric!("rejected_requests", HTTP),
        C::Http3Rejected => metric!("rejected_requests", HTTP3),
        C::UdpMalformed => metric!("dropped_datagrams", UDP, ("reason", "malformed")),
        C::UdpBadConnectionId => {
            metric!("dropped_datagrams", UDP, ("reason", "bad_connection_id"))
        }
        C::QuicElsewhere => metric!("dropped_datagrams", QUIC, ("reason", "other_host")),
        C::QuicUnforwarded => metric!("dropped_datagrams", QUIC, ("reason", "queue_full")),
        C::ScionMalformed => metric!("dropped_datagrams", SCION, ("reason", "malformed")),
        C::ScionElsewhere => metric!("dropped_datagrams", SCION, ("reason", "other_destination")),
        C::ScionWrongPath => metric!("dropped_datagrams", SCION, ("reason", "wrong_path")),
        C::ScionWrongUnderlay => metric!("dropped_datagrams", SCION, ("reason", "wrong_underlay")),
        C::ScionUnanswerable => metric!("dropped_datagrams", SCION, ("reason", "unanswerable")),
        C::ScionRemotesUnknown => metric!("dropped_datagrams", SCION, ("reason", "unknown_remote")),
        C::UdpKernelDrops => return None,
        C::UdpSendFailures => metric!("send_failures", UDP),
        C::ScionSendFailures => metric!("send_failures", SCION),
        C::ReceiveFailures => metric!("receive_failures"),
        C::ScionTooLong => metric!("oversized_packets"),
        C::TcpConnections => metric!("connections", TCP),
        C::QuicConnections => metric!("connections", QUIC),
        C::TcpRefused => metric!("refused_connections", TCP, ("reason", "limit")),
        C::QuicRefused => metric!("refused_connections", QUIC, ("reason", "limit")),
        C::ConnectionsOverMemory => metric!("refused_connections", ANY, ("reason", "memory")),
        C::TcpAborted => metric!("closed_connections", TCP, ("reason", "aborted")),
        C::QuicAborted => metric!("closed_connections", QUIC, ("reason", "aborted")),
        C::Http3Excessive => metric!("closed_connections", QUIC, ("reason", "excessive")),
        C::QuicEvicted => metric!("closed_connections", QUIC, ("reason", "handshake_evicted")),
        C::ConnectionsEvicted => metric!("closed_connections", ANY, ("reason", "memory")),
        C::TlsFailures => metric!("tls_handshake_failures"),
        C::QuicRetries => metric!("quic_retries"),
        C::LogLinesSuppressed => metric!("suppressed_log_lines"),
        C::AccessLogLost => metric!("lost_access_log_lines"),
        C::ScionRemotesAdded => metric!("scion_remotes_added"),
        C::ScionPathsAdopted => metric!("scion_paths_adopted"),
        C::ScionPathsFailed => metric!("scion_paths_failed"),
        C::ScionResent => metric!("scion_resent_packets"),
        C::ScionWrongChecksum => metric!("scion_wrong_checksums"),
        C::ScionScmpIgnored => metric!("scmp_messages", ("outcome", "ignored")),
        C::ScionEchoes => metric!("scmp_messages", ("outcome", "echo_answered")),
        C::ScionEchoesRefused => metric!("scmp_messages", ("outcome", "echo_refused")),
        C::ScionVersionsNegotiated => metric!("scion_versions_negotiated"),
    };
    Some(Metric { name, labels })
}

/// Writes all counters.
pub(super) fn write(counted: &Snapshot, out: &mut Out<'_>) -> Written {
    let mut rows: BTreeMap<&str, Vec<(Labels<'_>, u64)>> = BTreeMap::new();
    for counter in Counter::ALL {
        let Some(Metric { name, labels }) = metric(*counter) else {
            continue;
        };
        let rows = rows.entry(name).or_default();
        let mut is_split = false;
        for network in Network::ALL {
            if let Some(count) = counted.of_network(*counter, *network) {
                is_split = true;
                let labels = labels.iter().copied();
                rows.push((labels.chain([("family", network.label())]).collect(), count));
            }
        }
        if !is_split {
            rows.push((labels.to_vec(), counted.get(*counter)));
        }
    }
    for (name, rows) in rows {
        let help = HELP.iter().find(|(known, _)| *known == name);
        out.counters(name, help.map_or("", |(_, help)| help), rows)?;
    }
    out.counters("refusals", "Requests refused", refusals(counted))
}

/// A row for each reason, transport and family. The family is unknown only over HTTP and for one reason, so those
/// rows are left out as long as they are 0.
fn refusals(counted: &Snapshot) -> Vec<(Labels<'static>, u64)> {
    let mut rows = Vec::new();
    for refusal in Refusal::ALL {
        for transport in Transport::ALL {
            for network in Network::ALL {
                let count = counted.refused_over(*refusal, transport, *network);
                if count == 0 && *network == Network::Unknown {
                    continue;
                }
                let labels = vec![
                    ("transport", transport.label()),
                    ("family", network.label()),
                    ("reason", refusal.label()),
                ];
                rows.push((labels, count));
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_help_and_labels_of_its_own() {
        let mut seen = Vec::new();
        for counter in Counter::ALL {
            let Some(Metric { name, labels }) = metric(*counter) else {
                continue;
            };
            assert!(HELP.iter().any(|(known, _)| *known == name), "{name}");
            assert!(!seen.contains(&(name, labels)), "{name} {labels:?}");
            seen.push((name, labels));
        }
        for (name, _) in HELP {
            assert!(seen.iter().any(|(used, _)| used == name), "{name}");
        }
    }
}
