//! Checks the table of remotes with any sequence of packets, errors of routers and times, for fuzzing
//! and tests.

use std::net::Ipv4Addr;

use scion_tracker_core::codec::scion::parse;

use super::*;

const SERVER: &str = "1-ff00:0:110,[10.0.0.1]:31969";
const REMOTES: [&str; 6] = [
    "2-ff00:0:210,[10.0.0.2]:40000",
    "2-ff00:0:210,[10.0.0.2]:40001",
    "2-ff00:0:210,[10.0.0.3]:40000",
    "1-ff00:0:111,[10.0.0.2]:40000",
    "1-ff00:0:111,[fd00::1]:40000",
    "1-ff00:0:111,[fd00::2]:40000",
];
const LIMITS: Limits = Limits {
    fresh: 2,
    established: 2,
};
const START: u32 = 1_800_000_000;

/// A path of one link through this interface. Paths with odd interfaces expire soon.
fn path(interface: u8) -> Vec<u8> {
    let lifetime = if interface.is_multiple_of(2) { 63 } else { 0 };
    let mut path = vec![1, 0, 0x20, 0, 1, 0, 0, 1];
    path.extend_from_slice(&START.to_be_bytes());
    path.extend_from_slice(&[0, lifetime, 0, 0, 0, 6, interface, 2, 3, 4, 5, 6]);
    path.extend_from_slice(&[0, lifetime, 0, interface, 0, 0, 6, 5, 4, 3, 2, 1]);
    path
}

struct Bench {
    addrs: SyntheticAddrs,
    ids: ConnectionIds,
    remotes: Remotes,
    local: ScionAddr,
    millis: u64,
}

impl Bench {
    fn now(&self) -> Now {
        let since_start = Duration::from_millis(self.millis);
        let unix = START.saturating_add(since_start.as_secs() as u32);
        Now { since_start, unix }
    }

    fn route(&self, to: ScionAddr, interface: u8) -> Option<Route> {
        let bytes = path(interface);
        let template = Template::new(self.local, to, Path::parse(&bytes).ok()?).ok()?;
        let next_hop = (Ipv4Addr::LOCALHOST, 30000 + u16::from(interface)).into();
        Some(Route { template, next_hop })
    }

    fn step(&mut self, what: u8, remote: ScionAddr, detail: u8) -> Option<()> {
        let name = self.addrs.of(remote);
        let (now, interface) = (self.now(), 1 + (detail & 3));
        match what {
            0 => self.millis += 1 << (detail % 20),
            1 | 2 => {
                let token = match detail >> 2 & 3 {
                    0 => None,
                    // Ids that the endpoint gave to this remote, and to another one.
                    1 => Some(self.ids.some(name)),
                    2 => Some(self.ids.some(self.addrs.of(self.local))),
                    // Perhaps one that a handshake packet gave to it.
                    _ => Some(Token(u64::from(detail >> 6))),
                };
                let bytes = path(interface);
                let arrival = Arrival {
                    path: Path::parse(&bytes).ok()?,
                    via: (detail >> 4 & 1 == 1).then_some((Ipv4Addr::LOCALHOST, 1).into()),
                    token,
                    now,
                };
                let route = self.route(remote, interface)?;
                let before = self.state(name);
                let change = self
                    .remotes
                    .packet_received((name, remote), &arrival, || Ok(route));
                self.check_packet(name, &arrival, before, change.ok()?);
            }
            3 => {
                let issued = (detail & 1 == 1).then_some(Token(u64::from(detail >> 6)));
                let route = self.remotes.route(name, issued);
                assert_eq!(route.is_some(), self.remotes.by_addr.contains_key(&name));
            }
            4 if detail >> 4 == 0 => {
                let (route, spare) = (self.route(remote, interface)?, self.route(remote, 2));
                let spare = spare.filter(|_| detail & 4 == 0);
                self.remotes.set_paths((name, remote), route, spare, now);
            }
            4 | 5 => self.scmp_error(remote, interface, detail)?,
            _ => {
                let known = self.remotes.endpoint(name);
                assert!(known.is_none_or(|known| known == remote));
                let silent = self.remotes.silent_for(name, now);
                assert!(silent.is_none_or(|silent| silent <= now.since_start));
            }
        }
        Some(())
    }

    /// Whether a remote is established over a proven path that works, and its interface.
    fn state(&self, name: SocketAddr) -> Option<(bool, Option<u16>, Duration)> {
        let remote = self.remotes.by_addr.get(&name)?;
        let way = &remote.current;
        let safe = remote.standing == Standing::Established && way.proven && !way.failed;
        let leaves = way.route.template.path().first_egress();
        Some((safe, leaves, way.last_received))
    }

    /// A packet without proof does not divert an established remote whose path works.
    fn check_packet(
        &self,
        name: SocketAddr,
        arrival: &Arrival<'_>,
        before: Option<(bool, Option<u16>, Duration)>,
        change: Change,
    ) {
        let Some((true, leaves, last)) = before else {
            return;
        };
        let known = arrival.token == Some(self.ids.some(name))
            || self.remotes.by_addr[&name].knows(arrival.token.unwrap_or(Token(u64::MAX)));
        let fresh = arrival.now.since_start.saturating_sub(last) < SILENT;
        if !known && fresh && arrival.now.unix < START {
            assert_eq!(change, Change::None);
            assert_eq!(self.state(name).map(|it| it.1), Some(leaves));
        }
    }

    /// The error of a router about a packet to this remote, ours or a forged one.
    fn scmp_error(&mut self, remote: ScionAddr, interface: u8, detail: u8) -> Option<()> {
        let payload = match detail >> 4 & 1 {
            0 => [0x40; 100],
            _ => [0; 100],
        };
        let mut quote = Vec::new();
        let known = self.remotes.route(self.addrs.of(remote), None);
        match known.filter(|_| detail & 4 == 0) {
            Some(route) => route.template.write(&payload, &mut quote).ok()?,
            None => {
                let route = self.route(remote, interface)?;
                route.template.write(&payload, &mut quote).ok()?;
            }
        }
        quote.truncate(quote.len() - usize::from(detail >> 5) * 8);
        let router = ScionAddr::new(self.local.host.ia, Ipv4Addr::LOCALHOST.into(), 1).ok()?;
        let mut bytes = Vec::new();
        let error = Template::new(router, self.local, Path::EMPTY).ok()?;
        error.write(b"x", &mut bytes).ok()?;
        let packet = parse(&bytes).ok()?;
        let (ia, quote) = (self.local.host.ia, &*quote);
        let scmp = match detail >> 2 & 3 {
            0 | 1 => Scmp::ExternalInterfaceDown {
                ia,
                interface: interface.into(),
                quote,
            },
            2 => Scmp::InternalConnectivityDown {
                ia,
                ingress: 1,
                egress: 2,
                quote,
            },
            _ => Scmp::PacketTooBig { mtu: 1000, quote },
        };
        let (addrs, local, now) = (self.addrs.clone(), self.local, self.now());
        let report = self.remotes.scmp_error(&addrs, local, &packet, &scmp, now);
        let Some(Report {
            failure,
            again,
            unsent,
        }) = report
        else {
            return Some(());
        };
        let standing = self.remotes.by_addr[&addrs.of(remote)].standing;
        assert_ne!(standing, Standing::Fresh);
        assert!(failure.is_none_or(|failure| failure.remote == remote));
        assert!(again.is_none() || unsent.is_none());
        if let Some((route, returned)) = again {
            let (Returned::Whole(returned) | Returned::Beginning(returned)) = returned;
            assert!(quic::is_quic(returned));
            let failed = Quoted::parse(quote).ok()?;
            assert!(!route.template.path().is_same_way(failed.path));
        }
        Some(())
    }

    fn check(&self) {
        let Remotes {
            by_addr,
            fresh,
            fresh_queue,
            ..
        } = &self.remotes;
        let count = |standing| {
            by_addr
                .values()
                .filter(|it| it.standing == standing)
                .count()
        };
        assert_eq!(count(Standing::Fresh), *fresh);
        assert!(*fresh <= LIMITS.fresh);
        assert!(count(Standing::Established) <= LIMITS.established);
        assert!(fresh_queue.len() <= 2 * LIMITS.fresh + 1);
        assert!(by_addr.len() <= REMOTES.len());
    }
}

/// Each three bytes are one step: what happens, to which remote, and how. Checks after each step that
/// the table keeps its limits and its counts, that nobody diverts the packets of a proven remote, and
/// that an error of a router only has us send again what we may have sent, over another path.
pub fn remotes(bytes: &[u8]) {
    let ids = ConnectionIds::default();
    let Ok(local) = SERVER.parse() else { return };
    let mut bench = Bench {
        addrs: SyntheticAddrs::default(),
        ids: ids.clone(),
        remotes: Remotes::new(LIMITS, ids),
        local,
        millis: 0,
    };
    for step in bytes.chunks_exact(3).take(64) {
        let remote = REMOTES[usize::from(step[1]) % REMOTES.len()];
        let Ok(remote) = remote.parse() else { return };
        bench.step(step[0] % 7, remote, step[2]);
        bench.check();
    }
}
