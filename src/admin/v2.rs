//! Our own resources. Lists are sorted and paged: see [`Paging`]. Errors are [`ApiError`](super::error::ApiError).

pub(super) mod bans;
pub(super) mod control;
pub(super) mod events;
pub(super) mod isolation;
pub(super) mod keys;
pub(super) mod lists;
pub(super) mod rules;
pub(super) mod snapshot;
pub(super) mod stats;
pub(super) mod torrents;

use scion_tracker_core::types::InfoHash;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Entries of a page, unless the query says otherwise.
const LIMIT: u32 = 100;
/// Most entries of a page.
const MOST: u32 = 10_000;

/// Which part of a list is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// Entries that are left out at the beginning.
    #[serde(default, deserialize_with = "bounded")]
    #[param(default = 0, maximum = 1_000_000_000)]
    offset: u32,
    /// Most entries of the answer.
    #[serde(default = "limit", deserialize_with = "limited")]
    #[param(default = 100, minimum = 1, maximum = 10_000)]
    limit: u32,
}

const fn limit() -> u32 {
    LIMIT
}

/// The largest number in a query.
const LARGEST: u32 = 1_000_000_000;

/// A number that is not larger than [`LARGEST`].
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = u32::deserialize(deserializer)?;
    match number <= LARGEST {
        true => Ok(number),
        false => Err(D::Error::custom(format_args!(
            "the largest number is {LARGEST}"
        ))),
    }
}

fn limited<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let limit = u32::deserialize(deserializer)?;
    match (1..=MOST).contains(&limit) {
        true => Ok(limit),
        false => Err(D::Error::custom(format_args!("limit is from 1 to {MOST}"))),
    }
}

impl Paging {
    const fn offset(&self) -> usize {
        self.offset as usize
    }

    const fn limit(&self) -> usize {
        self.limit as usize
    }
}

/// A part of a sorted list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Listed<T> {
    /// Entries of the whole list.
    total: usize,
    /// Entries that were left out at the beginning.
    offset: u32,
    /// The entries.
    entries: Vec<T>,
}

impl<T> Listed<T> {
    fn new<R>(page: crate::records::Page<R>, paging: &Paging, entry: impl Fn(R) -> T) -> Self {
        Self {
            total: page.total,
            offset: paging.offset,
            entries: page.entries.into_iter().map(entry).collect(),
        }
    }
}

/// An entry was removed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Removed {
    /// True.
    removed: bool,
}

impl Removed {
    const YES: Self = Self { removed: true };
}

/// An info hash in a path.
#[derive(Debug, Clone, Copy)]
pub(super) struct HashInPath(InfoHash);

impl<'de> Deserialize<'de> for HashInPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(D::Error::custom)
    }
}
