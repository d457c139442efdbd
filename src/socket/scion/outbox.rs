//! Replies to BEP 15 datagrams, sent many with one system call.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};

use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg, sendto};

/// Replies that are collected at most.
const REPLIES: usize = 64;
/// The largest reply, header included.
const REPLY: usize = 1472;

/// Replies on their way.
#[derive(Debug)]
pub(super) struct Outbox {
    socket: UdpSocket,
    buffers: Box<[[u8; REPLY]]>,
    /// Next hop and length of those that are filled.
    queued: Vec<(SocketAddrAny, usize)>,
}

impl Outbox {
    /// For replies from this socket, which has to be nonblocking.
    pub(super) fn new(socket: &UdpSocket) -> io::Result<Self> {
        Ok(Self {
            socket: socket.try_clone()?,
            buffers: vec![[0; REPLY]; REPLIES].into(),
            queued: Vec::with_capacity(REPLIES),
        })
    }

    /// Lets `write` fill a buffer: it returns length and next hop of a reply, if there is one.
    ///
    /// Returns whether it is time for [`Outbox::send`]: there is no room for another one.
    pub(super) fn collect<E>(
        &mut self,
        write: impl FnOnce(&mut [u8]) -> Result<Option<(usize, SocketAddr)>, E>,
    ) -> Result<bool, E> {
        if let Some(buffer) = self.buffers.get_mut(self.queued.len())
            && let Some((length, next_hop)) = write(buffer)?
        {
            self.queued.push((next_hop.into(), length.min(REPLY)));
        }
        Ok(self.queued.len() == REPLIES)
    }

    /// Sends what is collected. Returns how many of them could not be sent: as with any UDP, a full
    /// socket loses datagrams.
    pub(super) fn send(&mut self) -> usize {
        let failed = match &*self.queued {
            [] => return 0,
            [(next_hop, length)] => {
                let reply = &self.buffers[0][..*length];
                usize::from(sendto(&self.socket, reply, SendFlags::empty(), next_hop).is_err())
            }
            queued => send_all(&self.socket, &self.buffers, queued),
        };
        self.queued.clear();
        failed
    }
}

fn send_all(
    socket: &UdpSocket,
    buffers: &[[u8; REPLY]],
    queued: &[(SocketAddrAny, usize)],
) -> usize {
    let slices: Vec<_> = buffers
        .iter()
        .zip(queued)
        .map(|(buffer, (_, length))| [IoSlice::new(&buffer[..*length])])
        .collect();
    let mut control: [SendAncillaryBuffer<'_, '_, '_>; REPLIES] =
        std::array::from_fn(|_| SendAncillaryBuffer::default());
    let mut headers: Vec<_> = queued
        .iter()
        .zip(&slices)
        .zip(&mut control)
        .map(|(((next_hop, _), slice), control)| MMsgHdr::new_with_addr(next_hop, slice, control))
        .collect();
    let (mut sent, mut failed) = (0, 0);
    while sent < headers.len() {
        match sendmmsg(socket, &mut headers[sent..], SendFlags::empty()) {
            Ok(count) if count > 0 => sent += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return failed + headers.len() - sent,
            // The first of these cannot be sent (no route, for example): leave it out.
            _ => {
                sent += 1;
                failed += 1;
            }
        }
    }
    failed
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use super::*;

    #[test]
    fn replies_go_out_together_and_one_that_cannot_does_not_hold_up_the_others() {
        let loopback = "127.0.0.1:0";
        let (from, to) = (UdpSocket::bind(loopback), UdpSocket::bind(loopback));
        let (from, to) = (from.unwrap(), to.unwrap());
        to.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let there = to.local_addr().unwrap();
        // Of another family than the socket.
        let nowhere = "[::1]:1".parse().unwrap();
        let mut outbox = Outbox::new(&from).unwrap();
        for count in [1, 2, REPLIES] {
            for nth in 0..count {
                let next_hop = if nth == 1 { nowhere } else { there };
                let full = outbox.collect(|buffer| {
                    buffer[0] = nth as u8;
                    Ok::<_, Infallible>(Some((1, next_hop)))
                });
                assert_eq!(full, Ok(nth + 1 == REPLIES));
            }
            assert_eq!(outbox.collect(|_| Ok::<_, ()>(None)), Ok(count == REPLIES));
            assert_eq!(outbox.send(), usize::from(count > 1));
            assert_eq!(outbox.send(), 0);
            for nth in (0..count).filter(|nth| *nth != 1) {
                let mut buffer = [0; 8];
                assert_eq!(to.recv(&mut buffer).unwrap(), 1);
                assert_eq!(usize::from(buffer[0]), nth);
            }
        }
    }
}
