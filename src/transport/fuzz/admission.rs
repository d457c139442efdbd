//! Checks the count of connections against a model, for fuzzing and tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use scion_tracker_core::address::{Host, IsdAs};

use crate::transport::Limits;
use crate::transport::connections::{Connections, Open, Over};

/// A few hosts: two in one /64, and the same address in two ASes.
fn host(number: u8) -> Option<Host> {
    let v4 = |last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
    let v6 = |net, last| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, net, 0, 0, 0, last));
    Some(match number % 7 {
        0 => return None,
        1 => Host::ip_only(v4(1)),
        2 => Host::ip_only(v4(2)),
        3 => Host::ip_only(v6(1, 1)),
        4 => Host::ip_only(v6(1, 2)),
        5 => Host::new(IsdAs::from_u64(1 << 48 | 1), v4(1)),
        _ => Host::new(IsdAs::from_u64(1 << 48 | 2), v4(1)),
    })
}

/// What counts as one source. `None` for a proxy.
fn source(number: u8) -> Option<u8> {
    match number % 7 {
        0 => None,
        4 => Some(3),
        n => Some(n),
    }
}

/// An open connection, and what the model knows of it.
struct Known {
    _open: Open,
    over: Over,
    source: Option<u8>,
}

/// Opens and closes connections and changes the limits, as the bytes say. Checks that exactly the
/// connections within the limits are admitted, and that all counts are right afterwards.
pub fn admission(bytes: &[u8]) {
    let limits = |first: u8, second: u8, per_source: u8| Limits {
        tcp_connections: usize::from(first % 8),
        quic_connections: usize::from(second % 8),
        connections_per_source: u32::from(per_source % 4),
        ..Limits::default()
    };
    let mut current = limits(5, 5, 2);
    let connections = Arc::new(Connections::new(&current, Arc::default()));
    let mut known: Vec<Known> = Vec::new();
    for action in bytes.chunks_exact(2) {
        let [what, which] = [action[0], action[1]];
        let over = match what & 1 {
            0 => Over::Tcp,
            _ => Over::Quic,
        };
        match what >> 1 & 3 {
            0 | 1 => {
                let source = source(which);
                let limit = match over {
                    Over::Tcp => current.tcp_connections,
                    Over::Quic => current.quic_connections,
                };
                let open = known.iter().filter(|it| it.over == over).count();
                let same = known.iter().filter(|it| it.source == source).count();
                let per_source = current.connections_per_source as usize;
                let fits = open < limit && (source.is_none() || same < per_source);
                if let Some(host) = host(which) {
                    assert_eq!(connections.is_full(over, host), !fits);
                }
                let entered = connections.enter(over, host(which));
                assert_eq!(entered.is_ok(), fits);
                known.extend(entered.ok().map(|open| Known {
                    _open: open,
                    over,
                    source,
                }));
            }
            2 if !known.is_empty() => {
                known.swap_remove(usize::from(which) % known.len());
            }
            _ => {
                current = limits(which, which >> 3, which >> 6);
                connections.set_limits(&current);
            }
        }
        for over in [Over::Tcp, Over::Quic] {
            let open = known.iter().filter(|it| it.over == over).count();
            assert_eq!(connections.open(over), open);
        }
    }
    drop(known);
    assert_eq!(
        connections.open(Over::Tcp) + connections.open(Over::Quic),
        0
    );
}
