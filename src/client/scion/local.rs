//! Binds a local port that border routers deliver to, and knows the addresses of this host.

use std::io;
use std::net::{IpAddr, UdpSocket};

/// The ports that border routers deliver to by default, as scionproto's topology generator writes
/// them.
pub(crate) const USUAL_PORTS: (u16, u16) = (31000, 32767);

/// Binds a socket on a free port of this range, or on any port.
pub(super) fn bind(ip: IpAddr, ports: Option<(u16, u16)>) -> io::Result<UdpSocket> {
    // The port that the system chooses is fine if it is in the range.
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
        // Less than or equal to `last`, so it fits.
        let port = first + ((start + nth) % count) as u16;
        match UdpSocket::bind((ip, port)) {
            Err(error) if unavailable(&error) => {}
            bound => return bound,
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Whether this host has the address: a socket can be bound to it.
pub(super) fn is_ours(ip: IpAddr) -> bool {
    !ip.is_unspecified() && UdpSocket::bind((ip, 0)).is_ok()
}

/// Whether the port is in use, or not permitted.
fn unavailable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn addresses_of_this_host() {
        for (ip, ours) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("0.0.0.0", false),
            ("192.0.2.1", false),
        ] {
            assert_eq!(is_ours(ip.parse().unwrap()), ours, "{ip}");
        }
    }

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
}
