//! Stands in for the databases if the program was built without any.

use scion_tracker_core::types::InfoHash;

use super::{Change, Loaded, NotBuilt, OpenError, RecordsError, StoreKind};
use crate::config::Database;

#[derive(Debug)]
pub(super) enum WriteError {
    Failed(RecordsError),
    Lost(RecordsError),
    Unknown(RecordsError),
}

/// There is none.
#[derive(Debug)]
pub(super) enum Store {}

impl Store {
    pub(super) async fn open(database: Database) -> Result<(Self, Loaded), OpenError> {
        let reason = NotBuilt::of(&database).to_string();
        Err(OpenError::Refused { database, reason })
    }

    pub(super) const fn kind(&self) -> StoreKind {
        match *self {}
    }

    pub(super) const fn is_connected(&self) -> bool {
        match *self {}
    }

    pub(super) const fn was_taken(&mut self) -> bool {
        match *self {}
    }

    pub(super) async fn reopen(&mut self) -> Result<i64, RecordsError> {
        match *self {}
    }

    pub(super) async fn write(
        &mut self,
        _: i64,
        _: &[&Change],
        _: &[(InfoHash, u32)],
    ) -> Result<(), WriteError> {
        match *self {}
    }

    pub(super) async fn ping(&mut self) -> Result<(), RecordsError> {
        match *self {}
    }

    pub(super) async fn close(self) -> Result<(), RecordsError> {
        match self {}
    }
}

pub(super) fn check(database: &Database) -> Result<(), String> {
    match database {
        Database::Memory => Ok(()),
        _ => Err(NotBuilt::of(database).to_string()),
    }
}
