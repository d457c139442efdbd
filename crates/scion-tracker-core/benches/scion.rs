//! Benchmarks of the SCION part of a datagram: parsing a packet, checking its checksum, and
//! encapsulating a reply.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use scion_tracker_core::address::ScionAddr;
use scion_tracker_core::codec::scion::{Answer, Message, Path, Template, parse};

/// A path of three segments and seven hop fields, as in the test vectors.
fn path() -> Vec<u8> {
    let mut path = (2_u32 << 30 | 6 << 24 | 2 << 12 | 3 << 6 | 2)
        .to_be_bytes()
        .to_vec();
    path.extend((0..3 * 8 + 7 * 12).map(|n| n as u8));
    path
}

fn addr(text: &str) -> ScionAddr {
    text.parse()
        .unwrap_or_else(|_| unreachable!("a fixed address"))
}

fn packets(c: &mut Criterion) {
    let path = path();
    let Ok(path) = Path::parse(&path) else {
        unreachable!("a fixed path")
    };
    let client = addr("1-ff00:0:111,[10.0.0.2]:45000");
    let server = addr("2-ff00:0:211,[10.0.0.1]:31969");
    let Ok(template) = Template::new(client, server, path) else {
        unreachable!("a short path")
    };
    for len in [100, 1200] {
        let payload = vec![0x5a; len];
        let mut datagram = Vec::new();
        let _ = template.write(&payload, &mut datagram);
        let mut group = c.benchmark_group(format!("scion/{len}"));
        group.throughput(Throughput::Elements(1));
        group.bench_function("parse", |b| b.iter(|| parse(black_box(&datagram))));
        let Ok(packet) = parse(&datagram) else {
            unreachable!("a whole packet")
        };
        group.bench_function("checksum", |b| {
            b.iter(|| black_box(&packet).checksum_is_right())
        });
        let mut out = Vec::with_capacity(2048);
        group.bench_function("encapsulate", |b| {
            b.iter(|| {
                out.clear();
                let _ = template.write(black_box(&payload), &mut out);
            })
        });
        let Message::Udp(udp) = packet.message else {
            unreachable!("a UDP packet")
        };
        group.bench_function("template", |b| {
            b.iter(|| Template::answering(black_box(&packet), &udp))
        });
        let mut reply = [0x5a; 2048];
        group.bench_function("answer", |b| {
            b.iter(|| {
                let answer = Answer::new(black_box(&packet), &udp, &mut reply);
                answer.and_then(|answer| answer.seal(len))
            })
        });
        group.finish();
    }
    let payloads = vec![0x5a; 12_000];
    let mut out = Vec::with_capacity(16_384);
    let mut group = c.benchmark_group("scion/10x1200");
    group.throughput(Throughput::Elements(10));
    group.bench_function("encapsulate", |b| {
        b.iter(|| {
            out.clear();
            let _ = template.write_segments(black_box(&payloads), 1200, &mut out);
        })
    });
    group.finish();
}

criterion_group!(benches, packets);
criterion_main!(benches);
