//! Binds UDP and TCP sockets on IP: dual stack, and one per worker on the same port.
//!
//! The sockets of a listener share its port with SO_REUSEPORT, and the kernel spreads the load over
//! them. SO_REUSEPORT alone would also let a *second tracker* of the same user share the port, so
//! that each would see half of the peers. Therefore the first socket of a group is bound without it:
//! that fails if another program has the port. Only then it gets the option, which admits the other
//! sockets of the group, but no second tracker, because that tries without the option first.
//!
//! Sockets that a service manager has bound at the same address are used as they are, one per worker.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::num::NonZeroUsize;

use socket2::{Domain, Socket, Type};

use super::inherited;

/// Connections that wait to be accepted, a socket. The kernel has a limit of its own.
const BACKLOG: i32 = 4096;

/// Binds a UDP socket for each worker. With port 0 they share the port that is picked.
pub(crate) fn udp(
    address: SocketAddr,
    workers: NonZeroUsize,
    receive_buffer: usize,
) -> io::Result<Vec<UdpSocket>> {
    let prepare = |socket: &Socket| {
        // As far as the kernel lets us (net.core.rmem_max).
        socket.set_recv_buffer_size(receive_buffer)
    };
    let sockets = group(address, workers, Type::DGRAM, prepare)?;
    Ok(sockets.into_iter().map(UdpSocket::from).collect())
}

/// Binds a nonblocking TCP listener for each worker. With port 0 they share the port that is picked.
pub(crate) fn tcp(address: SocketAddr, workers: NonZeroUsize) -> io::Result<Vec<TcpListener>> {
    let prepare = |socket: &Socket| {
        // Connections of the previous run may still be in TIME-WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        accept_with_data(socket);
        Ok(())
    };
    let sockets = group(address, workers, Type::STREAM, prepare)?;
    Ok(sockets.into_iter().map(TcpListener::from).collect())
}

/// Has the kernel keep back connections until their client sends something, which is first to speak in
/// all that runs over TCP here: whoever accepts finds a request, and is woken up once and not twice.
/// A client that stays silent is accepted after a second, when the kernel has asked it again
/// (TCP_DEFER_ACCEPT in tcp(7)); until then it costs no more than one that has not finished connecting.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn accept_with_data(listener: &Socket) {
    // It saves work, and that is all: where the kernel will not have it, connections come as ever.
    let _ = super::options::defer_accept(listener, 1);
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn accept_with_data(_: &Socket) {}

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

fn group(
    address: SocketAddr,
    workers: NonZeroUsize,
    kind: Type,
    prepare: impl Fn(&Socket) -> io::Result<()>,
) -> io::Result<Vec<Socket>> {
    let inherited = inherited::claim(kind, address);
    if !inherited.is_empty() {
        inherited.iter().try_for_each(prepare)?;
        return Ok(inherited);
    }
    let new = |domain| {
        let socket = Socket::new(domain, kind, None)?;
        prepare(&socket)?;
        Ok(socket)
    };
    let first = match first(address, &new) {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && no_ipv6(&error) => {
            let fallback = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            tracing::info!("this system has no IPv6: listening on {fallback} for {address}");
            first(fallback, &new)?
        }
        other => other?,
    };
    // Other systems have the option without the spreading.
    if !cfg!(any(target_os = "linux", target_os = "android")) || workers.get() == 1 {
        listen(&first)?;
        return Ok(vec![first]);
    }
    first.set_reuse_port(true)?;
    listen(&first)?;
    let address = local_address(&first)?;
    let mut sockets = vec![first];
    for _ in 1..workers.get() {
        let socket = open(address, &new)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        listen(&socket)?;
        sockets.push(socket);
    }
    Ok(sockets)
}

fn first(address: SocketAddr, new: &impl Fn(Domain) -> io::Result<Socket>) -> io::Result<Socket> {
    let socket = open(address, new)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn open(address: SocketAddr, new: &impl Fn(Domain) -> io::Result<Socket>) -> io::Result<Socket> {
    let socket = new(Domain::for_address(address))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    Ok(socket)
}

fn listen(socket: &Socket) -> io::Result<()> {
    match socket.r#type()? {
        Type::STREAM => socket.listen(BACKLOG),
        _ => Ok(()),
    }
}

fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("a socket of an unknown family"))
}

/// Whether this is how a system without IPv6 answers.
fn no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write as _};
    use std::net::{Ipv6Addr, TcpStream};

    use super::*;

    const THREE: NonZeroUsize = NonZeroUsize::new(3).unwrap();

    fn any() -> SocketAddr {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    }

    #[test]
    fn a_group_shares_one_port_and_its_load() {
        let sockets = udp(any(), THREE, 1 << 16).unwrap();
        let port = sockets[0].local_addr().unwrap().port();
        assert_ne!(port, 0);
        let clients = 96;
        for _ in 0..clients {
            let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            client.send_to(b"x", (Ipv4Addr::LOCALHOST, port)).unwrap();
        }
        let mut received = [0; 3];
        for (socket, received) in sockets.iter().zip(&mut received) {
            assert_eq!(socket.local_addr().unwrap().port(), port);
            // Over loopback, what was sent has arrived.
            socket.set_nonblocking(true).unwrap();
            while socket.recv_from(&mut [0; 8]).is_ok() {
                *received += 1;
            }
        }
        assert_eq!(received.iter().sum::<usize>(), clients);
        if cfg!(target_os = "linux") {
            assert!(received.iter().all(|n| *n > 0), "{received:?}");
        }
    }

    #[test]
    fn connections_reach_all_listeners_of_a_group() {
        let listeners = tcp(any(), THREE).unwrap();
        let port = listeners[0].local_addr().unwrap().port();
        let clients: Vec<_> = (0..96)
            .map(|_| {
                let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
                client.write_all(b"x").unwrap();
                client
            })
            .collect();
        let accepted: Vec<_> = listeners
            .iter()
            .map(|listener| std::iter::from_fn(|| listener.accept().ok()).count())
            .collect();
        assert_eq!(accepted.iter().sum::<usize>(), clients.len());
        if cfg!(target_os = "linux") {
            assert!(accepted.iter().all(|n| *n > 0), "{accepted:?}");
        }
    }

    #[test]
    fn a_second_tracker_cannot_join_the_group() {
        let sockets = udp(any(), THREE, 1 << 16).unwrap();
        let taken = sockets[0].local_addr().unwrap();
        assert_eq!(
            udp(taken, THREE, 1 << 16).unwrap_err().kind(),
            ErrorKind::AddrInUse
        );
        let listeners = tcp(any(), THREE).unwrap();
        let taken = listeners[0].local_addr().unwrap();
        assert_eq!(tcp(taken, THREE).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(listeners);
        tcp(taken, THREE).unwrap();
    }

    #[test]
    fn loopback_v6_leaves_v4_alone() {
        let v6 = udp((Ipv6Addr::LOCALHOST, 0).into(), THREE, 1 << 16).unwrap();
        let port = v6[0].local_addr().unwrap().port();
        assert!(UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
    }

    #[test]
    fn the_way_out_says_who_we_are() {
        for to in ["127.0.0.1:30001", "127.0.0.9:1"] {
            let from = address_towards(to.parse().unwrap()).unwrap();
            assert_eq!(from, Ipv4Addr::LOCALHOST);
        }
    }
}
