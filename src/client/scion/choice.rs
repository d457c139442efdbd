//! Chooses among the paths to a tracker: the best one without a known failure.

use std::fmt;

use super::{PathInterface, ScionPath};

/// Most failures that are remembered. Beyond that all are forgotten: links recover.
const REMEMBERED: usize = 64;

/// A failure that a path must avoid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Broken {
    /// The link at this interface.
    Link(PathInterface),
    /// The connection between these two interfaces of one AS.
    Crossing(PathInterface, PathInterface),
    /// The path as a whole.
    Path(ScionPath),
}

impl Broken {
    fn is_in(&self, path: &ScionPath) -> bool {
        match self {
            Self::Link(interface) => path.crosses(*interface),
            Self::Crossing(one, other) => path.crosses(*one) && path.crosses(*other),
            Self::Path(broken) => broken == path,
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(interface) => write!(f, "the link at {interface} is down"),
            Self::Crossing(one, other) => write!(
                f,
                "the connection from {one} to {other} within their AS is down"
            ),
            Self::Path(path) => write!(f, "the path {path} has expired or is too narrow for QUIC"),
        }
    }
}

/// The paths to a tracker, and the one in use.
#[derive(Debug)]
pub(super) struct Choice {
    /// At least one path, the best first.
    paths: Vec<ScionPath>,
    current: usize,
    broken: Vec<Broken>,
    /// The last failure, even if it has been forgotten in `broken`.
    latest: Option<Broken>,
}

impl Choice {
    /// Starts with the first of these paths. There must be at least one.
    pub(super) const fn new(paths: Vec<ScionPath>) -> Self {
        Self {
            paths,
            current: 0,
            broken: Vec::new(),
            latest: None,
        }
    }

    /// The last failure.
    pub(super) const fn latest(&self) -> Option<&Broken> {
        self.latest.as_ref()
    }

    /// The path in use.
    pub(super) fn current(&self) -> &ScionPath {
        &self.paths[self.current]
    }

    /// The path to use when the current one fails: the one that shares the fewest interfaces with it,
    /// so that it probably does not have the same failure.
    pub(super) fn spare(&self) -> Option<&ScionPath> {
        let others = self.others().map(|at| &self.paths[at]);
        others.min_by_key(|other| other.shared_with(self.current()))
    }

    /// Number of paths.
    pub(super) const fn count(&self) -> usize {
        self.paths.len()
    }

    /// Remembers a failure, and changes the path if the current one has it. Returns whether the
    /// current path then has no known failure.
    pub(super) fn fail(&mut self, broken: Broken) -> bool {
        if self.broken.len() >= REMEMBERED {
            self.broken.clear();
        }
        self.latest = Some(broken.clone());
        if !self.broken.contains(&broken) {
            self.broken.push(broken);
        }
        if self.is_whole(self.current) {
            return true;
        }
        let best = (0..self.paths.len()).find(|at| self.is_whole(*at));
        self.current = best.unwrap_or(self.current);
        best.is_some()
    }

    /// Switches to the next path without a failure. Returns whether there was one.
    pub(super) fn advance(&mut self) -> bool {
        let next = self.others().next();
        self.current = next.unwrap_or(self.current);
        next.is_some()
    }

    /// Replaces the paths with others, at least one, and takes the best one without a failure. If
    /// all have failures, forgets the failures, because links may have recovered, and takes the
    /// path after the one that was in use.
    pub(super) fn replace(&mut self, paths: Vec<ScionPath>) {
        let after = self.current + 1;
        self.paths = paths;
        let whole = (0..self.paths.len()).find(|at| self.is_whole(*at));
        self.current = whole.unwrap_or_else(|| {
            self.broken.clear();
            after % self.paths.len()
        });
    }

    /// The other paths without a failure, beginning after the current one.
    fn others(&self) -> impl Iterator<Item = usize> {
        let count = self.paths.len();
        (1..count)
            .map(move |step| (self.current + step) % count)
            .filter(|at| self.is_whole(*at))
    }

    fn is_whole(&self, at: usize) -> bool {
        !self
            .broken
            .iter()
            .any(|broken| broken.is_in(&self.paths[at]))
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::path::tests::{TO, interface, path};
    use super::super::{Acl, path::in_order};
    use super::*;

    /// Three paths: through 1-2, through 1-3, and through both.
    fn paths() -> Vec<ScionPath> {
        let paths = vec![
            path(1472, None, &["1-1#1", "1-2#1", "1-2#2", "2-2#1"]),
            path(1472, None, &["1-1#2", "1-3#1", "1-3#2", "2-2#2"]),
            path(
                1472,
                None,
                &["1-1#1", "1-2#1", "1-2#3", "1-3#3", "1-3#2", "2-2#2"],
            ),
        ];
        in_order(paths, TO, &Acl::default(), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn a_broken_link_is_avoided() {
        let mut choice = Choice::new(paths());
        assert_eq!(choice.spare(), Some(&paths()[1]));
        // Not on the current path.
        assert!(choice.fail(Broken::Link(interface("1-3#2"))));
        assert_eq!(choice.current(), &paths()[0]);
        assert_eq!(choice.spare(), None, "both others cross it");
        assert!(!choice.fail(Broken::Link(interface("1-2#1"))));
        assert_eq!(choice.current(), &paths()[0]);

        let mut choice = Choice::new(paths());
        assert!(choice.fail(Broken::Link(interface("1-1#1"))));
        assert_eq!(choice.current(), &paths()[1]);
        assert_eq!(choice.spare(), None);
        // The same failure again concerns packets that were on their way.
        assert!(choice.fail(Broken::Link(interface("1-1#1"))));
        assert_eq!(choice.current(), &paths()[1]);
    }

    #[test]
    fn the_spare_path_shares_the_fewest_interfaces() {
        let [best, disjoint, both] = <[_; 3]>::try_from(paths()).unwrap();
        let near = in_order(
            vec![path(1472, None, &["1-1#1", "1-2#1", "1-2#4", "2-2#4"])],
            TO,
            &Acl::default(),
            SystemTime::UNIX_EPOCH,
        )
        .remove(0);
        let paths = vec![best, near.clone(), both, disjoint.clone()];
        let mut choice = Choice::new(paths);
        assert_eq!(choice.spare(), Some(&disjoint));
        assert!(choice.fail(Broken::Link(interface("1-1#1"))));
        assert_eq!(choice.current(), &disjoint);
        assert_eq!(choice.spare(), None);
        let mut choice = Choice::new(vec![disjoint.clone(), near.clone()]);
        assert_eq!(choice.spare(), Some(&near));
        assert!(choice.advance());
        assert_eq!(choice.spare(), Some(&disjoint));
    }

    #[test]
    fn a_crossing_is_both_of_its_interfaces() {
        let mut choice = Choice::new(paths());
        let crossing = Broken::Crossing(interface("1-2#1"), interface("1-2#2"));
        assert!(choice.fail(crossing));
        assert_eq!(choice.current(), &paths()[1]);
        assert_eq!(choice.spare(), Some(&paths()[2]));
        assert!(choice.fail(Broken::Path(paths()[1].clone())));
        assert_eq!(choice.current(), &paths()[2]);
        assert_eq!(choice.spare(), None);
    }

    #[test]
    fn silence_leads_around_all_paths() {
        let mut choice = Choice::new(paths());
        let mut seen = Vec::new();
        for _ in 0..4 {
            assert!(choice.advance());
            seen.push(
                paths()
                    .iter()
                    .position(|it| it == choice.current())
                    .unwrap(),
            );
        }
        assert_eq!(seen, [1, 2, 0, 1]);
        let mut single = Choice::new(paths()[..1].to_vec());
        assert!(!single.advance());
    }

    #[test]
    fn when_all_is_broken_fresh_paths_are_taken_and_then_any() {
        let mut choice = Choice::new(paths()[..2].to_vec());
        assert!(choice.fail(Broken::Link(interface("1-1#1"))));
        assert!(!choice.fail(Broken::Path(paths()[1].clone())));
        let mut fresh = paths();
        fresh.extend(in_order(
            vec![path(1472, None, &["1-1#4", "2-2#4"])],
            TO,
            &Acl::default(),
            SystemTime::UNIX_EPOCH,
        ));
        choice.replace(fresh.clone());
        assert_eq!(choice.current(), &fresh[3]);
        assert!(!choice.fail(Broken::Link(interface("1-1#4"))));
        choice.replace(fresh.clone());
        let latest = choice.latest().map(ToString::to_string);
        assert_eq!(latest.as_deref(), Some("the link at 1-1#4 is down"));
        assert_eq!(choice.current(), &fresh[0], "the one after the last");
        assert_eq!(choice.spare(), Some(&fresh[1]));
    }
}
