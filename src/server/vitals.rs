//! What a running server does and holds at one moment, for metrics, the page and statistics.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use scion_tracker_core::registry::memory::{Ceilings, Totals};

use super::census::Taken;
use super::{Handle, Listening};
use crate::counters::Snapshot;
use crate::gauges::ReceiveBuffer;
use crate::records::RecordsState;
use crate::samples::{Histogram, Proximity, Transport, UdpRequest};
use crate::snapshot::SnapshotState;
use crate::transport::connections::Over;

/// A number that has a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limited {
    pub(crate) now: u64,
    pub(crate) limit: u64,
}

/// The memory and files of the process, as Linux says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    /// Bytes of resident memory.
    pub(crate) resident: u64,
    pub(crate) open_files: Option<Limited>,
}

/// The state of a server at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Vitals {
    pub(crate) now: SystemTime,
    pub(crate) started: SystemTime,
    /// Time since the start. Unlike `now`, it does not jump when the clock of the system is set.
    pub(crate) uptime: Duration,
    pub(crate) counters: Snapshot,
    pub(crate) registry: Totals,
    pub(crate) ceilings: Ceilings,
    /// In the order of [`Transport::ALL`].
    pub(crate) latency: [Histogram; Transport::ALL.len()],
    /// Peers handed out in measured answers, in the order of [`Proximity::ALL`].
    pub(crate) handed_out: [u64; Proximity::ALL.len()],
    pub(crate) tcp: Limited,
    pub(crate) quic: Limited,
    /// QUIC handshakes in flight at the listener with the most.
    pub(crate) handshakes: Limited,
    /// Bytes.
    pub(crate) connection_memory: Limited,
    /// Readers of live events.
    pub(crate) event_readers: Limited,
    /// Live events that readers were too slow for.
    pub(crate) lost_events: u64,
    pub(crate) listeners: Vec<Listening>,
    pub(crate) receive_buffers: Vec<ReceiveBuffer>,
    pub(crate) scion_remotes: u64,
    pub(crate) certificate_expires: Option<SystemTime>,
    pub(crate) records: RecordsState,
    pub(crate) snapshots: SnapshotState,
    /// Time between two snapshots. `None` if the configuration asks for none.
    pub(crate) snapshot_interval: Option<Duration>,
    pub(crate) process: Option<Process>,
    pub(crate) census: Arc<Taken>,
    pub(crate) is_stopping: bool,
    pub(crate) is_draining: bool,
}

impl Handle {
    /// Reads the state of the server. Takes some microseconds, and no lock that requests wait for.
    pub(crate) fn vitals(&self) -> Vitals {
        let service = &self.service;
        let (gauges, connections) = (&service.gauges, &service.connections);
        let registry = service.tracker.registry();
        let open = |over| Limited {
            now: connections.open(over) as u64,
            limit: connections.limit(over) as u64,
        };
        let (held, limit) = connections.memory();
        let (readers, most_readers) = self.events().readers();
        Vitals {
            now: SystemTime::now(),
            started: gauges.started,
            uptime: service.uptime(),
            counters: service.counted(),
            registry: registry.totals(),
            ceilings: registry.ceilings(),
            latency: Transport::ALL.map(|transport| service.samples.latency(transport)),
            handed_out: service.samples.handed_out(),
            tcp: open(Over::Tcp),
            quic: open(Over::Quic),
            handshakes: Limited {
                now: gauges.handshakes() as u64,
                limit: service.limits().handshakes as u64,
            },
            connection_memory: Limited {
                now: held as u64,
                limit: limit as u64,
            },
            event_readers: Limited {
                now: readers as u64,
                limit: most_readers as u64,
            },
            lost_events: self.events().lost(),
            listeners: gauges.listeners(),
            receive_buffers: gauges.receive_buffers(),
            scion_remotes: gauges.remotes() as u64,
            certificate_expires: self.certificates().and_then(|it| it.expires()),
            records: self.records_state(),
            snapshots: self.snapshot_state(),
            snapshot_interval: self.snapshot_interval(),
            process: process(),
            census: self.census(),
            is_stopping: gauges.is_stopping(),
            is_draining: self.draining().is_some(),
        }
    }
}

impl Handle {
    /// The mean time of answers to such requests over UDP over IP. Zero if none was measured.
    pub(crate) fn udp_mean(&self, request: UdpRequest) -> Duration {
        self.service.samples.udp_mean(request)
    }

    /// The interval in force: a reload does not change it.
    fn snapshot_interval(&self) -> Option<Duration> {
        let config = &self.started.snapshot;
        config.enabled.then_some(config.interval)
    }
}

/// Reads /proc. `None` where there is none.
fn process() -> Option<Process> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(Process {
        resident: kibibytes * 1024,
        open_files: open_files(),
    })
}

fn open_files() -> Option<Limited> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))?;
    Some(Limited {
        // One of them reads the folder.
        now: std::fs::read_dir("/proc/self/fd")
            .ok()?
            .count()
            .saturating_sub(1) as u64,
        limit: line.split_whitespace().nth(3)?.parse().ok()?,
    })
}
