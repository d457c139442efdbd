//! Divides the memory that the operator allows the tracker, and finds out what fits the host.
//!
//! There is one budget, the setting `memory`. Half of it is for torrents and peers, a quarter for
//! connections, and the last quarter is not given out: it is for the program itself, for what the
//! allocator rounds up, and for the socket buffers of the kernel, which a control group charges too.

use std::fs;
use std::path::{Path, PathBuf};

/// The whole budget if nobody sets one and no host is looked at.
pub(crate) const DEFAULT: usize = 4 << 30;
/// The smallest whole budget.
pub(crate) const LEAST: usize = 64 << 20;

/// Most bytes of each part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Torrents and peers.
    pub(crate) registry: usize,
    /// Connections over TCP and QUIC.
    pub(crate) connections: usize,
}

impl Budget {
    /// Divides `total` bytes. A part that is set stays as it is; the others share the rest as they do
    /// without it.
    pub(crate) fn divide(
        total: usize,
        registry: Option<usize>,
        connections: Option<usize>,
    ) -> Self {
        let left = |set: Option<usize>| total.saturating_sub(set.unwrap_or(0));
        // Of three quarters two, of two quarters one.
        let without_connections = connections.map_or(total / 2, |_| left(connections) / 3 * 2);
        let registry = registry.unwrap_or(without_connections);
        Self {
            registry,
            connections: connections.unwrap_or_else(|| left(Some(registry)) / 2),
        }
    }

    /// The smallest whole budget that leaves these parts their usual share.
    pub(crate) fn total_for(registry: Option<usize>, connections: Option<usize>) -> usize {
        let registry = registry.unwrap_or(0).saturating_mul(2);
        registry.max(connections.unwrap_or(0).saturating_mul(4))
    }
}

/// The budget that fits this host: three quarters of what the control group allows, or half of the
/// memory of the host if that is less; at most [`DEFAULT`]. `None` if the system does not say.
pub(crate) fn of_host() -> Option<usize> {
    of_system(Path::new("/"), told_by_kernel())
}

/// The memory of the host in bytes by sysinfo(2), for services that do not see /proc/meminfo
/// (`ProcSubset=pid` of systemd).
#[cfg(target_os = "linux")]
fn told_by_kernel() -> Option<u64> {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).checked_mul(info.mem_unit.into())
}

#[cfg(not(target_os = "linux"))]
const fn told_by_kernel() -> Option<u64> {
    None
}

/// The same of a system whose files are below `root`. `told` counts if no file says how much memory the
/// host has.
fn of_system(root: &Path, told: Option<u64>) -> Option<usize> {
    let group = limit_of_group(root).map(|limit| limit / 4 * 3);
    let host = total(root).or(told).map(|total| total / 2);
    let least = group.into_iter().chain(host).min()?;
    let least = usize::try_from(least).unwrap_or(usize::MAX);
    Some(least.clamp(LEAST, DEFAULT))
}

/// `MemTotal` in bytes (proc_meminfo(5)).
fn total(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|it| it.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The least limit of the control group of this process and those above it (cgroups(7)): `memory.max`
/// of version 2, `memory.limit_in_bytes` of version 1. `None` if there is none.
fn limit_of_group(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let limits = groups.lines().flat_map(|line| {
        // "0::/path", or "N:controller,controller:/path" in version 1.
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        let (mount, file) = if controllers.is_empty() {
            ("sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|it| it == "memory") {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            return None;
        };
        limit_of_path(&root.join(mount), path.trim_start_matches('/'), file)
    });
    limits.min()
}

/// The least limit in the directory `path` below `mount` and the directories above it. In a container
/// the path may be that of the host, which is not below the mount.
fn limit_of_path(mount: &Path, path: &str, file: &str) -> Option<u64> {
    let path = PathBuf::from(path);
    let limits = path.ancestors().filter_map(|directory| {
        let text = fs::read_to_string(mount.join(directory).join(file)).ok()?;
        // "max" in version 2. Version 1 has a number above any memory instead, which does no harm.
        text.trim().parse::<u64>().ok()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn the_parts_share_what_is_not_set() {
        for (registry, connections, expected) in [
            (None, None, (512, 256)),
            (Some(512), None, (512, 256)),
            (None, Some(256), (512, 256)),
            (Some(1000), None, (1000, 12)),
            (None, Some(124), (600, 124)),
            (Some(700), Some(300), (700, 300)),
            (Some(2000), None, (2000, 0)),
        ] {
            let bytes = |part: Option<usize>| part.map(|it| it * MIB);
            let budget = Budget::divide(1024 * MIB, bytes(registry), bytes(connections));
            let found = (budget.registry / MIB, budget.connections / MIB);
            assert_eq!(found, expected, "{registry:?} {connections:?}");
        }
    }

    #[test]
    fn a_part_that_is_set_leaves_the_others_room() {
        for (registry, connections) in [(Some(100), None), (None, Some(100)), (Some(10), Some(90))]
        {
            let total = Budget::total_for(registry, connections);
            let budget = Budget::divide(total, registry, connections);
            assert!(budget.registry + budget.connections <= total / 4 * 3 + 3);
            assert!(budget.registry > 0 && budget.connections > 0);
        }
    }

    /// What a system with these files allows, in MiB.
    fn found(files: &[(&str, &str)]) -> Option<usize> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        of_system(root.path(), None).map(|bytes| bytes / MIB)
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_kernel_tells_the_memory_when_no_file_does() {
        let empty = tempfile::tempdir().unwrap();
        let told = told_by_kernel().unwrap();
        assert!(told > 1 << 24, "{told}");
        assert_eq!(of_system(empty.path(), Some(1 << 30)), Some(1 << 29));
    }

    #[test]
    fn the_budget_fits_the_host_and_its_control_group() {
        let two_gib = ("proc/meminfo", "MemTotal:  2097152 kB\nMemFree: 1 kB\n");
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[two_gib]), Some(1024));
        let large = ("proc/meminfo", "MemTotal: 268435456 kB\n");
        assert_eq!(found(&[large]), Some(4096));
        assert_eq!(found(&[("proc/meminfo", "MemTotal: 1000 kB\n")]), Some(64));
        assert_eq!(found(&[("proc/meminfo", "MemTotal: many\n")]), None);

        let v2 = ("proc/self/cgroup", "0::/system.slice/tracker.service\n");
        let unit = "sys/fs/cgroup/system.slice/tracker.service/memory.max";
        let slice = "sys/fs/cgroup/system.slice/memory.max";
        assert_eq!(found(&[two_gib, v2, (unit, "536870912\n")]), Some(384));
        assert_eq!(found(&[two_gib, v2, (unit, "max\n")]), Some(1024));
        // The limit of a group above counts too.
        let both = [two_gib, v2, (unit, "max\n"), (slice, "268435456\n")];
        assert_eq!(found(&both), Some(192));
        // In a container the path may be another one, and the limit is at the mount.
        let mount = ("sys/fs/cgroup/memory.max", "134217728\n");
        assert_eq!(found(&[two_gib, v2, mount]), Some(96));

        let v1 = (
            "proc/self/cgroup",
            "7:cpu,cpuacct:/a\n5:memory:/docker/1\n0::/\n",
        );
        let limit = "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes";
        assert_eq!(found(&[two_gib, v1, (limit, "536870912\n")]), Some(384));
        let none = (limit, "9223372036854771712\n");
        assert_eq!(found(&[two_gib, v1, none]), Some(1024));
    }

    #[test]
    fn this_host_has_memory() {
        assert!(of_host().is_some_and(|bytes| bytes >= LEAST));
    }
}
