//! The server: binds every listener, runs every task, stops them.

/// A tracker with all its listeners.
#[derive(Debug)]
pub struct Server {}
