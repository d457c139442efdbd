//! The draw inside a tier.

use crate::types::Rng;

/// A draw of `count` different numbers below `total`, each number equally likely (to one in 2^32 over
/// the stratum's size).
///
/// Stratified: `total` is cut into `count` strata, one number is drawn from each, and the whole is
/// rotated by a random amount, which makes up for strata of different sizes. No memory, no retries, no
/// division a number, and no number twice.
#[derive(Debug)]
pub struct Draw {
    total: u64,
    left: u32,
    /// Where the next stratum begins, and how long each is, in 2^-32.
    at: u64,
    step: u64,
    rotation: u64,
}

impl Draw {
    /// A draw of `count` (at most `total`) numbers below `total`.
    #[inline]
    pub fn new(total: u32, count: u32, rng: &mut Rng) -> Self {
        let left = count.min(total);
        let total = u64::from(total);
        Self {
            total,
            left,
            at: 0,
            step: (total << 32) / u64::from(left.max(1)),
            rotation: below(total, rng),
        }
    }

    /// The next number, until all are drawn.
    #[inline]
    pub fn next(&mut self, rng: &mut Rng) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        let low = self.at >> 32;
        self.at += self.step;
        let size = (self.at >> 32) - low;
        let number = low + below(size, rng) + self.rotation;
        let number = if number < self.total {
            number
        } else {
            number - self.total
        };
        Some(number as u32)
    }
}

/// A number below `bound`, which is below 2^32, by one multiplication.
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
        for (total, count) in [(1, 1), (10, 3), (10, 10), (7, 6), (100, 50), (1000, 3)] {
            let rounds = 20_000;
            let mut seen = vec![0u32; total as usize];
            for _ in 0..rounds {
                let mut draw = Draw::new(total, count, &mut rng);
                let mut numbers = Vec::new();
                while let Some(number) = draw.next(&mut rng) {
                    numbers.push(number);
                    seen[number as usize] += 1;
                }
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
