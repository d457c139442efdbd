//! Benchmarks of the longest-prefix match in tables of 0, 100 and 10,000 prefixes, for addresses
//! with and without a match.
//!
//! All prefixes are neighbours, so that a lookup without a match takes as long as one with a match.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ipnet::IpNet;
use scion_tracker_core::prefix::PrefixMap;

/// Sizes of the tables.
const SIZES: [u32; 3] = [0, 100, 10_000];
/// Number of different addresses that are looked up.
const LOOKUPS: u32 = 1024;

/// Address number `n` of 10.0.0.0/8 or of fd00::/8.
fn address(v6: bool, n: u32) -> IpAddr {
    if v6 {
        // Each address is in its own /64.
        Ipv6Addr::from_bits((0xfd00 << 112) | (u128::from(n) << 64) | 1).into()
    } else {
        Ipv4Addr::from_bits((10 << 24) | n).into()
    }
}

/// Prefix number `n`: a /31 or a /64. The prefix after it is not in the table.
fn prefix(v6: bool, n: u32) -> IpNet {
    let length = if v6 { 64 } else { 31 };
    IpNet::new_assert(address(v6, 4 * n), length).trunc()
}

fn lookups(c: &mut Criterion) {
    for v6 in [false, true] {
        let family = if v6 { "IPv6" } else { "IPv4" };
        let mut group = c.benchmark_group(format!("prefix/{family}"));
        for size in SIZES {
            let table: PrefixMap<u32> = (0..size).map(|n| (prefix(v6, n), n)).collect();
            for (kind, offset) in [("match", 0), ("no match", 2)] {
                let step = (size / LOOKUPS).max(1);
                let asked: Vec<IpAddr> = (0..LOOKUPS)
                    .map(|n| address(v6, 4 * (n * step % size.max(1)) + offset))
                    .collect();
                let expected = size > 0 && offset == 0;
                assert!(
                    asked
                        .iter()
                        .all(|ip| table.longest_match(*ip).is_some() == expected)
                );
                let mut next = 0;
                group.bench_function(BenchmarkId::new(kind, size), |b| {
                    b.iter(|| {
                        next = (next + 389) % asked.len();
                        table.longest_match(black_box(asked[next]))
                    });
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, lookups);
criterion_main!(benches);
