//! Geometry of the pictures of the page. SVG attributes only: the page allows no inline styles.

use std::fmt::Write as _;

/// Dots in a picture. Each stands for a share of what was handed out.
const DOTS: u64 = 200;
/// Between successive dots of a sunflower, in radians.
const GOLDEN_ANGLE: f64 = 2.399_963_229_728_653;
/// Distance of the outermost dot from the middle, in the units of the view box.
const RADIUS: f64 = 94.0;
/// The dot in the middle is the client that asks. The others keep clear of it.
const MIDDLE: f64 = 6.0;

/// Dots around a client, the nearest peers innermost.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Dots {
    /// For each part a path with a point per dot, drawn with a round brush.
    pub(crate) paths: [String; 4],
    /// Radius of the circle around the dots in the client's AS, and of the one around its ISD.
    pub(crate) rings: Vec<f64>,
}

impl Dots {
    /// The picture of these parts, nearest first. `None` if there is nothing.
    pub(crate) fn new(parts: &[u64; 4]) -> Option<Self> {
        let dots_of = shares(parts, DOTS)?;
        let radius = |n: f64| MIDDLE + (RADIUS - MIDDLE) * (n / DOTS as f64).sqrt();
        let owners = dots_of
            .iter()
            .enumerate()
            .flat_map(|(part, dots)| (0..*dots).map(move |_| part));
        let mut paths = [const { String::new() }; 4];
        for (n, part) in owners.enumerate() {
            let (sin, cos) = (n as f64 * GOLDEN_ANGLE).sin_cos();
            let r = radius(n as f64 + 0.5);
            let (x, y) = (100.0 + r * cos, 100.0 + r * sin);
            // Writing to a string cannot fail.
            let _ = write!(paths[part], "M{x:.1} {y:.1}h0");
        }
        let ends = [dots_of[0], dots_of[0] + dots_of[1]];
        let rings = ends.iter().filter(|end| (1..DOTS).contains(end));
        Some(Self {
            paths,
            rings: rings.map(|end| tenth(radius(*end as f64))).collect(),
        })
    }
}

fn tenth(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

/// Divides `whole` in the ratio of the parts. What is not nothing gets at least one.
fn shares(parts: &[u64; 4], whole: u64) -> Option<[u64; 4]> {
    let sum: u64 = parts.iter().sum();
    if sum == 0 {
        return None;
    }
    let share = |part: u64| (u128::from(part) * u128::from(whole) / u128::from(sum)) as u64;
    let mut shares = parts.map(|part| match part {
        0 => 0,
        _ => share(part).max(1),
    });
    // Rounding and small parts are the largest part's affair.
    let others: u64 = shares.iter().sum();
    let largest = (0..4).max_by_key(|at| parts[*at]).unwrap_or(0);
    shares[largest] = (shares[largest] + whole).saturating_sub(others);
    Some(shares)
}

/// A chart of stacked areas over time, in a view box of [`Chart::WIDTH`] by [`Chart::HEIGHT`].
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Chart {
    /// Paths from the lowest area to the highest.
    pub(crate) areas: Vec<String>,
    /// The value at the upper edge.
    pub(crate) top: f64,
    /// The sum at the last moment.
    pub(crate) last: f64,
    /// The largest sum.
    pub(crate) peak: f64,
}

impl Chart {
    pub(crate) const WIDTH: f64 = 600.0;
    pub(crate) const HEIGHT: f64 = 100.0;

    /// A chart of these series of the same length, from edge to edge. Empty with fewer than two moments.
    pub(crate) fn new(series: &[Vec<f64>]) -> Self {
        let length = series.iter().map(Vec::len).min().unwrap_or(0);
        if length < 2 {
            return Self::default();
        }
        let mut floor = vec![0.0; length];
        let mut levels = vec![floor.clone()];
        for values in series {
            for (level, value) in floor.iter_mut().zip(values) {
                *level += value;
            }
            levels.push(floor.clone());
        }
        let peak = floor.iter().copied().fold(0.0, f64::max);
        let top = ceiling(peak);
        let x = |at: usize| at as f64 * Self::WIDTH / (length - 1) as f64;
        let y = |value: f64| Self::HEIGHT * (1.0 - value / top);
        let area = |pair: &[Vec<f64>]| {
            let mut path = String::with_capacity(length * 24);
            let upper = pair[1].iter().enumerate();
            let lower = pair[0].iter().enumerate().rev();
            for (n, (at, value)) in upper.chain(lower).enumerate() {
                let command = if n == 0 { 'M' } else { 'L' };
                // Writing to a string cannot fail.
                let _ = write!(path, "{command}{:.0} {:.1}", x(at), y(*value));
            }
            path.push('Z');
            path
        };
        Self {
            areas: levels.windows(2).map(area).collect(),
            top,
            last: floor.last().copied().unwrap_or_default(),
            peak,
        }
    }

    /// What the upper edge of the chart stands for.
    pub(crate) fn top(&self) -> String {
        super::view::rate(self.top)
    }

    pub(crate) fn last(&self) -> String {
        super::view::rate(self.last)
    }

    pub(crate) fn peak(&self) -> String {
        super::view::rate(self.peak)
    }
}

/// The next round number: 1, 2 or 5 times a power of ten.
fn ceiling(peak: f64) -> f64 {
    if peak <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(peak.log10().floor());
    let factors = [1.0, 2.0, 5.0].iter().map(|factor| factor * power);
    let mut enough = factors.filter(|top| *top >= peak);
    enough.next().unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_shared_out_in_proportion() {
        for (parts, expected) in [
            ([0, 0, 0, 0], None),
            ([1, 0, 0, 0], Some([200, 0, 0, 0])),
            ([50, 25, 25, 0], Some([100, 50, 50, 0])),
            ([1_000_000, 1, 1, 1], Some([197, 1, 1, 1])),
            ([u64::MAX / 4; 4], Some([50; 4])),
        ] {
            assert_eq!(shares(&parts, DOTS), expected);
            let Some(dots) = Dots::new(&parts) else {
                assert_eq!(expected, None);
                continue;
            };
            let drawn = dots.paths.map(|path| path.matches('M').count() as u64);
            assert_eq!(Some(drawn), expected);
        }
        assert!(Dots::new(&[1, 0, 0, 0]).unwrap().rings.is_empty());
        assert_eq!(Dots::new(&[2, 1, 1, 0]).unwrap().rings.len(), 2);
    }

    #[test]
    fn charts_stack_series_up_to_a_round_number() {
        let chart = Chart::new(&[vec![1.0, 2.0], vec![1.0, 1.0]]);
        assert_eq!(chart.areas[0], "M0 80.0L600 60.0L600 100.0L0 100.0Z");
        assert_eq!(chart.areas[1], "M0 60.0L600 40.0L600 60.0L0 80.0Z");
        assert_eq!((chart.top, chart.last, chart.peak), (5.0, 3.0, 3.0));
        assert_eq!(Chart::new(&[vec![1.0]]), Chart::default());
        for (peak, top) in [
            (0.0, 1.0),
            (0.3, 0.5),
            (1.0, 1.0),
            (7.0, 10.0),
            (1200.0, 2000.0),
        ] {
            assert!((ceiling(peak) - top).abs() < 1e-9, "{peak}");
        }
    }
}
