//! The core network between the ISDs of a simulated world: which ISD is near which, and what a tracker
//! knows of it. Only links between ISDs count; the way inside an ISD is the same for all.

use scion_tracker_core::types::Rng;

/// Highest ISD number, plus one.
const ISDS: usize = 10;
/// Latency across the whole map, in ms one way.
const ACROSS: f32 = 100.0;
/// Links of an ISD to its nearest neighbours. Links of neighbours come on top.
const NEIGHBOURS: usize = 2;
/// The ISD of the tracker.
const TRACKER: usize = 1;

/// How a tracker estimates the distance of two peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Estimate {
    /// The true latency. No tracker knows it: a daemon reports paths from its own AS only.
    Truth,
    /// From the paths of the tracker's daemon to both: the sum of their latencies, without the part
    /// that they share.
    Tree,
}

/// A path between two ISDs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Links between ISDs.
    pub links: f32,
    /// Latency in ms.
    pub ms: f32,
}

/// Paths between all ISDs.
#[derive(Debug, Clone)]
pub struct Core {
    costs: [[Cost; ISDS]; ISDS],
    /// The ISD before the last one, on the path from the tracker.
    before: [usize; ISDS],
}

impl Core {
    /// Draws places for the ISDs on a square map, and links: a ring, so that all are connected, and
    /// links to the nearest.
    pub fn new(isds: &[usize], rng: &mut Rng) -> Self {
        let mut places = [(0.0_f32, 0.0_f32); ISDS];
        for isd in isds {
            places[*isd] = (rng.f32() * ACROSS, rng.f32() * ACROSS);
        }
        let ms = |a: usize, b: usize| {
            let ((ax, ay), (bx, by)) = (places[a], places[b]);
            (ax - bx).hypot(ay - by)
        };
        let far = Cost {
            links: f32::INFINITY,
            ms: f32::INFINITY,
        };
        let mut costs = [[far; ISDS]; ISDS];
        let mut link = |a: usize, b: usize| {
            let cost = Cost {
                links: 1.0,
                ms: ms(a, b),
            };
            costs[a][b] = cost;
            costs[b][a] = cost;
        };
        for (at, isd) in isds.iter().enumerate() {
            link(*isd, isds[(at + 1) % isds.len()]);
            let mut others: Vec<usize> = isds.iter().copied().filter(|it| it != isd).collect();
            others.sort_by(|a, b| ms(*isd, *a).total_cmp(&ms(*isd, *b)));
            others
                .iter()
                .take(NEIGHBOURS)
                .for_each(|it| link(*isd, *it));
        }
        let mut before = [TRACKER; ISDS];
        for (isd, row) in costs.iter_mut().enumerate() {
            row[isd] = Cost::default();
        }
        for middle in isds {
            for from in isds {
                for to in isds {
                    let (one, two) = (costs[*from][*middle], costs[*middle][*to]);
                    if one.ms + two.ms < costs[*from][*to].ms {
                        costs[*from][*to] = Cost {
                            links: one.links + two.links,
                            ms: one.ms + two.ms,
                        };
                    }
                }
            }
        }
        // The last link of the fastest path: the neighbour through which nothing is lost.
        for to in isds.iter().filter(|it| **it != TRACKER) {
            let through = isds.iter().filter(|it| *it != to).min_by(|a, b| {
                let detour = |it: usize| {
                    let last = costs[it][*to];
                    let single = if last.links == 1.0 { 0.0 } else { ACROSS };
                    costs[TRACKER][it].ms + last.ms + single
                };
                detour(**a).total_cmp(&detour(**b))
            });
            before[*to] = through.copied().unwrap_or(TRACKER);
        }
        Self { costs, before }
    }

    /// The path between two ISDs.
    pub const fn cost(&self, a: usize, b: usize) -> Cost {
        self.costs[a][b]
    }

    /// The latency between two ISDs as the tracker estimates it, in ms.
    pub fn estimate(&self, how: Estimate, a: usize, b: usize) -> f32 {
        match how {
            Estimate::Truth => self.costs[a][b].ms,
            Estimate::Tree => {
                let from = |isd: usize| self.costs[TRACKER][isd].ms;
                from(a) + from(b) - 2.0 * from(self.shared(a, b))
            }
        }
    }

    /// The last ISD that the paths from the tracker to both have in common.
    fn shared(&self, a: usize, b: usize) -> usize {
        let way = |mut isd: usize| {
            let mut way = vec![isd];
            while isd != TRACKER && way.len() < ISDS {
                isd = self.before[isd];
                way.push(isd);
            }
            way
        };
        let (a, b) = (way(a), way(b));
        let shared = a.iter().find(|isd| b.contains(isd));
        shared.copied().unwrap_or(TRACKER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_metric_and_the_tree_is_never_shorter() {
        for seed in 0..50 {
            let isds = [1, 2, 3, 4, 5, 6, 9];
            let core = Core::new(&isds, &mut Rng::with_seed(seed));
            for a in isds {
                for b in isds {
                    let true_ms = core.estimate(Estimate::Truth, a, b);
                    assert!(true_ms.is_finite());
                    let tree = core.estimate(Estimate::Tree, a, b);
                    assert!(tree > true_ms - 0.01, "{a} {b}: {tree} {true_ms}");
                    if a == TRACKER {
                        assert!((tree - true_ms).abs() < 0.01, "{b}: {tree} {true_ms}");
                    }
                    for c in isds {
                        let detour = core.cost(a, c).ms + core.cost(c, b).ms;
                        assert!(true_ms < detour + 0.01);
                    }
                }
            }
        }
    }
}
