//! The section `snapshot` of the configuration: how swarms survive a restart.

use std::time::Duration;

use super::value;

/// See [`Config::snapshot`](super::Config::snapshot).
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
#[non_exhaustive]
pub struct Snapshot {
    /// Whether to read the snapshot at the start, and to write it. If the data directory cannot be used, or if
    /// another tracker uses it, a warning says so, and there are no snapshots.
    #[config(env = "SCION_TRACKER_SNAPSHOT_ENABLED", default = true)]
    pub enabled: bool,

    /// Time between two snapshots, from 1s on. One is also written when the tracker stops. After a crash, the
    /// peers of the last snapshot are there again.
    #[config(
        env = "SCION_TRACKER_SNAPSHOT_INTERVAL",
        default = "5m",
        deserialize_with = value::duration,
        validate(interval.as_secs() >= 1, "interval is at least 1s")
    )]
    pub interval: Duration,
}
