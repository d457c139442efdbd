//! Counts wrong tokens per source, so that tokens cannot be guessed at speed.
//!
//! A source is an IPv4 address or an IPv6 /64. After [`MOST`] wrong tokens within [`WINDOW`] all its requests
//! over TCP are refused until the window is over. The Unix socket is not concerned.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::sources::source;

/// Wrong tokens of a source within a window.
const MOST: u32 = 10;
/// Time from the first wrong token of a source until it is forgotten.
const WINDOW: Duration = Duration::from_secs(60);
/// Sources that are remembered. The oldest makes room for another one.
const SOURCES: usize = 1024;

/// The wrong tokens of one source.
#[derive(Debug, Clone, Copy)]
struct Failed {
    first: Instant,
    count: u32,
}

/// Sources that sent wrong tokens.
#[derive(Debug, Default)]
pub(super) struct Failures {
    sources: Mutex<HashMap<IpAddr, Failed>>,
}

impl Failures {
    /// How long a source has to wait, if it has sent too many wrong tokens.
    pub(super) fn wait(&self, ip: IpAddr, now: Instant) -> Option<Duration> {
        let sources = self.sources.lock();
        let failed = sources.get(&source(ip))?;
        let left = WINDOW.saturating_sub(now.duration_since(failed.first));
        (failed.count >= MOST && !left.is_zero()).then_some(left)
    }

    /// Counts a wrong token.
    pub(super) fn count(&self, ip: IpAddr, now: Instant) {
        let ip = source(ip);
        let mut sources = self.sources.lock();
        if sources.len() >= SOURCES && !sources.contains_key(&ip) {
            sources.retain(|_, failed| now.duration_since(failed.first) < WINDOW);
            let oldest = sources.iter().min_by_key(|(_, failed)| failed.first);
            if let Some(oldest) = oldest.map(|(ip, _)| *ip)
                && sources.len() >= SOURCES
            {
                sources.remove(&oldest);
            }
        }
        let failed = sources.entry(ip).or_insert(Failed {
            first: now,
            count: 0,
        });
        if now.duration_since(failed.first) >= WINDOW {
            *failed = Failed {
                first: now,
                count: 0,
            };
        }
        failed.count = failed.count.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_guesses_has_to_wait() {
        let failures = Failures::default();
        let start = Instant::now();
        let guesser: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbor: IpAddr = "2001:db8::2:1".parse().unwrap();
        let other: IpAddr = "2001:db8:0:1::1".parse().unwrap();
        for _ in 0..MOST {
            assert_eq!(failures.wait(guesser, start), None);
            failures.count(guesser, start);
        }
        let later = start + Duration::from_secs(20);
        assert_eq!(
            failures.wait(neighbor, later),
            Some(Duration::from_secs(40))
        );
        assert_eq!(failures.wait(other, later), None);
        assert_eq!(failures.wait(guesser, start + WINDOW), None);
        failures.count(guesser, start + WINDOW);
        assert_eq!(failures.wait(guesser, start + WINDOW), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let failures = Failures::default();
        let start = Instant::now();
        for at in 0..2 * SOURCES as u32 {
            failures.count(IpAddr::from(at.to_be_bytes()), start);
        }
        assert_eq!(failures.sources.lock().len(), SOURCES);
    }
}
