//! The UDP tracker protocol (BEP 15) with URL data (BEP 41), both directions.
