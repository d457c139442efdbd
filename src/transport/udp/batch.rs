//! Datagrams in batches: one `recvmmsg` and one `sendmmsg` for as many as are there.
//!
//! What every request of a batch needs (buffers, addresses, headers) is allocated once. On a socket
//! that is bound to the wildcard address, each reply leaves from the address that its request was
//! sent to; a host with several addresses would answer from another one otherwise, and the client
//! drop the reply.

#![allow(
    unsafe_code,
    reason = "batched system calls; std has only one datagram a call"
)]

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use crate::socket::mmsg::{BATCH, CONTROL, Side};

/// The largest request that is looked at: BEP 15's longest scrape has 1,496 bytes.
const REQUEST: usize = 2048;
/// The largest reply: what fits an Ethernet frame over IPv6 without fragments, less a margin for
/// tunnels.
pub(super) const REPLY: usize = 1432;

/// Buffers for one worker. Stays on the thread that made it.
pub(super) struct Batch {
    /// Source addresses of requests, and so destinations of replies. Pointed to by both sides'
    /// headers.
    names: Box<[libc::sockaddr_storage]>,
    requests: Side<REQUEST>,
    replies: Side<REPLY>,
    /// Whether the socket tells where each datagram was sent to.
    addressed: bool,
    /// Requests of the last batch.
    received: usize,
    /// Replies in line.
    queued: usize,
}

impl Batch {
    /// Buffers for this socket.
    pub(super) fn new(socket: &UdpSocket) -> io::Result<Self> {
        let addressed = socket.local_addr()?.ip().is_unspecified();
        if addressed {
            receive_destination(socket)?;
        }
        // SAFETY: all zeros is a valid sockaddr_storage: of no family.
        let none: libc::sockaddr_storage = unsafe { MaybeUninit::zeroed().assume_init() };
        Ok(Self {
            names: vec![none; BATCH].into_boxed_slice(),
            requests: Side::new(),
            replies: Side::new(),
            addressed,
            received: 0,
            queued: 0,
        })
    }

    /// Waits for a datagram and takes as many as are there.
    pub(super) fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        self.queued = 0;
        self.received = 0;
        self.received = self.receive_batch(socket)?;
        Ok(())
    }

    /// The datagrams that were received, each with its source.
    pub(super) fn requests(&self) -> impl Iterator<Item = (&[u8], SocketAddr)> {
        (0..self.received).filter_map(|at| self.request(at))
    }

    /// `None` for one from no IP address, and one that is longer than a request can be.
    fn request(&self, at: usize) -> Option<(&[u8], SocketAddr)> {
        let header = &self.requests.headers[at];
        let (length, flags) = (header.msg_len as usize, header.msg_hdr.msg_flags);
        if flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        let source = socket_addr(&self.names[at])?;
        Some((&self.requests.buffers[at][..length.min(REQUEST)], source))
    }

    /// Hands each datagram to `answer` with its source and a buffer for the reply, and puts the replies in
    /// line: those for which `answer` returns a length above zero.
    pub(super) fn answer(
        &mut self,
        mut answer: impl FnMut(&[u8], SocketAddr, &mut [u8; REPLY]) -> usize,
    ) {
        // Out of the way, so that requests can be read meanwhile.
        let mut buffers = std::mem::take(&mut self.replies.buffers);
        for at in 0..self.received {
            let Some((request, source)) = self.request(at) else {
                continue;
            };
            let length = answer(request, source, &mut buffers[self.queued]);
            if length > 0 {
                self.queue(at, length.min(REPLY));
            }
        }
        self.replies.buffers = buffers;
    }

    fn receive_batch(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let control = if self.addressed {
            size_of::<[u64; CONTROL]>()
        } else {
            0
        };
        for (header, name) in self.requests.headers.iter_mut().zip(&mut self.names) {
            header.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_controllen = control;
        }
        // SAFETY: every header points to a live buffer, name and control block of the length given
        // with it, each its own; they are on the heap and stay where they are.
        unsafe { self.requests.receive(socket) }
    }

    /// Puts the reply in the next buffer, of this length, in line to the source of request `from`.
    fn queue(&mut self, from: usize, length: usize) {
        let to = self.queued;
        self.queued += 1;
        let request = self.requests.headers[from].msg_hdr;
        self.replies.set_length(to, length);
        let reply = &mut self.replies.headers[to].msg_hdr;
        reply.msg_name = request.msg_name;
        reply.msg_namelen = request.msg_namelen;
        reply.msg_controllen = 0;
        if self.addressed {
            self.replies.control[to] = self.requests.control[from];
            reply.msg_controllen = request.msg_controllen;
            // The answer goes out where the routes say, not where the request happened to come in.
            clear_interface(reply);
        }
    }

    /// Sends the replies in line. Returns how many of them could not be sent.
    pub(super) fn send(&mut self, socket: &UdpSocket) -> usize {
        let queued = std::mem::take(&mut self.queued);
        let (mut sent, mut failed) = (0, 0);
        while sent < queued {
            // SAFETY: the headers from `sent` to `queued` were filled by `queue`: their names are those
            // of the requests, as alive as the buffers.
            match unsafe { self.replies.send(socket, sent, queued) } {
                Ok(count) if count > 0 => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The first of these cannot be sent (no route, no buffer): leave it out.
                _ => {
                    sent += 1;
                    failed += 1;
                }
            }
        }
        failed
    }
}

/// Asks the kernel for the destination of each datagram (ip(7), ipv6(7)).
fn receive_destination(socket: &UdpSocket) -> io::Result<()> {
    let (level, option) = match socket.local_addr()? {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int, and its length is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Clears the interface of a packet information message, so that only its address counts, which the
/// kernel sends from. A link-local address means nothing without its interface and keeps it.
fn clear_interface(header: &mut libc::msghdr) {
    // SAFETY: the control block was filled by the kernel and is of the length in the header; the
    // CMSG macros walk inside it, and unaligned access is used on the data.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        if message.is_null() {
            return;
        }
        let data = libc::CMSG_DATA(message);
        match ((*message).cmsg_level, (*message).cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let mut info = data.cast::<libc::in_pktinfo>().read_unaligned();
                info.ipi_ifindex = 0;
                data.cast::<libc::in_pktinfo>().write_unaligned(info);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let mut info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                if !address.is_unicast_link_local() {
                    info.ipi6_ifindex = 0;
                }
                data.cast::<libc::in6_pktinfo>().write_unaligned(info);
            }
            _ => {}
        }
    }
}

/// The address in a `sockaddr_storage`, IPv4-mapped ones as IPv4.
fn socket_addr(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is a sockaddr_in, which is smaller and as aligned.
            let addr = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(addr.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(addr.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for sockaddr_in6.
            let addr = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(addr.sin6_addr.s6_addr);
            Some(SocketAddr::new(
                IpAddr::V6(ip).to_canonical(),
                u16::from_be(addr.sin6_port),
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pair(server: &str, client: &str) -> (UdpSocket, UdpSocket) {
        let server = UdpSocket::bind(server).unwrap();
        let client = UdpSocket::bind(client).unwrap();
        for socket in [&server, &client] {
            socket
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
        }
        (server, client)
    }

    /// Echoes in batches, more datagrams than one batch holds, and drops the empty ones.
    fn echo(server: &str, client: &str, to: &str, source: &str) {
        let (server, client) = pair(server, client);
        let mut to: SocketAddr = to.parse().unwrap();
        to.set_port(server.local_addr().unwrap().port());
        let mut batch = Batch::new(&server).unwrap();
        let count = BATCH as u32 + 7;
        for number in 0..count {
            client.send_to(&number.to_be_bytes(), to).unwrap();
            client.send_to(b"", to).unwrap();
        }
        let mut seen = 0;
        while seen < 2 * count {
            batch.receive(&server).unwrap();
            batch.answer(|request, from, reply| {
                seen += 1;
                assert_eq!(from.ip(), source.parse::<IpAddr>().unwrap());
                reply[..request.len()].copy_from_slice(request);
                request.len()
            });
            assert_eq!(batch.send(&server), 0);
        }
        for number in 0..count {
            let mut reply = [0; 64];
            let (length, from) = client.recv_from(&mut reply).unwrap();
            assert_eq!(reply[..length], number.to_be_bytes());
            assert_eq!(from, to, "the reply comes from where the request went");
        }
    }

    #[test]
    fn echoes_over_ipv4() {
        echo("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:1", "127.0.0.1");
    }

    #[test]
    fn echoes_over_ipv6() {
        echo("[::1]:0", "[::1]:0", "[::1]:1", "::1");
    }

    #[test]
    fn answers_from_the_address_that_was_asked() {
        echo("0.0.0.0:0", "127.0.0.1:0", "127.0.0.77:1", "127.0.0.1");
    }

    #[test]
    fn answers_from_the_address_that_was_asked_on_a_dual_stack_socket() {
        let server =
            socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None).unwrap();
        server.set_only_v6(false).unwrap();
        server
            .bind(&"[::]:0".parse::<SocketAddr>().unwrap().into())
            .unwrap();
        let server: UdpSocket = server.into();
        server
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let port = server.local_addr().unwrap().port();
        let mut batch = Batch::new(&server).unwrap();
        for (client, to) in [("127.0.0.1:0", "127.0.0.77"), ("[::1]:0", "::1")] {
            let client = UdpSocket::bind(client).unwrap();
            client
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            let to = SocketAddr::new(to.parse().unwrap(), port);
            client.send_to(b"hello", to).unwrap();
            batch.receive(&server).unwrap();
            batch.answer(|request, from, reply| {
                assert_eq!(from, client.local_addr().unwrap());
                reply[..request.len()].copy_from_slice(request);
                request.len()
            });
            assert_eq!(batch.send(&server), 0);
            let mut reply = [0; 64];
            assert_eq!(client.recv_from(&mut reply).unwrap(), (5, to));
        }
    }

    #[test]
    fn a_reply_that_cannot_be_sent_does_not_hold_up_the_others() {
        let (server, client) = pair("127.0.0.1:0", "127.0.0.1:0");
        let to = server.local_addr().unwrap();
        let mut batch = Batch::new(&server).unwrap();
        client.send_to(b"a", to).unwrap();
        client.send_to(b"b", to).unwrap();
        let mut seen = 0;
        while seen < 2 {
            batch.receive(&server).unwrap();
            batch.answer(|request, _, reply| {
                seen += 1;
                reply[0] = request[0];
                1
            });
            assert_eq!(batch.send(&server), 0);
        }
        // Port zero cannot be sent to.
        let mut names = std::mem::take(&mut batch.names);
        batch.names = Box::default();
        batch.queue(0, 1);
        batch.queue(1, 1);
        // SAFETY: the headers still point into `names`, which is alive here.
        unsafe {
            (*std::ptr::from_mut(&mut names[0]).cast::<libc::sockaddr_in>()).sin_port = 0;
        }
        assert_eq!(batch.send(&server), 1);
    }

    #[test]
    fn an_oversized_datagram_is_passed_over() {
        let (server, client) = pair("127.0.0.1:0", "127.0.0.1:0");
        let to = server.local_addr().unwrap();
        let mut batch = Batch::new(&server).unwrap();
        client.send_to(&[7; REQUEST + 1], to).unwrap();
        client.send_to(b"small", to).unwrap();
        let mut seen = Vec::new();
        while seen.is_empty() {
            batch.receive(&server).unwrap();
            batch.answer(|request, _, _| {
                seen.push(request.to_vec());
                0
            });
        }
        assert_eq!(seen, [b"small"]);
    }
}
