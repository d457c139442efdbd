//! BEP 15 without a tracker: requests are answered in place, by their action and length alone.

#![allow(
    unsafe_code,
    reason = "batched system calls; std has only one datagram a call"
)]

use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use crate::PEERS;

/// Datagrams a system call.
const BATCH: usize = 64;
/// The largest datagram.
const LEN: usize = 2048;

/// Bytes of requests that wait, as far as the kernel lets us.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Answers until the socket fails.
pub(crate) fn run(address: SocketAddr) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(address)?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
    let mut buffers = vec![[0_u8; LEN]; BATCH];
    // SAFETY: all zeros is a valid sockaddr_storage, of no family.
    let mut names =
        vec![unsafe { MaybeUninit::<libc::sockaddr_storage>::zeroed().assume_init() }; BATCH];
    let mut vectors: Vec<_> = buffers
        .iter_mut()
        .map(|buffer| libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: LEN,
        })
        .collect();
    // SAFETY: all zeros is a valid mmsghdr: null pointers and zero lengths.
    let mut headers = vec![unsafe { MaybeUninit::<libc::mmsghdr>::zeroed().assume_init() }; BATCH];
    for ((header, vector), name) in headers.iter_mut().zip(&mut vectors).zip(&mut names) {
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
    }
    loop {
        for (header, vector) in headers.iter_mut().zip(&mut vectors) {
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            vector.iov_len = LEN;
        }
        // SAFETY: each header points to a live vector and name, each vector to a live buffer, of the
        // lengths given with them; a null timeout is allowed.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        let Ok(received) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::Interrupted => continue,
                _ => return Err(error.into()),
            }
        };
        let mut queued = 0;
        for at in 0..received {
            let length = (headers[at].msg_len as usize).min(LEN);
            let reply = answer(&mut buffers[at], length);
            if reply > 0 {
                vectors[at].iov_len = reply;
                headers.swap(queued, at);
                queued += 1;
            }
        }
        let mut sent = 0;
        while sent < queued {
            // SAFETY: as above; only lengths have changed, and the order of the headers.
            let count = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr().add(sent),
                    (queued - sent) as libc::c_uint,
                    0,
                )
            };
            // What cannot be sent is lost.
            sent += usize::try_from(count).unwrap_or(1).max(1);
        }
    }
}

/// Turns a request into its reply, in place. Returns its length, 0 for no reply.
fn answer(buffer: &mut [u8; LEN], length: usize) -> usize {
    if length < 16 {
        return 0;
    }
    let mut action = [0; 4];
    action.copy_from_slice(&buffer[8..12]);
    let (reply, written) = match u32::from_be_bytes(action) {
        // A connection id that is the same for all.
        0 => (16, &[7; 8][..]),
        1 if length >= 98 => {
            let wanted = i32::from_be_bytes([buffer[92], buffer[93], buffer[94], buffer[95]]);
            let peers = usize::try_from(wanted).unwrap_or(PEERS).min(PEERS);
            // Interval, leechers, seeders; the peers are what the buffer holds.
            (20 + 6 * peers, &[0, 0, 7, 8, 0, 0, 0, 9, 0, 0, 0, 9][..])
        }
        2 => (8 + 12 * ((length - 16) / 20), &[][..]),
        _ => return 0,
    };
    buffer.copy_within(8..16, 0);
    buffer[8..8 + written.len()].copy_from_slice(written);
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(action: u8, length: usize) -> [u8; LEN] {
        let mut buffer = [0; LEN];
        buffer[11] = action;
        buffer[12..16].copy_from_slice(b"tran");
        buffer[92..96].copy_from_slice(&if length == 98 { 5_i32 } else { -1 }.to_be_bytes());
        buffer
    }

    #[test]
    fn replies_look_like_those_of_a_tracker() {
        for (action, length, reply) in [
            (0, 16, 16),
            (1, 98, 50),
            (1, 110, 200),
            (2, 36, 20),
            (2, 56, 32),
        ] {
            let mut buffer = request(action, length);
            assert_eq!(answer(&mut buffer, length), reply);
            assert_eq!(&buffer[..8], [&[0, 0, 0, action], &b"tran"[..]].concat());
        }
        for (action, length) in [(0, 15), (1, 97), (3, 100)] {
            assert_eq!(answer(&mut request(action, length), length), 0);
        }
    }
}
