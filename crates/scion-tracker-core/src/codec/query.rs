//! The query string of HTTP announces and scrapes, both directions.
