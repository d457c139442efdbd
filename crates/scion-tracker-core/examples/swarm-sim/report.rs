//! Writes the results as a table and as a CSV file.

use std::io::{self, Write};
use std::path::Path;

use crate::swarm::{Outcome, quantile};

/// The simulation of one swarm.
#[derive(Debug, Clone)]
pub struct Run {
    pub scenario: &'static str,
    pub variant: String,
    pub seed: u64,
    pub outcome: Outcome,
}

/// The runs of one scenario and variant as medians over the seeds. Values relative to `random` are
/// computed per seed, with the same peers, bandwidths and times.
#[derive(Debug, Clone, Copy)]
pub struct Summary {
    pub cross_as: f64,
    pub cross_isd: f64,
    pub relative_as: f64,
    pub relative_isd: f64,
    /// Of the volume that crosses ISDs.
    pub isd_links: f64,
    pub isd_ms: f64,
    pub relative_median: f64,
    pub relative_p95: f64,
    pub relative_late: f64,
    /// Sum over all seeds.
    pub unfinished: usize,
    pub median: f64,
    pub p95: f64,
}

impl Summary {
    pub fn of(runs: &[Run], scenario: &str, variant: &str) -> Self {
        let of = |variant: &str| -> Vec<&Run> {
            runs.iter()
                .filter(|run| run.scenario == scenario && run.variant == variant)
                .collect()
        };
        let (these, random) = (of(variant), of("random"));
        let median = |value: &dyn Fn(&Outcome) -> f64| {
            let mut values: Vec<f64> = these.iter().map(|run| value(&run.outcome)).collect();
            quantile(&mut values, 0.5)
        };
        let relative = |value: &dyn Fn(&Outcome) -> f64| {
            let pairs = these.iter().zip(&random);
            let mut values: Vec<f64> = pairs
                .map(|(run, base)| value(&run.outcome) / value(&base.outcome))
                .collect();
            quantile(&mut values, 0.5)
        };
        Self {
            cross_as: median(&|o| o.cross_as),
            cross_isd: median(&|o| o.cross_isd),
            isd_links: median(&|o| o.isd_links),
            isd_ms: median(&|o| o.isd_ms),
            relative_as: relative(&|o| o.cross_as),
            relative_isd: relative(&|o| o.cross_isd),
            relative_median: relative(&|o| o.median),
            relative_p95: relative(&|o| o.p95),
            relative_late: relative(&|o| o.late_p95),
            unfinished: these.iter().map(|run| run.outcome.unfinished).sum(),
            median: median(&|o| o.median),
            p95: median(&|o| o.p95),
        }
    }
}

/// The distinct values of one column, in the order of the runs.
fn names<'a>(runs: &'a [Run], of: impl Fn(&'a Run) -> &'a str) -> Vec<&'a str> {
    let mut names = Vec::new();
    for name in runs.iter().map(of) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

pub fn table(runs: &[Run], out: &mut impl Write) -> io::Result<()> {
    for scenario in names(runs, |run| run.scenario) {
        let of = runs.iter().filter(|run| run.scenario == scenario);
        let seeds = names_of_seeds(of);
        writeln!(
            out,
            "{scenario}: medians of {seeds} seeds, in brackets and times relative to random\n\
             {:21} {:>16} {:>16} {:>6} {:>6} {:>8} {:>8} {:>8} {:>8} {:>8} {:>6}",
            "",
            "across ASes",
            "across ISDs",
            "links",
            "ms",
            "median s",
            "p95 s",
            "median",
            "p95",
            "late p95",
            "never"
        )?;
        for variant in names(runs, |run| &run.variant) {
            let sum = Summary::of(runs, scenario, variant);
            writeln!(
                out,
                "{variant:21} {:7.1}% ({:5.2}) {:7.1}% ({:5.2}) {:6.2} {:6.1} {:>8} {:>8} {:>8} {:>8} {:>8} {:6}",
                sum.cross_as,
                sum.relative_as,
                sum.cross_isd,
                sum.relative_isd,
                sum.isd_links,
                sum.isd_ms,
                time(sum.median, 0),
                time(sum.p95, 0),
                time(sum.relative_median, 3),
                time(sum.relative_p95, 3),
                time(sum.relative_late, 3),
                sum.unfinished,
            )?;
        }
        writeln!(out)?;
    }
    goals(runs, out)
}

fn names_of_seeds<'a>(runs: impl Iterator<Item = &'a Run>) -> usize {
    let mut seeds: Vec<u64> = runs.map(|run| run.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    seeds.len()
}

fn time(value: f64, digits: usize) -> String {
    if value.is_finite() {
        format!("{value:.digits$}")
    } else {
        "never".into()
    }
}

/// The goals of the policy, and whether they are met.
fn goals(runs: &[Run], out: &mut impl Write) -> io::Result<()> {
    let mut goal = |text: String, value: f64, most: f64| {
        let verdict = if value <= most { "met" } else { "MISSED" };
        writeln!(out, "{verdict:6} {text}: {value:.3}, at most {most}")
    };
    let prefer = Summary::of(runs, "even", "prefer").relative_isd;
    goal("even, prefer: across ISDs, relative".into(), prefer, 0.2)?;
    let cap = Summary::of(runs, "even", "cap").relative_as;
    goal("even, cap: across ASes, relative".into(), cap, 0.35)?;
    for scenario in names(runs, |run| run.scenario) {
        for variant in ["prefer", "cap", "random"] {
            let sum = Summary::of(runs, scenario, variant);
            let never = format!("{scenario}, {variant}: peers that never finish");
            goal(never, sum.unfinished as f64, 0.0)?;
            if variant != "random" {
                let p95 = format!("{scenario}, {variant}: 95th percentile, relative");
                goal(p95, sum.relative_p95, 1.05)?;
            }
        }
    }
    Ok(())
}

pub fn csv(runs: &[Run], path: &Path) -> io::Result<()> {
    let mut text = String::from(
        "scenario,variant,seed,cross_as_percent,cross_isd_percent,median_s,p95_s,late_p95_s,unfinished,isd_links,isd_ms\n",
    );
    for run in runs {
        let o = &run.outcome;
        let time = |value| time(value, 0);
        text += &format!(
            "{},{},{},{:.2},{:.2},{},{},{},{},{:.3},{:.2}\n",
            run.scenario,
            run.variant,
            run.seed,
            o.cross_as,
            o.cross_isd,
            time(o.median),
            time(o.p95),
            time(o.late_p95),
            o.unfinished,
            o.isd_links,
            o.isd_ms,
        );
    }
    std::fs::write(path, text)
}
