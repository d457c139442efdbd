//! Simulates swarms around the real tracker and compares ways to hand out peers by place.
//!
//! ```text
//! cargo run --release --example swarm-sim -- [--seed N] [--runs N] [--peers N] [--csv PATH] [--all] [--paths]
//!     [--variant NAME=MODE,ISD,WORLD,UNPLACED,PERCENT,FLOOR]...
//! ```
//!
//! The same arguments give the same figures. docs/selection.md describes the model and the results.

#![allow(
    unreachable_pub,
    reason = "the modules of an example are used only by the example"
)]

mod handout;
mod paths;
mod pieces;
mod report;
mod swarm;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use scion_tracker_core::types::Rng;

use crate::handout::Variant;
use crate::report::Run;
use crate::world::{Scenario, World};

const USAGE: &str =
    "usage: swarm-sim [--seed N] [--runs N] [--peers N] [--csv PATH] [--all] [--paths]
                 [--variant NAME=MODE,ISD,WORLD,UNPLACED,PERCENT,FLOOR]...

  --seed N    the first seed (1)
  --runs N    number of seeds per scenario and variant (5)
  --peers N   peers per swarm, without the lone seed (700)
  --csv PATH  write every run to this file
  --all       add the scenarios and variants that answer questions about the design
  --paths     add the variants that order peers of other ISDs by their paths
  --variant   add a variant with this policy: the three reserves, and the percentage and
              the floor of cap";

struct Options {
    seed: u64,
    runs: u64,
    peers: usize,
    csv: Option<PathBuf>,
    all: bool,
    paths: bool,
    variants: Vec<Variant>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self {
            seed: 1,
            runs: 5,
            peers: 700,
            csv: None,
            all: false,
            paths: false,
            variants: Vec::new(),
        };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--seed" => options.seed = args.next()?.parse().ok()?,
                "--runs" => options.runs = args.next()?.parse().ok().filter(|runs| *runs > 0)?,
                "--peers" => options.peers = args.next()?.parse().ok().filter(|n| *n >= 60)?,
                "--csv" => options.csv = Some(args.next()?.into()),
                "--all" => options.all = true,
                "--paths" => options.paths = true,
                "--variant" => options.variants.push(Variant::parse(&args.next()?)?),
                _ => return None,
            }
        }
        Some(options)
    }
}

fn main() -> ExitCode {
    let Some(options) = Options::parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let runs = simulate(&options);
    let written = report::table(&runs, &mut std::io::stdout().lock()).and_then(|()| {
        options
            .csv
            .as_ref()
            .map_or(Ok(()), |path| report::csv(&runs, path))
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("swarm-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn simulate(options: &Options) -> Vec<Run> {
    let mut scenarios = vec![Scenario::Even, Scenario::Skewed];
    let mut variants = Variant::main();
    if options.all {
        scenarios = Scenario::ALL.to_vec();
        variants.extend(Variant::studies());
    }
    if options.paths {
        variants.extend(Variant::by_path());
    }
    variants.extend(options.variants.iter().cloned());
    let mut runs = Vec::new();
    for scenario in scenarios {
        for seed in options.seed..options.seed + options.runs {
            let world = World::new(scenario, options.peers, &mut Rng::with_seed(seed));
            for variant in &variants {
                runs.push(Run {
                    scenario: scenario.name(),
                    variant: variant.name.clone(),
                    seed,
                    outcome: swarm::run(&world, variant, seed),
                });
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the goals of the policy in whole swarms. Takes three seconds in release, a minute
    /// without optimization.
    #[test]
    #[ignore = "slow without optimization: cargo test --release --example swarm-sim -- --ignored"]
    fn selection_by_place_keeps_traffic_near_and_cuts_nobody_off() {
        let variants = Variant::main();
        let world = World::new(Scenario::Even, 700, &mut Rng::with_seed(1));
        let outcomes = [0, 1, 2].map(|variant: usize| swarm::run(&world, &variants[variant], 1));
        let [random, prefer, cap] = outcomes;
        for outcome in outcomes {
            assert_eq!(outcome.unfinished, 0, "{outcome:?}");
        }
        // The goals are for medians of several seeds, so one seed gets some tolerance.
        assert!(prefer.cross_isd <= 0.21 * random.cross_isd, "{prefer:?}");
        assert!(cap.cross_as <= 0.35 * random.cross_as, "{cap:?}");
        assert!(prefer.p95 <= 1.1 * random.p95, "{prefer:?}");
        assert!(cap.p95 <= 1.2 * random.p95, "{cap:?}");
    }
}
