//! The containers of the registry: a list, an index into one, and the packed peer.

pub(super) mod index;
pub(super) mod record;
pub(super) mod slab;
