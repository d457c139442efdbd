//! Shows all peers of a swarm, at once or in steps.

use super::Swarm;
use crate::address::{CompactAddr, IsdAs};
use crate::registry::large::class_index::Cursor;
use crate::registry::small::SmallSwarm;
use crate::registry::table::record::{Packed, Record};

impl Swarm {
    /// Every peer.
    pub(super) fn for_each(&self, mut each: impl FnMut(IsdAs, CompactAddr, Record<()>)) {
        fn all<P: Packed>(
            small: &SmallSwarm<P>,
            each: &mut impl FnMut(IsdAs, CompactAddr, Record<()>),
        ) {
            for peer in &small.0 {
                each(
                    peer.ia(),
                    peer.record.addr.bytes().to_compact(),
                    peer.record.head(),
                );
            }
        }
        match self {
            Self::Four(small) => all(small, &mut each),
            Self::Mixed(small) => all(small, &mut each),
            Self::Large(large) => large.for_each(each),
        }
    }

    /// Shows peers from the cursor downwards. Returns false if the budget ended first. A small swarm is
    /// shown as a whole.
    pub(in crate::registry) fn visit(
        &self,
        cursor: &mut Cursor,
        budget: &mut usize,
        each: impl FnMut(IsdAs, CompactAddr, Record<()>),
    ) -> bool {
        match self {
            Self::Large(large) => large.visit(cursor, budget, each),
            Self::Four(_) | Self::Mixed(_) => {
                *budget = budget.saturating_sub(self.len());
                self.for_each(each);
                true
            }
        }
    }
}
