//! Benchmarks of the codecs, with requests of real clients: the cost of a request before and after
//! the tracker.

use std::hint::black_box;
use std::net::IpAddr;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use scion_tracker_core::address::{CompactAddr, Host, IsdAs};
use scion_tracker_core::codec::bep15::{self, AnnounceWriter, Request, TransactionId};
use scion_tracker_core::codec::compact::Layout;
use scion_tracker_core::codec::connection::ConnectionIds;
use scion_tracker_core::codec::reply::{Form, Peers};
use scion_tracker_core::codec::{query, reply};
use scion_tracker_core::response::{AddrBytes, AnnounceReply, Peer, PeerSink, Reach, SwarmCounts};
use scion_tracker_core::types::{InfoHash, PeerId, Time};

const HTTP: &str = include_str!("../../../tests/vectors/http/libtorrent-started.txt");
const UDP: &str = include_str!("../../../tests/vectors/udp/transmission-announce.hex");
const UDP_URL: &str = include_str!("../../../tests/vectors/udp/libtorrent-announce.hex");

const ID: PeerId = PeerId(*b"-LT2110-2Hk2RLxj.gRc");

/// Returns the first datagram of a vector.
fn datagram(lines: &str) -> Vec<u8> {
    let line = lines.lines().next().unwrap_or_default();
    let digit = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).unwrap_or_default();
    (0..line.len()).step_by(2).map(digit).collect()
}

fn addresses(count: usize) -> Vec<[u8; 6]> {
    (0..count)
        .map(
            |i| match CompactAddr::new(IpAddr::from([10, 0, 0, i as u8]), 6881) {
                CompactAddr::V4(bytes) => bytes,
                CompactAddr::V6(_) => [0; 6],
            },
        )
        .collect()
}

fn peer(addr: &[u8; 6]) -> Peer<'_> {
    Peer {
        ia: IsdAs::from_u64(1 << 48 | 0xff00_0000_0110),
        reach: Reach::Both,
        addr: AddrBytes::V4(addr),
        id: &ID,
    }
}

fn announce_reply(host: Host) -> AnnounceReply {
    AnnounceReply {
        counts: SwarmCounts {
            seeders: 1234,
            leechers: 567,
            downloaders: 560,
            completed: 98_765,
        },
        interval: 1800,
        min_interval: 300,
        observed: host,
        warning: None,
    }
}

fn udp(c: &mut Criterion) {
    let mut group = c.benchmark_group("bep15");
    let host = Host::ip_only(IpAddr::from([192, 0, 2, 1]));
    let ids = ConnectionIds::new(*b"sixteen key byte", 120);
    let now = Time::from_secs(1000);
    for (name, vector) in [("parse", UDP), ("parse with URL data", UDP_URL)] {
        let datagram = datagram(vector);
        group.bench_function(name, |b| {
            b.iter(|| bep15::parse(black_box(&datagram), 74).is_ok());
        });
    }
    let id = ids.issue(&host, now);
    group.bench_function("check connection id", |b| {
        b.iter(|| ids.check(black_box(id), black_box(&host), black_box(now)));
    });
    let addresses = addresses(30);
    let mut buffer = [0; 2048];
    for layout in [Layout::Ip4, Layout::Scion4] {
        group.bench_function(format!("write 30 peers {layout:?}"), |b| {
            b.iter(|| {
                let mut writer = AnnounceWriter::new(&mut buffer, TransactionId(1), layout);
                for addr in black_box(&addresses) {
                    writer.push(peer(addr));
                }
                writer.finish(&announce_reply(host))
            });
        });
    }
    // The cost of a UDP announce without the registry and the kernel.
    let mut datagram = datagram(UDP);
    datagram[..8].copy_from_slice(&id.0.to_be_bytes());
    group.bench_function("announce, all codecs", |b| {
        b.iter(|| {
            let Ok(Request::Announce {
                connection,
                transaction,
                announce: Ok(announce),
                ..
            }) = bep15::parse(black_box(&datagram), 74)
            else {
                return 0;
            };
            if !ids.check(connection, black_box(&host), now) {
                return 0;
            }
            let mut writer = AnnounceWriter::new(&mut buffer, transaction, Layout::Ip4);
            let wanted = announce.numwant.unwrap_or(50) as usize;
            for addr in black_box(&addresses).iter().take(wanted) {
                writer.push(peer(addr));
            }
            writer.finish(&announce_reply(host))
        });
    });
    group.finish();
}

fn http(c: &mut Criterion) {
    let mut group = c.benchmark_group("http");
    let target = HTTP.split(' ').nth(1).unwrap_or_default();
    let (_, announce) = target.split_once('?').unwrap_or_default();
    group.throughput(Throughput::Bytes(announce.len() as u64));
    group.bench_function("parse announce", |b| {
        b.iter(|| query::parse_announce(black_box(announce)).is_ok());
    });
    let (scrape, _) = announce.split_once('&').unwrap_or_default();
    let scrape = vec![scrape; 100].join("&");
    group.throughput(Throughput::Bytes(scrape.len() as u64));
    group.bench_function("parse scrape of 100", |b| {
        b.iter(|| query::parse_scrape(black_box(&scrape), 100).map(|it| it.hashes.len()));
    });
    let addresses = addresses(50);
    let host = Host::ip_only(IpAddr::from([192, 0, 2, 1]));
    let mut out = Vec::new();
    for form in [
        Form::Compact,
        Form::ScionCompact,
        Form::Dictionaries { peer_ids: true },
        Form::ScionDictionaries { peer_ids: true },
    ] {
        let mut peers = Peers::new(form);
        let mut write = || {
            out.clear();
            peers.reset(form);
            for addr in black_box(&addresses) {
                peers.push(peer(addr));
            }
            peers.write(&announce_reply(host), &mut out);
            out.len()
        };
        group.throughput(Throughput::Bytes(write() as u64));
        group.bench_function(format!("write 50 peers {form:?}"), |b| b.iter(&mut write));
    }
    let mut hashes: Vec<_> = (0..100_u8)
        .map(|i| {
            (
                InfoHash([i.wrapping_mul(97); 20]),
                announce_reply(host).counts,
            )
        })
        .collect();
    group.bench_function("write scrape of 100", |b| {
        b.iter(|| {
            out.clear();
            reply::write_scrape(&mut hashes, 300, &mut out);
            out.len()
        });
    });
    group.bench_function("read reply of 50", |b| {
        let mut peers = Peers::new(Form::Compact);
        addresses.iter().for_each(|addr| peers.push(peer(addr)));
        let mut reply = Vec::new();
        peers.write(&announce_reply(host), &mut reply);
        b.iter(|| reply::parse_announce_reply(black_box(&reply)).is_ok());
    });
    group.finish();
}

criterion_group!(benches, udp, http);
criterion_main!(benches);
