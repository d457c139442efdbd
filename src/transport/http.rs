//! HTTP in all its versions: framing in [`one`], [`two`], [`three`] and [`qs`], answers in [`answer`].

pub(crate) mod answer;
pub(crate) mod deadline;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod head;
pub(super) mod one;
pub(crate) mod origin;
pub(crate) mod page;
pub(super) mod qs;
pub(super) mod three;
pub(super) mod two;
