//! Tests of the plan: how many peers of each tier a requester gets.

use super::*;

const fn tally(seeds: u32, leechers: u32) -> Tally {
    Tally { seeds, leechers }
}

fn census(proven: [Tally; 4]) -> Census {
    Census {
        tallies: proven.map(|tally| [tally, Tally::default()]),
    }
}

/// Number of peers planned of each tier.
fn planned(policy: &Policy, numwant: usize, want: Want, census: &Census) -> [u32; 4] {
    let plan = plan(policy, numwant, want, census);
    Tier::ALL.map(|tier| {
        Standing::ALL
            .map(|s| plan.quota(tier, s).total())
            .iter()
            .sum()
    })
}

#[test]
fn prefer_fills_nearest_first_behind_the_reserve() {
    let policy = Policy::default();
    let many = census([tally(10, 90); 4]);
    let few_here = census([tally(1, 4), tally(1, 9), tally(10, 90), tally(10, 90)]);
    let alone = census([tally(0, 0), tally(0, 0), tally(0, 0), tally(3, 1)]);
    let seedless = census([tally(0, 90), tally(0, 90), tally(10, 90), tally(10, 90)]);
    for (census, numwant, expected) in [
        (&many, 50, [43, 4, 1, 2]),
        (&many, 200, [100, 97, 1, 2]),
        (&many, 8, [3, 2, 1, 2]),
        (&many, 4, [1, 1, 1, 1]),
        (&many, 3, [3, 0, 0, 0]),
        (&many, 1, [1, 0, 0, 0]),
        (&many, 0, [0, 0, 0, 0]),
        (&few_here, 50, [5, 10, 33, 2]),
        (&alone, 50, [0, 0, 0, 4]),
        (&seedless, 50, [42, 4, 2, 2]),
    ] {
        assert_eq!(
            planned(&policy, numwant, Want::Anyone, census),
            expected,
            "{numwant}"
        );
    }
}

#[test]
fn cap_limits_remote_peers_and_fills_to_the_floor() {
    let policy = Policy {
        mode: Mode::Cap,
        ..Policy::default()
    };
    let many = census([tally(10, 90), tally(10, 90), tally(10, 90), tally(0, 0)]);
    let late = census([tally(0, 0), tally(1, 3), tally(10, 90), tally(0, 0)]);
    assert_eq!(planned(&policy, 50, Want::Anyone, &many), [40, 4, 2, 0]);
    assert_eq!(planned(&policy, 50, Want::Anyone, &late), [0, 4, 11, 0]);
    assert_eq!(planned(&policy, 5, Want::Anyone, &late), [0, 4, 1, 0]);
}

#[test]
fn a_seed_gets_leechers_only() {
    let census = census([tally(50, 1), tally(50, 1), tally(50, 1), tally(50, 0)]);
    let plan = plan(&Policy::default(), 50, Want::Leechers, &census);
    assert_eq!(plan.total(), 3);
    for quota in plan.quotas.iter().flatten() {
        assert_eq!((quota.any, quota.seeds), (0, 0));
    }
}

#[test]
fn a_seed_keeps_no_reserve() {
    let many = census([tally(10, 90); 4]);
    for mode in [Mode::Prefer, Mode::Cap] {
        let policy = Policy {
            mode,
            ..Policy::default()
        };
        let [near, far @ ..] = planned(&policy, 50, Want::Leechers, &many);
        assert!(near >= 40 && far == [0; 3], "{mode:?}");
    }
}

#[test]
fn a_seed_that_may_be_a_leecher_keeps_reserves_of_seeds() {
    let many = census([tally(10, 90); 4]);
    let policy = Policy::default();
    assert_eq!(
        planned(&policy, SEEDS_FOR_SEEDS, Want::Seeds, &many),
        [5, 2, 1, 2]
    );
    let plan = plan(&policy, SEEDS_FOR_SEEDS, Want::Seeds, &many);
    for quota in plan.quotas.iter().flatten() {
        assert_eq!((quota.any, quota.leechers), (0, 0));
    }
}

#[test]
fn a_leecher_without_a_near_seed_gets_half_of_the_remote_reserve_from_seeds() {
    let census = census([tally(0, 100), tally(0, 100), tally(1, 1000), tally(1, 1000)]);
    let plan = plan(&Policy::default(), 50, Want::Anyone, &census);
    let world = plan.quota(Tier::OtherIsd, Standing::Proven);
    assert_eq!(
        world,
        Quota {
            any: 0,
            seeds: 1,
            leechers: 1
        }
    );
    assert_eq!(
        plan.quota(Tier::Unplaced, Standing::Proven),
        Quota {
            any: 2,
            ..Quota::default()
        }
    );
    assert_eq!(plan.quota(Tier::SameIsd, Standing::Proven).leechers, 4);
}

#[test]
fn proven_places_come_before_claimed_ones() {
    let mut census = census([tally(0, 5), tally(0, 0), tally(0, 0), tally(0, 0)]);
    *census.tally_mut(Tier::SameAs, Standing::Claimed) = tally(0, 1000);
    let plan = plan(&Policy::default(), 20, Want::Anyone, &census);
    assert_eq!(plan.quota(Tier::SameAs, Standing::Proven).total(), 5);
    assert_eq!(plan.quota(Tier::SameAs, Standing::Claimed).total(), 15);
}

proptest::proptest! {
    #[test]
    fn a_plan_never_exceeds_census_or_numwant(
        tallies: [[(u8, u8); 2]; 4],
        numwant in 0usize..300,
        cap: bool,
        want in proptest::sample::select(vec![Want::Anyone, Want::Leechers, Want::Seeds]),
    ) {
        let census = Census {
            tallies: tallies.map(|t| t.map(|(s, l)| tally(u32::from(s), u32::from(l)))),
        };
        let mode = if cap { Mode::Cap } else { Mode::Prefer };
        let plan = plan(&Policy { mode, ..Policy::default() }, numwant, want, &census);
        let mut reachable = 0;
        for (quota, tally) in plan.quotas.iter().flatten().zip(census.tallies.iter().flatten()) {
            proptest::prop_assert!(quota.seeds <= tally.seeds);
            proptest::prop_assert!(quota.leechers <= tally.leechers);
            proptest::prop_assert!(quota.total() <= tally.total());
            proptest::prop_assert!(quota.any == 0 || quota.total() == quota.any);
            reachable += tally.of(want.into());
        }
        proptest::prop_assert!(plan.total() <= numwant as u32);
        if !cap {
            proptest::prop_assert_eq!(plan.total(), reachable.min(numwant as u32));
        }
    }
}
