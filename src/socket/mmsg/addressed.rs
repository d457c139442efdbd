//! Batches on a socket that is not connected: each datagram with its address.

use std::cmp::Reverse;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use arrayvec::ArrayVec;

use super::{BATCH, CONTROL, Side};

/// Room for an address.
const NAME: libc::socklen_t = size_of::<libc::sockaddr_storage>() as libc::socklen_t;

/// The longest message: what an IPv4 packet holds besides its header and that of UDP.
const LONGEST: usize = 65_507;

/// Datagrams that came in.
pub(crate) struct Inbox<const LEN: usize> {
    side: Side<LEN>,
    // Pointed to by the headers.
    names: Box<[libc::sockaddr_storage]>,
    /// Datagrams of the last batch.
    filled: usize,
}

/// Datagrams that are to go out. Those to one address, as all for one border router are, go by falling
/// length, so that many of them can be handed over as one message that the kernel cuts again: most of what
/// a datagram costs it is the way there.
pub(crate) struct Outbox<const LEN: usize> {
    side: Side<LEN>,
    // Pointed to by the headers.
    names: Box<[libc::sockaddr_storage]>,
    queued: ArrayVec<Queued, BATCH>,
    /// Datagrams that the kernel cuts a message into, 1 if it does not.
    segments: usize,
}

/// A datagram in line, as it is sorted before it is sent.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Queued {
    to: SocketAddr,
    length: Reverse<usize>,
    /// Number of its buffer.
    buffer: usize,
}

// SAFETY: the pointers in the headers lead to nothing but this inbox's own boxes.
unsafe impl<const LEN: usize> Send for Inbox<LEN> {}
// SAFETY: as above.
unsafe impl<const LEN: usize> Send for Outbox<LEN> {}

/// Headers with a name each and without control messages.
fn named<const LEN: usize>() -> (Side<LEN>, Box<[libc::sockaddr_storage]>) {
    // SAFETY: all zeros is a valid sockaddr_storage: of no family.
    let none: libc::sockaddr_storage = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut names = vec![none; BATCH].into_boxed_slice();
    let mut side = Side::new();
    for (header, name) in side.headers.iter_mut().zip(&mut names) {
        header.msg_hdr.msg_control = std::ptr::null_mut();
        header.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
        header.msg_hdr.msg_namelen = NAME;
    }
    (side, names)
}

impl<const LEN: usize> Inbox<LEN> {
    pub(crate) fn new() -> Self {
        let (side, names) = named();
        Self {
            side,
            names,
            filled: 0,
        }
    }

    /// Takes the datagrams that are there. Returns how many: fewer than [`BATCH`] if these are all, 0
    /// if there are none on a socket that does not block.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        // The kernel has written how long they are.
        for header in &mut self.side.headers[..self.filled] {
            header.msg_hdr.msg_namelen = NAME;
        }
        self.filled = 0;
        // SAFETY: the headers point to this inbox's own buffers and names, of the lengths given with
        // them, and to no control block.
        self.filled = match unsafe { self.side.receive(socket) } {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            other => other?,
        };
        Ok(self.filled)
    }

    /// A datagram of the last batch and where it came from; `None` if it is longer than a buffer.
    pub(crate) fn datagram(&self, at: usize) -> Option<(&[u8], SocketAddr)> {
        let header = &self.side.headers[at];
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        let datagram = self.side.buffers[at].get(..header.msg_len as usize)?;
        Some((datagram, read_name(&self.names[at])?))
    }
}

impl<const LEN: usize> Outbox<LEN> {
    /// For a kernel that cuts a message into at most so many datagrams.
    pub(crate) fn new(segments: usize) -> Self {
        let (side, names) = named();
        Self {
            side,
            names,
            queued: ArrayVec::new(),
            segments: segments.max(1),
        }
    }

    /// The buffer for the next datagram; `None` if it is time to send.
    pub(crate) fn buffer(&mut self) -> Option<&mut [u8; LEN]> {
        self.side.buffers.get_mut(self.queued.len())
    }

    /// Puts the datagram in [`Outbox::buffer`], of this length, in line.
    ///
    /// # Panics
    /// If there was no buffer.
    pub(crate) fn queue(&mut self, length: usize, to: SocketAddr) {
        self.queued.push(Queued {
            to,
            length: Reverse(length.min(LEN)),
            buffer: self.queued.len(),
        });
    }

    /// The datagrams in line, in their order.
    pub(crate) fn queued_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let buffers = self.side.buffers.iter_mut();
        buffers
            .zip(&self.queued)
            .map(|(buffer, datagram)| &mut buffer[..datagram.length.0])
    }

    /// Sends what is in line. Returns how many datagrams could not be sent: as with any UDP, a full
    /// socket loses them.
    pub(crate) fn send(&mut self, socket: &UdpSocket) -> usize {
        let queued = self.queued.len();
        let (mut sent, mut failed) = (0, 0);
        let mut segments = self.segments;
        if segments > 1 {
            self.queued.sort_unstable();
        }
        while sent < queued {
            let messages = self.address(sent, segments);
            // SAFETY: `address` has made the headers point to this outbox's own buffers, names and control
            // blocks, of the lengths given with them.
            match unsafe { self.side.send(socket, 0, messages) } {
                Ok(count) if count > 0 => {
                    let messages = &self.side.headers[..count];
                    sent += messages.iter().map(datagrams).sum::<usize>();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    failed += queued - sent;
                    break;
                }
                other if datagrams(&self.side.headers[0]) > 1 => {
                    // Perhaps one of them can be sent by itself.
                    segments = 1;
                    if matches!(other, Err(error) if error.raw_os_error() == Some(libc::EIO)) {
                        // The device does not cut.
                        self.segments = 1;
                    }
                }
                // The first of these cannot be sent (no route, for example): leave it out.
                _ => {
                    sent += 1;
                    failed += 1;
                }
            }
        }
        self.queued.clear();
        failed
    }

    /// Makes messages of the datagrams from number `from` on, each of at most so many of them. Returns
    /// how many messages there are.
    fn address(&mut self, from: usize, segments: usize) -> usize {
        let Self {
            side,
            names,
            queued,
            ..
        } = self;
        let mut messages = 0;
        let mut at = from;
        while let Some(first) = queued.get(at) {
            let count = together(&queued[at..], segments);
            let header = &mut side.headers[messages].msg_hdr;
            let name = &mut names[messages];
            header.msg_namelen = write_name(first.to, name);
            header.msg_name = std::ptr::from_mut(name).cast();
            let vectors = &mut side.vectors[at..at + count];
            for (vector, datagram) in vectors.iter_mut().zip(&queued[at..]) {
                vector.iov_base = side.buffers[datagram.buffer].as_mut_ptr().cast();
                vector.iov_len = datagram.length.0;
            }
            header.msg_iov = vectors.as_mut_ptr();
            header.msg_iovlen = count as _;
            header.msg_control = std::ptr::null_mut();
            header.msg_controllen = 0;
            if count > 1 {
                cut(header, &mut side.control[messages], first.length.0 as u16);
            }
            at += count;
            messages += 1;
        }
        messages
    }
}

/// How many datagrams at the beginning of these go as one message: to one address and of one length, but
/// for the last, which may be shorter.
fn together(queued: &[Queued], segments: usize) -> usize {
    let Some(first) = queued.first() else {
        return 0;
    };
    let mut total = first.length.0;
    let mut count = 1;
    for pair in queued.windows(2) {
        let [last, next] = pair else { break };
        let length = next.length.0;
        total += length;
        let fits = last.length == first.length && (1..=first.length.0).contains(&length);
        if count == segments || next.to != first.to || !fits || total > LONGEST {
            break;
        }
        count += 1;
    }
    count
}

/// Of how many datagrams a message is.
const fn datagrams(message: &libc::mmsghdr) -> usize {
    message.msg_hdr.msg_iovlen as _
}

/// Has the kernel cut a message into datagrams of this length (UDP_SEGMENT, udp(7)).
fn cut(header: &mut libc::msghdr, control: &mut [u64; CONTROL], length: u16) {
    header.msg_control = control.as_mut_ptr().cast();
    // SAFETY: the control block has room for the one message, which the macros walk in, and is as
    // aligned as its header; what is written is of the length given with it.
    unsafe {
        header.msg_controllen = libc::CMSG_SPACE(size_of::<u16>() as u32) as _;
        let message = libc::CMSG_FIRSTHDR(header);
        (*message).cmsg_level = libc::SOL_UDP;
        (*message).cmsg_type = libc::UDP_SEGMENT;
        (*message).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as _;
        libc::CMSG_DATA(message)
            .cast::<u16>()
            .write_unaligned(length);
    }
}

/// The address that the kernel has written.
fn read_name(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is a sockaddr_in, which is smaller and as aligned.
            let name = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
            Some((ip, u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for sockaddr_in6.
            let name = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            let (port, scope) = (u16::from_be(name.sin6_port), name.sin6_scope_id);
            Some(SocketAddrV6::new(ip, port, 0, scope).into())
        }
        _ => None,
    }
}

/// Returns the length of the address.
fn write_name(addr: SocketAddr, name: &mut libc::sockaddr_storage) -> libc::socklen_t {
    match addr {
        SocketAddr::V4(addr) => {
            let ip = libc::in_addr {
                s_addr: u32::from_ne_bytes(addr.ip().octets()),
            };
            let value = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: addr.port().to_be(),
                sin_addr: ip,
                sin_zero: [0; 8],
            };
            // SAFETY: a sockaddr_storage has room for every address, and is as aligned.
            unsafe {
                std::ptr::from_mut(name)
                    .cast::<libc::sockaddr_in>()
                    .write(value)
            };
            size_of_val(&value) as libc::socklen_t
        }
        SocketAddr::V6(addr) => {
            let value = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: addr.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: addr.ip().octets(),
                },
                sin6_scope_id: addr.scope_id(),
            };
            // SAFETY: as above.
            unsafe {
                std::ptr::from_mut(name)
                    .cast::<libc::sockaddr_in6>()
                    .write(value)
            };
            size_of_val(&value) as libc::socklen_t
        }
    }
}

impl<const LEN: usize> fmt::Debug for Inbox<LEN> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}

impl<const LEN: usize> fmt::Debug for Outbox<LEN> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("queued", &self.queued.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn bound(address: &str) -> UdpSocket {
        let socket = UdpSocket::bind(address).unwrap();
        let patience = Some(Duration::from_secs(5));
        socket.set_read_timeout(patience).unwrap();
        socket
    }

    /// More datagrams than a batch holds come in with their source, are echoed, and one that is too
    /// long is passed over.
    fn check_echo(address: &str, segments: usize) {
        let (one, two) = (bound(address), bound(address));
        let there = two.local_addr().unwrap();
        let (mut inbox, mut outbox) = (Inbox::<4>::new(), Outbox::<4>::new(segments));
        let count = BATCH as u32 + 7;
        let handle = |inbox: &Inbox<4>, outbox: &mut Outbox<4>, received| {
            for at in 0..received {
                let Some((datagram, from)) = inbox.datagram(at) else {
                    continue;
                };
                assert_eq!(from, one.local_addr().unwrap());
                outbox.buffer().unwrap()[..datagram.len()].copy_from_slice(datagram);
                outbox.queue(datagram.len(), from);
            }
            assert_eq!(outbox.send(&two), 0);
        };
        for number in 0..count {
            one.send_to(&number.to_be_bytes(), there).unwrap();
            one.send_to(b"too long", there).unwrap();
        }
        let mut seen = 0;
        while seen < 2 * count {
            let received = inbox.receive(&two).unwrap();
            handle(&inbox, &mut outbox, received);
            seen += received as u32;
        }
        for number in 0..count {
            let mut reply = [0; 8];
            assert_eq!(one.recv_from(&mut reply).unwrap(), (4, there));
            assert_eq!(reply[..4], number.to_be_bytes());
        }
        two.set_nonblocking(true).unwrap();
        assert_eq!(inbox.receive(&two).unwrap(), 0);
    }

    #[test]
    fn datagrams_are_echoed_over_ipv4() {
        for segments in [1, 5, BATCH] {
            check_echo("127.0.0.1:0", segments);
        }
    }

    #[test]
    fn datagrams_are_echoed_over_ipv6() {
        for segments in [1, 5, BATCH] {
            check_echo("[::1]:0", segments);
        }
    }

    #[test]
    fn datagrams_go_out_together_and_one_that_cannot_does_not_hold_up_the_others() {
        let (from, to) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
        let there = to.local_addr().unwrap();
        // Of another family than the socket.
        let nowhere = "[::1]:1".parse().unwrap();
        // The second, then the second and third.
        for (segments, until) in [(1, 2), (BATCH, 2), (BATCH, 3)] {
            let lost = |nth| (1..until).contains(&nth);
            for count in [1, 2, 3, BATCH] {
                let mut outbox = Outbox::<1>::new(segments);
                for nth in 0..count {
                    outbox.buffer().unwrap()[0] = nth as u8;
                    outbox.queue(1, if lost(nth) { nowhere } else { there });
                }
                assert_eq!(outbox.buffer().is_none(), count == BATCH);
                assert_eq!(
                    outbox.send(&from),
                    (0..count).filter(|nth| lost(*nth)).count()
                );
                assert_eq!(outbox.send(&from), 0);
                for nth in (0..count).filter(|nth| !lost(*nth)) {
                    let mut buffer = [0; 8];
                    assert_eq!(to.recv(&mut buffer).unwrap(), 1);
                    assert_eq!(usize::from(buffer[0]), nth);
                }
            }
        }
    }

    #[test]
    fn what_is_cut_by_the_kernel_goes_by_falling_length() {
        let (from, to) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
        let there = to.local_addr().unwrap();
        let lengths = [3, 1, 4, 4, 2, 3];
        for (segments, order) in [(1, [3, 1, 4, 4, 2, 3]), (BATCH, [4, 4, 3, 3, 2, 1])] {
            let mut outbox = Outbox::<4>::new(segments);
            for length in lengths {
                outbox.buffer().unwrap().fill(length as u8);
                outbox.queue(length, there);
            }
            let queued = outbox.queued_mut();
            assert!(queued.zip(lengths).all(|(it, length)| it.len() == length));
            assert_eq!(outbox.send(&from), 0);
            for length in order {
                let mut buffer = [0; 8];
                assert_eq!(to.recv(&mut buffer).unwrap(), length);
                assert!(buffer[..length].iter().all(|it| usize::from(*it) == length));
            }
        }
    }

    #[test]
    fn datagrams_of_one_length_to_one_address_go_together() {
        let (one, two) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.1:2".parse().unwrap());
        let queued = |datagrams: &[(SocketAddr, usize)]| -> Vec<_> {
            let datagrams = datagrams.iter();
            datagrams
                .map(|(to, length)| Queued {
                    to: *to,
                    length: Reverse(*length),
                    buffer: 0,
                })
                .collect()
        };
        for (datagrams, segments, count) in [
            (&[][..], BATCH, 0),
            (&[(one, 9)], BATCH, 1),
            (&[(one, 9), (one, 9), (one, 9)], BATCH, 3),
            (&[(one, 9), (one, 9), (one, 9)], 2, 2),
            (&[(one, 9), (one, 9), (one, 9)], 1, 1),
            (&[(one, 9), (one, 8), (one, 8)], BATCH, 2),
            (&[(one, 9), (one, 8), (one, 9)], BATCH, 2),
            (&[(one, 9), (one, 10)], BATCH, 1),
            (&[(one, 9), (one, 0)], BATCH, 1),
            (&[(one, 0), (one, 0)], BATCH, 1),
            (&[(one, 9), (one, 9), (two, 9)], BATCH, 2),
            (&[(one, 30_000), (one, 30_000), (one, 30_000)], BATCH, 2),
        ] {
            assert_eq!(
                together(&queued(datagrams), segments),
                count,
                "{datagrams:?}"
            );
        }
    }
}
