//! Which of the paths to a tracker is taken: the best of which nothing is known to be broken.

use std::fmt;

use super::{PathInterface, ScionPath};

/// What is remembered to be broken, at most. Beyond that all is forgotten: links come back.
const REMEMBERED: usize = 64;

/// Something that a path must not have in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Broken {
    /// The link at this interface.
    Link(PathInterface),
    /// The way through an AS between these two interfaces of it.
    Crossing(PathInterface, PathInterface),
    /// This path itself.
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
            Self::Crossing(one, other) => write!(f, "nothing passes from {one} to {other}"),
            Self::Path(path) => write!(f, "the path {path} has expired or is too narrow for QUIC"),
        }
    }
}

/// The paths, and the one in use.
#[derive(Debug)]
pub(super) struct Choice {
    /// The best first; at least one.
    paths: Vec<ScionPath>,
    current: usize,
    broken: Vec<Broken>,
    /// What broke last, also if it may be whole again.
    latest: Option<Broken>,
}

impl Choice {
    /// The first of these, which are at least one.
    pub(super) const fn new(paths: Vec<ScionPath>) -> Self {
        Self {
            paths,
            current: 0,
            broken: Vec::new(),
            latest: None,
        }
    }

    /// What broke last.
    pub(super) const fn latest(&self) -> Option<&Broken> {
        self.latest.as_ref()
    }

    /// The path in use.
    pub(super) fn current(&self) -> &ScionPath {
        &self.paths[self.current]
    }

    /// The path to take when the current one fails.
    pub(super) fn spare(&self) -> Option<&ScionPath> {
        self.others().next().map(|at| &self.paths[at])
    }

    /// How many paths there are.
    pub(super) const fn count(&self) -> usize {
        self.paths.len()
    }

    /// Remembers what is broken, and leaves the current path if that is in it. Returns whether the
    /// path in use is whole then.
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

    /// Goes on to the next whole path. Returns whether there is another.
    pub(super) fn advance(&mut self) -> bool {
        let next = self.others().next();
        self.current = next.unwrap_or(self.current);
        next.is_some()
    }

    /// Takes other paths, at least one: the best whole one. If none is whole, what was broken may be
    /// whole again, so it is forgotten; the path after the one that was in use goes first then.
    pub(super) fn replace(&mut self, paths: Vec<ScionPath>) {
        let after = self.current + 1;
        self.paths = paths;
        let whole = (0..self.paths.len()).find(|at| self.is_whole(*at));
        self.current = whole.unwrap_or_else(|| {
            self.broken.clear();
            after % self.paths.len()
        });
    }

    /// The other whole paths, those behind the current one first.
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

    use super::super::path::tests::{interface, path};
    use super::super::{Acl, path::in_order};
    use super::*;

    /// Over 1-2, over 1-3, and over both.
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
        in_order(paths, &Acl::default(), SystemTime::UNIX_EPOCH)
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
        // The same again is about packets that were under way.
        assert!(choice.fail(Broken::Link(interface("1-1#1"))));
        assert_eq!(choice.current(), &paths()[1]);
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
