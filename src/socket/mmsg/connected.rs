//! Batches on a connected socket.

use std::fmt;
use std::io;
use std::net::UdpSocket;

use super::BATCH;
use super::messages::{Ask, Incoming, Outgoing};

/// Receives batches of datagrams of at most `LEN` bytes.
pub(crate) struct ConnectedReceiver<const LEN: usize>(Incoming<LEN>);

impl<const LEN: usize> ConnectedReceiver<LEN> {
    pub(crate) fn new() -> Self {
        Self(Incoming::new(Ask::Nothing))
    }

    /// Takes the datagrams that are there. Returns how many, 0 if there are none on a socket that
    /// does not block.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        match self.0.receive(socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    /// A datagram of the last batch; `None` if it is longer than a buffer.
    pub(crate) fn datagram(&self, at: usize) -> Option<&[u8]> {
        self.0.datagram(at)
    }
}

/// Sends batches of datagrams of at most `LEN` bytes.
pub(crate) struct ConnectedSender<const LEN: usize> {
    messages: Outgoing<LEN>,
    queued: usize,
}

impl<const LEN: usize> ConnectedSender<LEN> {
    pub(crate) fn new() -> Self {
        Self {
            messages: Outgoing::new(),
            queued: 0,
        }
    }

    /// Number of queued datagrams.
    pub(crate) const fn len(&self) -> usize {
        self.queued
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.queued == BATCH
    }

    /// Queues a datagram; `write` fills the buffer and returns the length.
    ///
    /// # Panics
    /// If the batch is full.
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut [u8; LEN]) -> usize) {
        let at = self.queued;
        let length = write(&mut self.messages.buffers()[at]);
        self.messages.set_vector(at, at, length);
        self.queued += 1;
    }

    /// Sends the queued datagrams. After an error the rest is dropped, as a network drops.
    pub(crate) fn send(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let queued = std::mem::take(&mut self.queued);
        let mut sent = 0;
        while sent < queued {
            sent += self.messages.send(socket, sent..queued)?;
        }
        Ok(())
    }
}

impl<const LEN: usize> fmt::Debug for ConnectedReceiver<LEN> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectedReceiver").finish_non_exhaustive()
    }
}

impl<const LEN: usize> fmt::Debug for ConnectedSender<LEN> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectedSender")
            .field("queued", &self.queued)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_go_and_come_in_order() {
        let one = UdpSocket::bind("127.0.0.1:0").unwrap();
        let two = UdpSocket::bind("127.0.0.1:0").unwrap();
        one.connect(two.local_addr().unwrap()).unwrap();
        two.connect(one.local_addr().unwrap()).unwrap();
        two.set_nonblocking(true).unwrap();
        let (mut sender, mut receiver) =
            (ConnectedSender::<8>::new(), ConnectedReceiver::<4>::new());
        assert_eq!(receiver.receive(&two).unwrap(), 0);
        for length in [1, 4, 5] {
            sender.push(|buffer| {
                buffer.fill(length as u8);
                length
            });
        }
        assert_eq!(sender.len(), 3);
        sender.send(&one).unwrap();
        assert_eq!(sender.len(), 0);
        assert_eq!(receiver.receive(&two).unwrap(), 3);
        assert_eq!(receiver.datagram(0), Some(&[1][..]));
        assert_eq!(receiver.datagram(1), Some(&[4; 4][..]));
        assert_eq!(receiver.datagram(2), None, "longer than a buffer");
        assert_eq!(receiver.datagram(3), None, "not of this batch");
        while !sender.is_full() {
            sender.push(|_| 0);
        }
        sender.send(&one).unwrap();
        assert_eq!(receiver.receive(&two).unwrap(), BATCH);
    }
}
