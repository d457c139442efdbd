//! Reads the CPU time of a process on this machine from /proc (proc_pid_stat(5)).

use std::fs;
use std::io;

/// What a process has used since its start, with all its threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    /// CPU seconds in user mode.
    pub(crate) user: f64,
    /// CPU seconds in kernel mode.
    pub(crate) system: f64,
    /// Voluntary context switches of its running threads: the thread waited.
    pub(crate) voluntary_switches: u64,
    /// Involuntary context switches of its running threads: another thread took the CPU.
    pub(crate) involuntary_switches: u64,
}

impl Usage {
    /// Reads the usage of the process with this id.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let ticks =
            parse_stat(&stat).ok_or_else(|| io::Error::other("unknown form of /proc/PID/stat"))?;
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        let [user, system] = ticks.map(|ticks| ticks as f64 / per_second);
        let (mut voluntary_switches, mut involuntary_switches) = (0, 0);
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // The thread may have ended.
            let status = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
            voluntary_switches += field(&status, "voluntary_ctxt_switches:");
            involuntary_switches += field(&status, "nonvoluntary_ctxt_switches:");
        }
        Ok(Self {
            user,
            system,
            voluntary_switches,
            involuntary_switches,
        })
    }

    /// What was used since `earlier`.
    pub(crate) const fn since(&self, earlier: &Self) -> Self {
        Self {
            user: self.user - earlier.user,
            system: self.system - earlier.system,
            voluntary_switches: self
                .voluntary_switches
                .saturating_sub(earlier.voluntary_switches),
            involuntary_switches: self
                .involuntary_switches
                .saturating_sub(earlier.involuntary_switches),
        }
    }

    /// CPU seconds.
    pub(crate) const fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

/// Reads utime and stime, the 14th and 15th field. The second field may contain spaces and
/// parentheses.
fn parse_stat(stat: &str) -> Option<[u64; 2]> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse().ok();
    Some([ticks()?, ticks()?])
}

fn field(status: &str, name: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    value
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn stat_is_read_whatever_the_program_is_called() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 123 45 0 0 20 0 1 0 9 1 1";
        assert_eq!(parse_stat(stat), Some([123, 45]));
        assert_eq!(parse_stat("7 (x) S 1"), None);
    }

    #[test]
    fn own_usage_grows_with_work() {
        let before = Usage::of(std::process::id()).unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(200) {
            std::hint::black_box(getrandom::u64().unwrap());
        }
        let used = Usage::of(std::process::id()).unwrap().since(&before);
        assert!(used.cpu() > 0.0, "{used:?}");
        assert!(Usage::of(u32::MAX).is_err());
    }
}
