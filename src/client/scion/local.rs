//! Our own end: address and port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The ports that border routers deliver to where nobody says otherwise: what scionproto's generator
/// of topologies writes.
pub(super) const USUAL_PORTS: (u16, u16) = (31000, 32767);

/// The address from which packets to `next_hop` leave. Sends nothing: a UDP socket that is connected
/// knows from where it would.
pub(crate) fn address_towards(next_hop: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match next_hop {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(next_hop)?;
    Ok(socket.local_addr()?.ip())
}

/// A socket on a free port of this range, or on any.
pub(super) fn bind(ip: IpAddr, ports: Option<(u16, u16)>) -> io::Result<UdpSocket> {
    // What the system picks is good where all ports are.
    let any = UdpSocket::bind((ip, 0))?;
    let Some((first, last)) = ports else {
        return Ok(any);
    };
    if (first..=last).contains(&any.local_addr()?.port()) {
        return Ok(any);
    }
    let count = u32::from(last - first) + 1;
    let start = getrandom::u32().unwrap_or_default() % count;
    for nth in 0..count {
        // Less than `last`, which is a port.
        let port = first + ((start + nth) % count) as u16;
        match UdpSocket::bind((ip, port)) {
            Err(error) if unavailable(&error) => {}
            bound => return bound,
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Taken, or not for us to take.
fn unavailable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_of_the_range_is_found() {
        let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));
        let port = |socket: &UdpSocket| socket.local_addr().unwrap().port();
        let range = (31990, 31992);
        let mut taken: Vec<_> = (0..3).map(|_| bind(ip, Some(range)).unwrap()).collect();
        let mut ports: Vec<_> = taken.iter().map(port).collect();
        ports.sort_unstable();
        assert_eq!(ports, [31990, 31991, 31992]);
        let full = bind(ip, Some(range)).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::AddrInUse);
        let free = port(&taken.remove(1));
        assert_eq!(port(&bind(ip, Some(range)).unwrap()), free);
        assert!(bind(ip, None).is_ok());
        assert!(bind(ip, Some((1, 65535))).is_ok());
    }

    #[test]
    fn the_way_out_says_who_we_are() {
        for to in ["127.0.0.1:30001", "127.0.0.9:1"] {
            let from = address_towards(to.parse().unwrap()).unwrap();
            assert_eq!(from, Ipv4Addr::LOCALHOST);
        }
    }
}
