//! Many datagrams a system call: recvmmsg(2) and sendmmsg(2), on buffers that are allocated once.

#![allow(
    unsafe_code,
    reason = "batched system calls; std has only one datagram a call"
)]

pub(crate) mod addressed;

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

/// Datagrams a system call.
pub(crate) const BATCH: usize = 64;
/// Room for one `in6_pktinfo` or `in_pktinfo` control message, aligned by being made of `u64`.
pub(crate) const CONTROL: usize = 8;

/// One direction of a batch: for each datagram a buffer, room for a control message, and a header
/// that points to both. Stays on the thread that made it.
pub(crate) struct Side<const LEN: usize> {
    pub(crate) buffers: Box<[[u8; LEN]]>,
    pub(crate) control: Box<[[u64; CONTROL]]>,
    // Pointed to by `headers`.
    vectors: Box<[libc::iovec]>,
    pub(crate) headers: Box<[libc::mmsghdr]>,
}

impl<const LEN: usize> Side<LEN> {
    /// Headers without a name and with all the room for control messages.
    pub(crate) fn new() -> Self {
        let mut buffers = vec![[0; LEN]; BATCH].into_boxed_slice();
        let mut control = vec![[0; CONTROL]; BATCH].into_boxed_slice();
        let mut vectors: Box<[libc::iovec]> = buffers
            .iter_mut()
            .map(|buffer| libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: LEN,
            })
            .collect();
        let headers = vectors
            .iter_mut()
            .zip(&mut control)
            .map(|(vector, control)| {
                // SAFETY: all zeros is a valid mmsghdr: null pointers and zero lengths.
                let mut header: libc::mmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
                header.msg_hdr.msg_iov = vector;
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_control = control.as_mut_ptr().cast();
                header
            })
            .collect();
        Self {
            buffers,
            control,
            vectors,
            headers,
        }
    }

    /// Takes the datagrams that are there, at least one on a socket that blocks. Returns how many.
    ///
    /// # Safety
    /// Each header has to point to a live buffer, and to a live name and control block or to none,
    /// of the lengths given with them.
    pub(crate) unsafe fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        // SAFETY: what headers point to is the caller's promise; a null timeout is allowed.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// Sends the datagrams from number `from` to before `until`. Returns how many were sent.
    ///
    /// # Safety
    /// As for [`Side::receive`].
    ///
    /// # Panics
    /// If there are not so many.
    pub(crate) unsafe fn send(
        &mut self,
        socket: &UdpSocket,
        from: usize,
        until: usize,
    ) -> io::Result<usize> {
        let headers = &mut self.headers[from..until];
        // SAFETY: what headers point to is the caller's promise.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as libc::c_uint,
                0,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Says how much of a buffer is to be sent.
    pub(crate) fn set_length(&mut self, at: usize, length: usize) {
        // SAFETY: the vector is this side's own, alive as long as it is.
        unsafe { (*self.headers[at].msg_hdr.msg_iov).iov_len = length.min(LEN) };
    }
}

/// Datagrams that came in on a connected socket.
pub(crate) struct Inbox<const LEN: usize>(Side<LEN>);

impl<const LEN: usize> Inbox<LEN> {
    pub(crate) fn new() -> Self {
        let mut side = Side::new();
        for header in &mut side.headers {
            header.msg_hdr.msg_control = std::ptr::null_mut();
        }
        Self(side)
    }

    /// Takes the datagrams that are there. Returns how many, 0 if there are none on a socket that
    /// does not block.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        // SAFETY: the headers point to this side's own buffers, and to no name and control block.
        match unsafe { self.0.receive(socket) } {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    /// A datagram of the last batch; `None` if it is longer than a buffer.
    pub(crate) fn datagram(&self, at: usize) -> Option<&[u8]> {
        let header = &self.0.headers[at];
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        self.0.buffers[at].get(..header.msg_len as usize)
    }
}

/// Datagrams that are to go out on a connected socket.
pub(crate) struct Outbox<const LEN: usize> {
    side: Side<LEN>,
    queued: usize,
}

impl<const LEN: usize> Outbox<LEN> {
    pub(crate) fn new() -> Self {
        let mut side = Side::new();
        for header in &mut side.headers {
            header.msg_hdr.msg_control = std::ptr::null_mut();
        }
        Self { side, queued: 0 }
    }

    /// Datagrams in line.
    pub(crate) const fn len(&self) -> usize {
        self.queued
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.queued == BATCH
    }

    /// Puts a datagram in line; `write` fills the buffer and returns the length.
    ///
    /// # Panics
    /// If the box is full.
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut [u8; LEN]) -> usize) {
        let length = write(&mut self.side.buffers[self.queued]);
        self.side.set_length(self.queued, length);
        self.queued += 1;
    }

    /// Sends what is in line. After an error the rest is dropped, as a network drops.
    pub(crate) fn send(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let queued = std::mem::take(&mut self.queued);
        let mut sent = 0;
        while sent < queued {
            // SAFETY: the headers point to this side's own buffers, and to no name and control block.
            sent += unsafe { self.side.send(socket, sent, queued) }?;
        }
        Ok(())
    }
}

impl<const LEN: usize> fmt::Debug for Inbox<LEN> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

impl<const LEN: usize> fmt::Debug for Outbox<LEN> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
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
        let (mut outbox, mut inbox) = (Outbox::<8>::new(), Inbox::<4>::new());
        assert_eq!(inbox.receive(&two).unwrap(), 0);
        for length in [1, 4, 5] {
            outbox.push(|buffer| {
                buffer.fill(length as u8);
                length
            });
        }
        assert_eq!(outbox.len(), 3);
        outbox.send(&one).unwrap();
        assert_eq!(outbox.len(), 0);
        assert_eq!(inbox.receive(&two).unwrap(), 3);
        assert_eq!(inbox.datagram(0), Some(&[1][..]));
        assert_eq!(inbox.datagram(1), Some(&[4; 4][..]));
        assert_eq!(inbox.datagram(2), None, "longer than a buffer");
        while !outbox.is_full() {
            outbox.push(|_| 0);
        }
        outbox.send(&one).unwrap();
        assert_eq!(inbox.receive(&two).unwrap(), BATCH);
    }
}
