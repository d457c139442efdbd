//! Bencoded HTTP replies, both directions.
