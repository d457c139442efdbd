//! The system calls, on messages that own all that their headers point to.
//!
//! Invariant of both types: a header points to vectors, an address and a control block of this very batch,
//! and a vector to a buffer of it, with lengths that are no longer than these. [`Slots`] keeps such pointers
//! valid, and nothing outside of this file writes them.

use std::io;
use std::net::UdpSocket;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::ptr;

use libc::{iovec, mmsghdr};

use super::BATCH;
use super::address::RawAddr;
use super::control::Control;
use super::slots::Slots;

/// What the kernel is asked for besides the bytes of a datagram.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Nothing: the socket is connected.
    #[cfg(any(test, feature = "cli"))]
    Nothing,
    /// Its source address.
    Source,
    /// Its source address, and the control message with its destination address.
    SourceAndDestination,
}

/// Messages to receive into, one datagram each.
pub(super) struct Incoming<const LEN: usize> {
    buffers: Slots<[u8; LEN]>,
    addresses: Slots<RawAddr>,
    controls: Slots<Control>,
    _vectors: Slots<iovec>,
    headers: Slots<mmsghdr>,
    /// What each header says before a call.
    address_room: libc::socklen_t,
    control_room: usize,
    /// Datagrams of the last batch.
    filled: usize,
}

/// Messages to send, each of one datagram or of several that the kernel cuts.
pub(super) struct Outgoing<const LEN: usize> {
    buffers: Slots<[u8; LEN]>,
    addresses: Slots<RawAddr>,
    controls: Slots<Control>,
    vectors: Slots<iovec>,
    headers: Slots<mmsghdr>,
}

// SAFETY: the pointers in headers and vectors lead to memory that the batch owns and that goes with it.
unsafe impl<const LEN: usize> Send for Incoming<LEN> {}
// SAFETY: as above.
unsafe impl<const LEN: usize> Send for Outgoing<LEN> {}

/// Vectors that point to the buffer of the same number.
fn vectors<const LEN: usize>(buffers: &Slots<[u8; LEN]>) -> Slots<iovec> {
    let mut vectors = Slots::new(iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    });
    for (at, vector) in vectors.iter_mut().enumerate() {
        vector.iov_base = buffers.pointer(at).cast();
        vector.iov_len = LEN;
    }
    vectors
}

/// Headers that point to the vector of the same number, and to nothing else.
fn headers(vectors: &Slots<iovec>) -> Slots<mmsghdr> {
    // SAFETY: all zeros is a valid mmsghdr: null pointers and zero lengths.
    let mut headers: Slots<mmsghdr> = Slots::new(unsafe { std::mem::zeroed() });
    for (at, header) in headers.iter_mut().enumerate() {
        header.msg_hdr.msg_iov = vectors.pointer(at);
        header.msg_hdr.msg_iovlen = 1;
    }
    headers
}

impl<const LEN: usize> Incoming<LEN> {
    pub(super) fn new(ask: Ask) -> Self {
        let buffers = Slots::new([0; LEN]);
        let addresses = Slots::new(RawAddr::NONE);
        let controls = Slots::new(Control::NONE);
        let vectors = vectors(&buffers);
        let mut headers = headers(&vectors);
        let (address_room, control_room) = match ask {
            #[cfg(any(test, feature = "cli"))]
            Ask::Nothing => (0, 0),
            Ask::Source => (RawAddr::ROOM, 0),
            Ask::SourceAndDestination => (RawAddr::ROOM, Control::ROOM),
        };
        for (at, header) in headers.iter_mut().enumerate() {
            if address_room > 0 {
                header.msg_hdr.msg_name = addresses.pointer(at).cast();
                header.msg_hdr.msg_namelen = address_room;
            }
            if control_room > 0 {
                header.msg_hdr.msg_control = controls.pointer(at).cast();
                header.msg_hdr.msg_controllen = control_room as _;
            }
        }
        Self {
            buffers,
            addresses,
            controls,
            _vectors: vectors,
            headers,
            address_room,
            control_room,
            filled: 0,
        }
    }

    /// Takes the datagrams that are there, at least one on a socket that blocks. Returns how many.
    pub(super) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.clear();
        #[cfg(test)]
        if let Some(error) = super::injected::take(socket) {
            return Err(error);
        }
        // SAFETY: there are `BATCH` headers. By the invariant of this file each points to live memory of
        // this batch, of at least the lengths given with it, its own; all of it is borrowed mutably, so
        // nobody else reads or writes it during the call. A null timeout is allowed.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.pointer(0),
                BATCH as libc::c_uint,
                libc::MSG_WAITFORONE,
                ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        self.filled = received.min(BATCH);
        Ok(self.filled)
    }

    /// Forgets the last batch.
    pub(super) fn clear(&mut self) {
        // The kernel has written how long they are.
        for header in &mut self.headers[..self.filled] {
            header.msg_hdr.msg_namelen = self.address_room;
            header.msg_hdr.msg_controllen = self.control_room as _;
        }
        self.filled = 0;
    }

    /// Datagrams of the last batch.
    pub(super) const fn len(&self) -> usize {
        self.filled
    }

    /// A datagram of the last batch; `None` if it is longer than a buffer.
    pub(super) fn datagram(&self, at: usize) -> Option<&[u8]> {
        let header = self.headers[..self.filled].get(at)?;
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        self.buffers[at].get(..header.msg_len as usize)
    }

    /// The source of a datagram, as the kernel has written it.
    pub(super) fn address(&self, at: usize) -> &RawAddr {
        &self.addresses[at]
    }

    /// The control block of a datagram, and its length.
    pub(super) fn control(&self, at: usize) -> (Control, usize) {
        #[allow(clippy::unnecessary_cast, reason = "another type with musl")]
        let length = self.headers[at].msg_hdr.msg_controllen as usize;
        (self.controls[at], length.min(Control::ROOM))
    }
}

impl<const LEN: usize> Outgoing<LEN> {
    pub(super) fn new() -> Self {
        let buffers = Slots::new([0; LEN]);
        let vectors = vectors(&buffers);
        let headers = headers(&vectors);
        Self {
            buffers,
            addresses: Slots::new(RawAddr::NONE),
            controls: Slots::new(Control::NONE),
            vectors,
            headers,
        }
    }

    /// The buffers, by number.
    pub(super) fn buffers(&mut self) -> &mut [[u8; LEN]] {
        &mut self.buffers
    }

    /// Has a vector point to the first `length` bytes of a buffer.
    pub(super) fn set_vector(&mut self, vector: usize, buffer: usize, length: usize) {
        self.vectors[vector] = iovec {
            iov_base: self.buffers.pointer(buffer).cast(),
            iov_len: length.min(LEN),
        };
    }

    /// Makes a message of what these vectors point to. `to` is left out on a connected socket; `control`
    /// is a block with its length.
    pub(super) fn set_message(
        &mut self,
        message: usize,
        vectors: Range<usize>,
        to: Option<&RawAddr>,
        control: Option<(&Control, usize)>,
    ) {
        let parts = &self.vectors[vectors.clone()];
        let header = &mut self.headers[message].msg_hdr;
        header.msg_iovlen = parts.len() as _;
        header.msg_iov = self.vectors.pointer(vectors.start);
        if let Some(to) = to {
            self.addresses[message] = *to;
            header.msg_name = self.addresses.pointer(message).cast();
            header.msg_namelen = to.len();
        } else {
            header.msg_name = ptr::null_mut();
            header.msg_namelen = 0;
        }
        if let Some((control, length)) = control {
            self.controls[message] = *control;
            header.msg_control = self.controls.pointer(message).cast();
            header.msg_controllen = length.min(Control::ROOM) as _;
        } else {
            header.msg_control = ptr::null_mut();
            header.msg_controllen = 0;
        }
    }

    /// Datagrams of a message.
    pub(super) fn datagrams(&self, message: usize) -> usize {
        self.headers[message].msg_hdr.msg_iovlen as _
    }

    /// Sends these messages. Returns how many the kernel has taken.
    ///
    /// # Panics
    /// If there are not so many.
    pub(super) fn send(&mut self, socket: &UdpSocket, messages: Range<usize>) -> io::Result<usize> {
        let count = self.headers[messages.clone()].len();
        if count == 0 {
            return Ok(0);
        }
        // SAFETY: the range is inside the headers, as slicing has checked. By the invariant of this file
        // each points to live memory of this batch, of at least the lengths given with it, which the kernel
        // only reads; it writes `msg_len` of the headers, which are borrowed mutably.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.pointer(messages.start),
                count as libc::c_uint,
                0,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}
