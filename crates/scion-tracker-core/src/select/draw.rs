//! Draws numbers at random, without repeats: the peers inside a tier.

use crate::types::Rng;

/// From this total on, a draw is made in runs of neighbours.
const RUNS_FROM: u64 = 2048;
/// Longest run. Eight IPv4 addresses fill a cache line.
const LONGEST_RUN: u32 = 8;
/// Least number of runs in a draw.
const FEWEST_RUNS: u32 = 4;

/// A draw of `count` distinct numbers below `total`. Each number is equally likely, with a relative
/// error of at most the size of a stratum in 2^32.
///
/// The draw is stratified: `total` is cut into strata of equal size, and one run starts in each of
/// them. The result is rotated by a random amount, which evens out strata of different sizes and
/// their edges. This needs no memory, no retries and no division per number, and no number repeats.
///
/// If `total` is small, or a large share of it is drawn, a run is a single number. Otherwise a run
/// has up to eight neighbouring numbers, and there are at least four runs. Neighbours in a large
/// swarm have nothing in common except that they arrived at the same time, and they share a cache
/// line. So the peers of a reply cost a few cache misses instead of one each.
#[derive(Debug, Clone)]
pub struct Draw {
    total: u32,
    left: u32,
    /// Length of a run, and how much of the current run is left.
    run: u32,
    in_run: u32,
    last: u32,
    /// Start of the next stratum, and length of a stratum, in units of 2^-32.
    at: u64,
    step: u64,
    rotation: u32,
}

impl Draw {
    /// A draw of `count` numbers (at most `total`) below `total`.
    #[inline]
    pub fn new(total: u32, count: u32, rng: &mut Rng) -> Self {
        let left = count.min(total);
        let wide = u64::from(total);
        let (run, strata) = if wide < RUNS_FROM || u64::from(left) * 4 > wide {
            (1, left.max(1))
        } else {
            let run = (left / FEWEST_RUNS).clamp(1, LONGEST_RUN);
            (run, left.div_ceil(run).max(1))
        };
        Self {
            total,
            left,
            run,
            in_run: 0,
            last: 0,
            at: 0,
            step: (wide << 32) / u64::from(strata),
            rotation: below(wide, rng) as u32,
        }
    }

    /// The start and the largest length of each run that [`Draw::next`] will draw with `rng`, so
    /// that the runs can be prefetched together. Empty for a draw of single numbers.
    #[inline]
    pub fn runs(&self, rng: &Rng) -> impl Iterator<Item = (u32, u32)> {
        let (mut ahead, mut rng) = (self.clone(), rng.clone());
        std::iter::from_fn(move || {
            if ahead.run == 1 {
                return None;
            }
            let first = ahead.next(&mut rng)?;
            ahead.left = ahead.left.saturating_sub(ahead.in_run);
            ahead.in_run = 0;
            Some((first, ahead.run))
        })
    }

    /// The next number, or `None` after the last one.
    #[inline]
    pub fn next(&mut self, rng: &mut Rng) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        let number = if let Some(rest) = self.in_run.checked_sub(1) {
            self.in_run = rest;
            u64::from(self.last) + 1
        } else {
            self.in_run = self.run - 1;
            let low = self.at >> 32;
            self.at += self.step;
            // A run ends in the stratum in which it starts.
            let size = (self.at >> 32) - low - u64::from(self.in_run);
            low + below(size, rng) + u64::from(self.rotation)
        };
        let total = u64::from(self.total);
        self.last = if number < total {
            number
        } else {
            number - total
        } as u32;
        Some(self.last)
    }
}

/// A random number below `bound`, which is below 2^32. Takes one multiplication.
#[inline]
fn below(bound: u64, rng: &mut Rng) -> u64 {
    (u64::from(rng.u32(..)) * bound) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_uniform_and_never_repeat() {
        let mut rng = Rng::with_seed(7);
        for (total, count) in [
            (1, 1),
            (10, 3),
            (10, 10),
            (7, 6),
            (100, 50),
            (1000, 3),
            (RUNS_FROM as u32, 50),
            (RUNS_FROM as u32 + 3, 31),
            (3000, 9),
            (3000, 3),
            (2100, 500),
            (2100, 2100),
        ] {
            let rounds = 400_000 / (20 + count);
            let mut seen = vec![0u32; total as usize];
            for _ in 0..rounds {
                let mut draw = Draw::new(total, count, &mut rng);
                let ahead: Vec<_> = draw.runs(&rng).collect();
                let mut numbers = Vec::new();
                while let Some(number) = draw.next(&mut rng) {
                    numbers.push(number);
                    seen[number as usize] += 1;
                }
                let runs = numbers
                    .chunks(draw.run as usize)
                    .map(|run| (run[0], draw.run));
                let runs: Vec<_> = runs.filter(|(_, length)| *length > 1).collect();
                assert_eq!(ahead, runs, "{total} {count}");
                assert_eq!(numbers.len(), count as usize);
                numbers.sort_unstable();
                numbers.dedup();
                assert_eq!(numbers.len(), count as usize, "{total} {count}");
            }
            // Six standard deviations of a binomial, plus one.
            let p = f64::from(count) / f64::from(total);
            let mean = p * f64::from(rounds);
            let margin = 6.0 * (mean * (1.0 - p)).sqrt() + 1.0;
            for hits in seen {
                assert!(
                    (f64::from(hits) - mean).abs() <= margin,
                    "{total} {count}: {hits} of {mean}"
                );
            }
        }
    }
}
