//! Reads any bytes as bencode. An accepted value can be walked to its last byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scion_tracker_core::codec::bencode::Value;

/// The recursion is bounded by the depth that the reader accepts.
fn walk(value: Value<'_>) -> usize {
    match value {
        Value::Int(_) | Value::Bytes(_) => 1,
        Value::List(list) => 1 + list.map(walk).sum::<usize>(),
        Value::Dict(dict) => 1 + dict.map(|(_, value)| walk(value)).sum::<usize>(),
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = Value::read(bytes) {
        assert!(walk(value) <= bytes.len());
    }
});
