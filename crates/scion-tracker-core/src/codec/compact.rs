//! Compact peer lists: 6 and 18 bytes (BEP 23, BEP 7), 14 and 26 bytes for SCION.
