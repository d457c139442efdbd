//! What the tracker holds now, and how near its limits are, as metrics.

use std::time::SystemTime;

use super::places;
use super::{Out, Written};
use crate::records::RecordsState;
use crate::samples::{Proximity, Transport};
use crate::server::Listening;
use crate::server::vitals::{Limited, Vitals};
use crate::snapshot::SnapshotState;

/// Writes all but the counters.
pub(super) fn write(vitals: &Vitals, out: &mut Out<'_>) -> Written {
    out.info(
        "build",
        "Version of the program",
        vec![("version", env!("CARGO_PKG_VERSION"))],
    )?;
    out.gauge(
        "start_time_seconds",
        "When the tracker started, in seconds since 1970",
        unix(vitals.started),
    )?;
    swarms(vitals, out)?;
    places::write(&vitals.census, out)?;
    answers(vitals, out)?;
    connections(vitals, out)?;
    sockets(vitals, out)?;
    if let Some(expires) = vitals.certificate_expires {
        out.gauge(
            "certificate_expiry_timestamp_seconds",
            "When the certificate of HTTPS and HTTP/3 expires, in seconds since 1970",
            unix(expires),
        )?;
    }
    records(vitals, out)?;
    snapshots(vitals, out)?;
    process(vitals, out)
}

pub(super) fn unix(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

fn swarms(vitals: &Vitals, out: &mut Out<'_>) -> Written {
    let Vitals {
        registry, ceilings, ..
    } = vitals;
    out.gauge(
        "torrents",
        "Torrents with at least one peer",
        registry.torrents as f64,
    )?;
    out.gauge(
        "torrents_limit",
        "Most torrents (registry.torrents)",
        ceilings.torrents as f64,
    )?;
    let peers = [("seeder", registry.seeders), ("leecher", registry.leechers)];
    let peers = peers.map(|(role, count)| (vec![("role", role)], count as f64));
    out.gauges("peers", "Peers", peers)?;
    out.gauge(
        "registry_memory_bytes",
        "Memory that torrents and peers are charged with",
        registry.memory as f64,
    )?;
    out.gauge(
        "registry_memory_limit_bytes",
        "Most memory of torrents and peers (registry.memory)",
        ceilings.memory as f64,
    )
}

fn answers(vitals: &Vitals, out: &mut Out<'_>) -> Written {
    let latency = Transport::ALL.into_iter().zip(vitals.latency.clone());
    let latency = latency.map(|(it, histogram)| (vec![("transport", it.label())], histogram));
    out.histograms(
        "answer_duration_seconds",
        "Time from a request that was read to its encoded reply, of one request in 61",
        latency,
    )?;
    let handed_out = Proximity::ALL.into_iter().zip(vitals.handed_out);
    let handed_out = handed_out.map(|(it, count)| (vec![("proximity", it.label())], count));
    out.counters(
        "sampled_peers_handed_out",
        "Peers in replies by how near they are to the client, of one announce in 61",
        handed_out,
    )
}

fn connections(vitals: &Vitals, out: &mut Out<'_>) -> Written {
    let over = [("tcp", vitals.tcp), ("quic", vitals.quic)];
    let rows = |value: fn(Limited) -> u64| {
        over.map(|(transport, it)| (vec![("transport", transport)], value(it) as f64))
    };
    out.gauges(
        "open_connections",
        "Connections that are open",
        rows(|it| it.now),
    )?;
    out.gauges(
        "open_connections_limit",
        "Most open connections (connections.tcp, connections.quic)",
        rows(|it| it.limit),
    )?;
    let Vitals {
        handshakes,
        connection_memory: memory,
        ..
    } = vitals;
    out.gauge(
        "quic_handshakes",
        "QUIC handshakes in flight at the listener with the most",
        handshakes.now as f64,
    )?;
    out.gauge(
        "quic_handshakes_limit",
        "Most QUIC handshakes in flight at a listener (connections.handshakes)",
        handshakes.limit as f64,
    )?;
    out.gauge(
        "connection_memory_bytes",
        "Memory that connections are charged with",
        memory.now as f64,
    )?;
    out.gauge(
        "connection_memory_limit_bytes",
        "Most memory of connections (connections.memory)",
        memory.limit as f64,
    )?;
    out.gauge(
        "event_readers",
        "Readers of live events that are connected",
        vitals.event_readers.now as f64,
    )?;
    out.gauge(
        "event_readers_limit",
        "Most readers of live events",
        vitals.event_readers.limit as f64,
    )?;
    out.counter(
        "lost_events",
        "Live events that a reader was too slow for",
        vitals.lost_events,
    )
}

fn sockets(vitals: &Vitals, out: &mut Out<'_>) -> Written {
    let names: Vec<_> = vitals.listeners.iter().map(Listening::to_string).collect();
    let listeners = vitals.listeners.iter().zip(&names);
    let listeners = listeners.map(|(it, name)| {
        let labels = vec![("kind", it.kind.name()), ("listener", name.as_str())];
        (labels, f64::from(u8::from(!vitals.is_stopping)))
    });
    out.gauges(
        "listener_up",
        "1 if the listener takes requests, 0 while the tracker stops",
        listeners,
    )?;
    let buffers = &vitals.receive_buffers;
    let names: Vec<_> = buffers.iter().map(|it| it.listener.to_string()).collect();
    let rows = |value: fn(&crate::gauges::ReceiveBuffer) -> usize| {
        let rows = buffers.iter().zip(&names);
        let rows =
            rows.map(move |(it, name)| (vec![("listener", name.as_str())], value(it) as f64));
        rows.collect::<Vec<_>>()
    };
    out.gauges(
        "receive_buffer_bytes",
        "Receive buffer that the kernel granted each UDP socket of a listener",
        rows(|it| it.granted),
    )?;
    out.gauges(
        "receive_buffer_asked_bytes",
        "Receive buffer that the configuration asks for (udp.receive_buffer)",
        rows(|it| it.asked),
    )?;
    let dropped = buffers.iter().zip(&names);
    let dropped = dropped.map(|(it, name)| (vec![("listener", name.as_str())], it.dropped));
    out.counters(
        "kernel_dropped_datagrams",
        "Datagrams that the kernel dropped, nearly always because a receive buffer was full",
        dropped,
    )?;
    out.gauge(
        "scion_remotes",
        "Remotes of QUIC over SCION in the tables",
        vitals.scion_remotes as f64,
    )
}

fn records(vitals: &Vitals, out: &mut Out<'_>) -> Written {
    let RecordsState {
        store,
        outage,
        last_write,
        changes_waiting,
        counts_waiting,
        writes,
        failures,
        counts_dropped,
        ..
    } = &vitals.records;
    out.info(
        "records",
        "Where records are kept",
        vec![("store", store.name())],
    )?;
    out.gauge(
        "records_up",
        "1 if the store of the records can be used",
        f64::from(u8::from(outage.is_none())),
    )?;
    out.gauge(
        "records_outage_seconds",
        "For how long the store of the records could not be used",
        outage.unwrap_or_default().as_secs_f64(),
    )?;
    if let Some(age) = last_write {
        let at = vitals
            .now
            .checked_sub(*age)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        out.gauge(
            "records_last_write_timestamp_seconds",
            "When records were last written, in seconds since 1970",
            unix(at),
        )?;
    }
    let waiting = [("changes", *changes_waiting), ("counts", *counts_waiting)];
    let waiting = waiting.map(|(kind, count)| (vec![("kind", kind)], count as f64));
    out.gauges(
        "records_waiting",
        "Records that wait to be written",
        waiting,
    )?;
    let outcomes = [("written", *writes), ("failed", *failures)];
    let outcomes = outcomes.map(|(outcome, count)| (vec![("outcome", outcome)], count));
    out.counters(
        "records_writes",
        "Writes to the store of the records",
        outcomes,
    )?;
    out.counter(
        "records_dropped_downloads",
        "Completed downloads that are lost to the records",
        *counts_dropped,
    )
}

fn snapshots(vitals: &Vitals, out: &mut Out<'_>) -> Written {
    let SnapshotState {
        file,
        loaded,
        last,
        failures,
        ..
    } = &vitals.snapshots;
    out.gauge(
        "snapshot_enabled",
        "1 if snapshots of the swarms are written",
        f64::from(u8::from(file.is_some())),
    )?;
    if let Some(interval) = vitals.snapshot_interval {
        out.gauge(
            "snapshot_interval_seconds",
            "Time between two snapshots (snapshot.interval)",
            interval.as_secs_f64(),
        )?;
    }
    if let Some(loaded) = loaded {
        out.gauge(
            "snapshot_loaded_peers",
            "Peers that the tracker took from a snapshot when it started",
            loaded.peers as f64,
        )?;
    }
    if let Some(last) = last {
        out.gauge(
            "snapshot_last_timestamp_seconds",
            "When the last snapshot was complete, in seconds since 1970",
            unix(last.finished),
        )?;
        out.gauge(
            "snapshot_last_duration_seconds",
            "How long the last snapshot took",
            last.duration.as_secs_f64(),
        )?;
        out.gauge(
            "snapshot_last_size_bytes",
            "Size of the last snapshot",
            last.bytes as f64,
        )?;
        out.gauge(
            "snapshot_last_torrents",
            "Torrents in the last snapshot",
            last.torrents as f64,
        )?;
        out.gauge(
            "snapshot_last_peers",
            "Peers in the last snapshot",
            last.peers as f64,
        )?;
    }
    out.counter(
        "snapshot_failures",
        "Snapshots that could not be written",
        *failures,
    )
}

fn process(vitals: &Vitals, out: &mut Out<'_>) -> Written {
    let Some(process) = &vitals.process else {
        return Ok(());
    };
    out.gauge(
        "process_resident_memory_bytes",
        "Resident memory of the process",
        process.resident as f64,
    )?;
    let Some(files) = process.open_files else {
        return Ok(());
    };
    out.gauge(
        "process_open_files",
        "Open files and sockets of the process",
        files.now as f64,
    )?;
    out.gauge(
        "process_open_files_limit",
        "Most open files and sockets of the process",
        files.limit as f64,
    )
}
