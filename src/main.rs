//! The `scion-tracker` program.
fn main() {}
