//! Batches on a socket that is not connected: each datagram with its address.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};

use arrayvec::ArrayVec;

use super::BATCH;
use super::address::RawAddr;
use super::control::Control;
use super::messages::{Ask, Incoming, Outgoing};

/// The longest message: what an IPv4 packet holds besides its header and that of UDP.
const LONGEST: usize = 65_507;

/// Receives batches of datagrams of at most `LEN` bytes.
pub(crate) struct ReceiveBatch<const LEN: usize>(Incoming<LEN>);

/// Sends batches of datagrams of at most `LEN` bytes.
///
/// Datagrams to one address, as all for one border router are, go longest first, so that many of them
/// can be handed over as one message that the kernel cuts again: most of what a datagram costs the kernel is
/// its way to the device.
pub(crate) struct SendBatch<const LEN: usize> {
    messages: Outgoing<LEN>,
    queued: ArrayVec<Queued, BATCH>,
    /// The addresses of the queued datagrams, most of them once.
    receivers: ArrayVec<SocketAddr, BATCH>,
    /// Datagrams that the kernel cuts a message into, 1 if it does not.
    segments: usize,
    /// See [`SendBatch::too_long`].
    too_long: usize,
}

/// A queued datagram, as it is sorted before it is sent. One number, which is fast to compare.
///
/// ```text
/// bits 32-47   number of its receiver
/// bits 16-31   complement of its length, so that longer ones come first
/// bits  0-15   number of its buffer
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Queued(u64);

impl Queued {
    const fn new(receiver: usize, length: u16, buffer: usize) -> Self {
        Self((receiver as u64) << 32 | (!length as u64) << 16 | buffer as u64)
    }

    const fn receiver(self) -> usize {
        (self.0 >> 32) as usize
    }

    const fn length(self) -> usize {
        !((self.0 >> 16) as u16) as usize
    }

    const fn buffer(self) -> usize {
        self.0 as u16 as usize
    }
}

impl<const LEN: usize> ReceiveBatch<LEN> {
    pub(crate) fn new() -> Self {
        Self(Incoming::new(Ask::Source))
    }

    /// Takes the datagrams that are there. Returns how many: fewer than [`BATCH`] if these are all, 0
    /// if there are none on a socket that does not block.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        match self.0.receive(socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    /// A datagram of the last batch and where it came from; `None` if it is longer than a buffer.
    pub(crate) fn datagram(&self, at: usize) -> Option<(&[u8], SocketAddr)> {
        Some((self.0.datagram(at)?, self.0.address(at).decode()?))
    }
}

impl<const LEN: usize> SendBatch<LEN> {
    /// For a kernel that cuts a message into at most so many datagrams.
    pub(crate) fn new(segments: usize) -> Self {
        Self {
            messages: Outgoing::new(),
            queued: ArrayVec::new(),
            receivers: ArrayVec::new(),
            segments: segments.max(1),
            too_long: 0,
        }
    }

    /// The buffer for the next datagram; `None` if it is time to send.
    pub(crate) fn buffer(&mut self) -> Option<&mut [u8; LEN]> {
        let next = self.queued.len();
        self.messages.buffers().get_mut(next)
    }

    /// Queues the datagram in [`SendBatch::buffer`], of this length.
    ///
    /// # Panics
    /// If there was no buffer.
    pub(crate) fn queue(&mut self, length: usize, to: SocketAddr) {
        let receiver = self.receiver(to);
        let length = length.min(LEN).min(LONGEST) as u16;
        let buffer = self.queued.len();
        self.queued.push(Queued::new(receiver, length, buffer));
    }

    /// The number of this receiver among those of the batch. An address that was seen long ago gets a number
    /// of its own again, which only means more messages.
    #[inline]
    fn receiver(&mut self, to: SocketAddr) -> usize {
        /// Few trackers have more border routers.
        const LOOKED_AT: usize = 8;
        let latest = self.receivers.iter().rev().take(LOOKED_AT);
        match latest.enumerate().find(|(_, it)| **it == to) {
            Some((back, _)) => self.receivers.len() - 1 - back,
            None => {
                self.receivers.push(to);
                self.receivers.len() - 1
            }
        }
    }

    /// The queued datagrams, in their order.
    pub(crate) fn queued_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let buffers = self.messages.buffers().iter_mut();
        buffers
            .zip(&self.queued)
            .map(|(buffer, datagram)| &mut buffer[..datagram.length()])
    }

    /// Sends the queued datagrams. Returns how many datagrams could not be sent: as with any UDP, a full
    /// socket loses them.
    pub(crate) fn send(&mut self, socket: &UdpSocket) -> usize {
        let queued = self.queued.len();
        let (mut sent, mut failed) = (0, 0);
        self.too_long = 0;
        let mut segments = self.segments;
        if segments > 1 {
            self.queued.sort_unstable();
        }
        while sent < queued {
            let messages = self.compose(sent, segments);
            match self.messages.send(socket, 0..messages) {
                Ok(count) if count > 0 => {
                    let messages = 0..count.min(messages);
                    sent += messages
                        .map(|it| self.messages.datagrams(it))
                        .sum::<usize>();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    failed += queued - sent;
                    break;
                }
                other if self.messages.datagrams(0) > 1 => {
                    // Perhaps one of them can be sent by itself.
                    segments = 1;
                    if matches!(other, Err(error) if error.raw_os_error() == Some(libc::EIO)) {
                        // The device does not cut.
                        self.segments = 1;
                    }
                }
                // The first of these cannot be sent (no route, for example): leave it out.
                other => {
                    if matches!(other, Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE)) {
                        self.too_long += 1;
                    }
                    sent += 1;
                    failed += 1;
                }
            }
        }
        self.queued.clear();
        self.receivers.clear();
        failed
    }

    /// How many datagrams the last [`SendBatch::send`] could not send because they were too long for
    /// their link (`EMSGSIZE`).
    pub(crate) const fn too_long(&self) -> usize {
        self.too_long
    }

    /// Makes messages of the datagrams from number `from` on, each of at most so many of them. Returns
    /// how many messages there are.
    fn compose(&mut self, from: usize, segments: usize) -> usize {
        let mut messages = 0;
        let mut at = from;
        while let Some(first) = self.queued.get(at) {
            let count = together(&self.queued[at..], segments);
            for (vector, datagram) in (at..at + count).zip(&self.queued[at..]) {
                self.messages
                    .set_vector(vector, datagram.buffer(), datagram.length());
            }
            let to = RawAddr::from(self.receivers[first.receiver()]);
            let segment = (count > 1).then(|| Control::segment(first.length() as u16));
            let control = segment.as_ref().map(|(control, length)| (control, *length));
            self.messages
                .set_message(messages, at..at + count, Some(&to), control);
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
    let mut total = first.length();
    let mut count = 1;
    for pair in queued.windows(2) {
        let [last, next] = pair else { break };
        let length = next.length();
        total += length;
        let fits = last.length() == first.length() && (1..=first.length()).contains(&length);
        if count == segments || next.receiver() != first.receiver() || !fits || total > LONGEST {
            break;
        }
        count += 1;
    }
    count
}

impl<const LEN: usize> fmt::Debug for ReceiveBatch<LEN> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveBatch")
            .field("received", &self.0.len())
            .finish_non_exhaustive()
    }
}

impl<const LEN: usize> fmt::Debug for SendBatch<LEN> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendBatch")
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
        let (mut incoming, mut outgoing) =
            (ReceiveBatch::<4>::new(), SendBatch::<4>::new(segments));
        let count = BATCH as u32 + 7;
        let handle = |incoming: &ReceiveBatch<4>, outgoing: &mut SendBatch<4>, received| {
            for at in 0..received {
                let Some((datagram, from)) = incoming.datagram(at) else {
                    continue;
                };
                assert_eq!(from, one.local_addr().unwrap());
                outgoing.buffer().unwrap()[..datagram.len()].copy_from_slice(datagram);
                outgoing.queue(datagram.len(), from);
            }
            assert_eq!(outgoing.send(&two), 0);
        };
        for number in 0..count {
            one.send_to(&number.to_be_bytes(), there).unwrap();
            one.send_to(b"too long", there).unwrap();
        }
        let mut seen = 0;
        while seen < 2 * count {
            let received = incoming.receive(&two).unwrap();
            handle(&incoming, &mut outgoing, received);
            seen += received as u32;
        }
        for number in 0..count {
            let mut reply = [0; 8];
            assert_eq!(one.recv_from(&mut reply).unwrap(), (4, there));
            assert_eq!(reply[..4], number.to_be_bytes());
        }
        two.set_nonblocking(true).unwrap();
        assert_eq!(incoming.receive(&two).unwrap(), 0);
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
                let mut outgoing = SendBatch::<1>::new(segments);
                for nth in 0..count {
                    outgoing.buffer().unwrap()[0] = nth as u8;
                    outgoing.queue(1, if lost(nth) { nowhere } else { there });
                }
                assert_eq!(outgoing.buffer().is_none(), count == BATCH);
                assert_eq!(
                    outgoing.send(&from),
                    (0..count).filter(|nth| lost(*nth)).count()
                );
                assert_eq!(outgoing.send(&from), 0);
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
            let mut outgoing = SendBatch::<4>::new(segments);
            for length in lengths {
                outgoing.buffer().unwrap().fill(length as u8);
                outgoing.queue(length, there);
            }
            let queued = outgoing.queued_mut();
            assert!(queued.zip(lengths).all(|(it, length)| it.len() == length));
            assert_eq!(outgoing.send(&from), 0);
            for length in order {
                let mut buffer = [0; 8];
                assert_eq!(to.recv(&mut buffer).unwrap(), length);
                assert!(buffer[..length].iter().all(|it| usize::from(*it) == length));
            }
        }
    }

    #[test]
    fn datagrams_of_many_receivers_each_reach_theirs() {
        const RECEIVERS: usize = 11;
        let from = bound("127.0.0.1:0");
        let to: Vec<_> = (0..RECEIVERS).map(|_| bound("127.0.0.1:0")).collect();
        let mut outgoing = SendBatch::<4>::new(BATCH);
        for number in 0..BATCH {
            let receiver = &to[number * 7 % RECEIVERS];
            outgoing.buffer().unwrap().fill(number as u8);
            outgoing.queue(1 + number % 4, receiver.local_addr().unwrap());
        }
        assert_eq!(outgoing.send(&from), 0);
        for (at, receiver) in to.iter().enumerate() {
            let mut expected: Vec<_> = (0..BATCH)
                .filter(|number| number * 7 % RECEIVERS == at)
                .map(|number| vec![number as u8; 1 + number % 4])
                .collect();
            let mut received: Vec<_> = expected
                .iter()
                .map(|_| {
                    let mut buffer = [0; 8];
                    let length = receiver.recv(&mut buffer).unwrap();
                    buffer[..length].to_vec()
                })
                .collect();
            expected.sort();
            received.sort();
            assert_eq!(received, expected, "receiver {at}");
        }
    }

    #[test]
    fn a_queued_datagram_holds_its_numbers() {
        for numbers in [(0, 0, 0), (63, 65_507, 63), (1, 1280, 0)] {
            let queued = Queued::new(numbers.0, numbers.1, numbers.2);
            let read = (queued.receiver(), queued.length() as u16, queued.buffer());
            assert_eq!(read, numbers);
        }
        assert!(Queued::new(0, 9, 0) < Queued::new(0, 8, 0));
        assert!(Queued::new(0, 8, 0) < Queued::new(1, 9, 0));
    }

    #[test]
    fn datagrams_of_one_length_to_one_address_go_together() {
        let (one, two) = (0, 1);
        let queued = |datagrams: &[(usize, u16)]| -> Vec<_> {
            let datagrams = datagrams.iter();
            datagrams
                .map(|(to, length)| Queued::new(*to, *length, 0))
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
