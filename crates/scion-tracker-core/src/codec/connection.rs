//! Stateless UDP connection ids.
