//! Properties of the SCION socket that hold for any input. See [`crate::fuzz`].

pub use super::remotes::fuzz::remotes;
