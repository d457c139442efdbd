//! The kinds of requests, and how often each is made.

use std::fmt;
use std::str::FromStr;

use scion_tracker_core::types::Rng;

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Announce,
    Scrape,
    Stopped,
    Completed,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] =
        [Self::Announce, Self::Scrape, Self::Stopped, Self::Completed];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Announce => "announce",
            Self::Scrape => "scrape",
            Self::Stopped => "stopped",
            Self::Completed => "completed",
        }
    }
}

/// How often each kind of request is made, as weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mix([u32; Kind::ALL.len()]);

/// The text is not a mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a mix such as announce=90,scrape=8,stopped=1,completed=1: weights are at most 1000000, and one is not zero"
)]
pub(crate) struct MixError;

impl FromStr for Mix {
    type Err = MixError;

    fn from_str(text: &str) -> Result<Self, MixError> {
        let mut weights = [0; Kind::ALL.len()];
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').ok_or(MixError)?;
            let kind = Kind::ALL.into_iter().find(|kind| kind.label() == name);
            let weight = weight.parse().ok().filter(|weight| *weight <= 1_000_000);
            weights[kind.ok_or(MixError)? as usize] = weight.ok_or(MixError)?;
        }
        if weights.iter().all(|weight| *weight == 0) {
            return Err(MixError);
        }
        Ok(Self(weights))
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for kind in Kind::ALL {
            let weight = self.0[kind as usize];
            if weight > 0 {
                write!(f, "{separator}{}={weight}", kind.label())?;
                separator = ",";
            }
        }
        Ok(())
    }
}

impl Mix {
    /// Draws the kind of the next request.
    pub(super) fn draw(&self, rng: &mut Rng) -> Kind {
        let mut left = rng.u32(0..self.0.iter().sum());
        for kind in Kind::ALL {
            let weight = self.0[kind as usize];
            if left < weight {
                return kind;
            }
            left -= weight;
        }
        Kind::Announce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_are_read_and_printed() {
        for text in [
            "announce=1",
            "announce=90,scrape=8,stopped=2",
            "scrape=5,completed=1",
        ] {
            assert_eq!(text.parse::<Mix>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "announce",
            "announce=0",
            "announce=-1",
            "connect=1",
            "announce=9999999",
        ] {
            assert_eq!(bad.parse::<Mix>(), Err(MixError), "{bad}");
        }
    }
}
