//! Socket options that neither std nor socket2 has.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _};

/// Asks the kernel for the destination address of each datagram (`IP_PKTINFO` in ip(7),
/// `IPV6_RECVPKTINFO` in ipv6(7)).
pub(super) fn receive_destinations(socket: &UdpSocket) -> io::Result<()> {
    let (level, option) = destination_option(socket)?;
    set_int(socket, level, option, 1)
}

/// Switches off what [`quinn::udp::UdpSocketState`] switches on for its own way of receiving: coalesced
/// datagrams (`UDP_GRO`), and control messages with the destination and the traffic class.
///
/// One border router sends datagrams of many SCION hosts, so each has to come by itself.
pub(crate) fn receive_plain_datagrams(socket: &UdpSocket) -> io::Result<()> {
    let class = match socket.local_addr()? {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVTOS),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
    };
    let coalesced = (libc::SOL_UDP, libc::UDP_GRO);
    for (level, option) in [destination_option(socket)?, class, coalesced] {
        match set_int(socket, level, option, 0) {
            // Before Linux 5.0 nothing is coalesced.
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {}
            set => set?,
        }
    }
    Ok(())
}

/// Has the kernel fragment datagrams that are longer than the MTU of their link, and allows routers to
/// (`IP_PMTUDISC_DONT` in ip(7), `IPV6_PMTUDISC_DONT` in ipv6(7), `IPV6_DONTFRAG` in RFC 3542, section 11.2).
///
/// Undoes what [`quinn::udp::UdpSocketState`] sets: no fragments, and errors for long datagrams.
pub(crate) fn allow_fragments(socket: &UdpSocket) -> io::Result<()> {
    match socket.local_addr()? {
        SocketAddr::V4(_) => {
            let never = libc::IP_PMTUDISC_DONT;
            set_int(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, never)
        }
        SocketAddr::V6(_) => {
            let never = libc::IPV6_PMTUDISC_DONT;
            set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, never)?;
            set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0)
        }
    }
}

/// Has the kernel keep a connection back until its client has sent something, for this long at most
/// (`TCP_DEFER_ACCEPT` in tcp(7)).
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn defer_accept(listener: &impl AsFd, seconds: libc::c_int) -> io::Result<()> {
    set_int(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)
}

/// How many datagrams the kernel has dropped at this socket since it was opened, modulo 2^32: nearly always
/// because its receive buffer was full (`SO_MEMINFO` in socket(7)). `None` where the kernel does not tell.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn kernel_drops(socket: &impl AsFd) -> Option<u32> {
    /// Position of the drops, and the number of values (linux/sock_diag.h: SK_MEMINFO_DROPS and
    /// SK_MEMINFO_VARS).
    const DROPS: usize = 8;
    const VALUES: usize = DROPS + 1;
    let mut values = [0_u32; VALUES];
    let mut length = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the descriptor is borrowed from the socket, so it is open. The kernel writes at most `length`
    // bytes to `values`, which has so many and outlives the call, and the length to `length`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            std::ptr::from_mut(&mut values).cast(),
            &raw mut length,
        )
    };
    // Before Linux 4.18 the drops are missing.
    (result == 0 && length as usize >= size_of_val(&values)).then_some(values[DROPS])
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn kernel_drops(_: &impl AsFd) -> Option<u32> {
    None
}

fn destination_option(socket: &UdpSocket) -> io::Result<(libc::c_int, libc::c_int)> {
    Ok(match socket.local_addr()? {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    })
}

/// Sets an option whose value is an int, as that of each option above is.
fn set_int(
    socket: &impl AsFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed from the socket, so it is open. The kernel reads as many bytes
    // as the length says, and these are the bytes of `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn options_are_set_on_sockets_of_both_families() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let socket = UdpSocket::bind(address).unwrap();
            receive_destinations(&socket).unwrap();
            receive_plain_datagrams(&socket).unwrap();
            allow_fragments(&socket).unwrap();
        }
        defer_accept(&TcpListener::bind("127.0.0.1:0").unwrap(), 1).unwrap();
    }

    #[test]
    fn datagrams_that_the_kernel_drops_are_counted() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&socket)
            .set_recv_buffer_size(1)
            .unwrap();
        assert_eq!(kernel_drops(&socket), Some(0));
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sent = 1000;
        for _ in 0..sent {
            client
                .send_to(&[0; 1000], socket.local_addr().unwrap())
                .unwrap();
        }
        socket.set_nonblocking(true).unwrap();
        let received = std::iter::from_fn(|| socket.recv(&mut [0; 1000]).ok()).count();
        assert!(received > 0 && received < sent, "{received}");
        assert_eq!(kernel_drops(&socket), Some((sent - received) as u32));
    }

    #[test]
    fn an_option_of_another_protocol_is_an_error() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(defer_accept(&socket, 1).is_err());
    }
}
