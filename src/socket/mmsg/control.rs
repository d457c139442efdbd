//! Control messages (cmsg(3)), read and written as bytes: one per datagram.

use std::mem::offset_of;
use std::net::Ipv6Addr;

use libc::{cmsghdr, in_pktinfo, in6_pktinfo};

/// The type of `cmsg_len`, which libc does not name.
#[cfg(target_env = "musl")]
type Length = libc::socklen_t;
#[cfg(not(target_env = "musl"))]
type Length = usize;

/// Where the data of a message begins: headers are aligned to a word.
const DATA: usize = size_of::<cmsghdr>().next_multiple_of(size_of::<usize>());
/// Room for one message with an `in6_pktinfo`, the largest.
const ROOM: usize = 64;

/// A block with one control message or none.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control {
    bytes: [u8; ROOM],
}

impl Control {
    /// Bytes of a block.
    pub(super) const ROOM: usize = ROOM;
    /// A block without a message.
    pub(super) const NONE: Self = Self { bytes: [0; ROOM] };

    /// Has the kernel cut a message into datagrams of this length (`UDP_SEGMENT` in udp(7)). Returns the
    /// length of the block, too.
    pub(super) fn segment(length: u16) -> (Self, usize) {
        let mut control = Self::NONE;
        let end = DATA + size_of::<u16>();
        control.put(offset_of!(cmsghdr, cmsg_len), (end as Length).to_ne_bytes());
        control.put(offset_of!(cmsghdr, cmsg_level), libc::SOL_UDP.to_ne_bytes());
        control.put(
            offset_of!(cmsghdr, cmsg_type),
            libc::UDP_SEGMENT.to_ne_bytes(),
        );
        control.put(DATA, length.to_ne_bytes());
        (control, end.next_multiple_of(size_of::<usize>()))
    }

    /// Clears the interface of a packet information message in a block of this length, so that only its
    /// address counts, which the kernel sends from. A link-local address means nothing without its
    /// interface and keeps it.
    pub(super) fn clear_interface(&mut self, length: usize) {
        let level = i32::from_ne_bytes(self.get(offset_of!(cmsghdr, cmsg_level)));
        let kind = i32::from_ne_bytes(self.get(offset_of!(cmsghdr, cmsg_type)));
        let holds = |size| length >= DATA + size;
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if holds(size_of::<in_pktinfo>()) => {
                self.put(DATA + offset_of!(in_pktinfo, ipi_ifindex), [0; 4]);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if holds(size_of::<in6_pktinfo>()) => {
                let address = self.get::<16>(DATA + offset_of!(in6_pktinfo, ipi6_addr));
                if !Ipv6Addr::from(address).is_unicast_link_local() {
                    self.put(DATA + offset_of!(in6_pktinfo, ipi6_ifindex), [0; 4]);
                }
            }
            _ => {}
        }
    }

    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut value = [0; N];
        value.copy_from_slice(&self.bytes[at..at + N]);
        value
    }

    fn put<const N: usize>(&mut self, at: usize, value: [u8; N]) {
        self.bytes[at..at + N].copy_from_slice(&value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the macros of the system find it: level, type, data and its length.
    fn parse(control: &Control, length: usize) -> Option<(i32, i32, Vec<u8>)> {
        // SAFETY: all zeros is a valid msghdr. The macros stay inside the block, whose length is given
        // and which is as aligned as they need.
        unsafe {
            let mut header: libc::msghdr = std::mem::zeroed();
            header.msg_control = std::ptr::from_ref(control).cast_mut().cast();
            header.msg_controllen = length as _;
            let message = libc::CMSG_FIRSTHDR(&raw const header).as_ref()?;
            let empty = libc::CMSG_LEN(0) as usize;
            let data = std::slice::from_raw_parts(
                libc::CMSG_DATA(message),
                message.cmsg_len as usize - empty,
            );
            Some((message.cmsg_level, message.cmsg_type, data.to_vec()))
        }
    }

    /// A block with one message.
    fn block(level: i32, kind: i32, data: &[u8]) -> (Control, usize) {
        let mut control = Control::NONE;
        let end = DATA + data.len();
        control.put(offset_of!(cmsghdr, cmsg_len), (end as Length).to_ne_bytes());
        control.put(offset_of!(cmsghdr, cmsg_level), level.to_ne_bytes());
        control.put(offset_of!(cmsghdr, cmsg_type), kind.to_ne_bytes());
        control.bytes[DATA..end].copy_from_slice(data);
        (control, end.next_multiple_of(8))
    }

    #[test]
    fn a_segment_length_is_written_as_the_system_reads_it() {
        let (control, length) = Control::segment(1234);
        let expected = (
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            1234_u16.to_ne_bytes().to_vec(),
        );
        assert_eq!(parse(&control, length), Some(expected));
        // SAFETY: the macro computes a number.
        let space = unsafe { libc::CMSG_SPACE(2) };
        assert_eq!(length, space as usize);
    }

    #[test]
    fn the_interface_goes_and_the_address_stays() {
        let v4 = [7, 0, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        let v6 = |first: u8, second: u8| {
            let mut data = [9; 20];
            data[..2].copy_from_slice(&[first, second]);
            data[16..].copy_from_slice(&[7, 0, 0, 0]);
            data
        };
        let cleared = |data: &[u8], at: usize| {
            let mut data = data.to_vec();
            data[at..at + 4].fill(0);
            data
        };
        let (ip, ipv6) = (libc::IPPROTO_IP, libc::IPPROTO_IPV6);
        let (info4, info6) = (libc::IP_PKTINFO, libc::IPV6_PKTINFO);
        for (level, kind, before, after) in [
            (ip, info4, v4.to_vec(), cleared(&v4, 0)),
            (ipv6, info6, v6(0x20, 1).to_vec(), cleared(&v6(0x20, 1), 16)),
            (
                ipv6,
                info6,
                v6(0xfe, 0x80).to_vec(),
                v6(0xfe, 0x80).to_vec(),
            ),
            (ip, libc::IP_TOS, v4.to_vec(), v4.to_vec()),
        ] {
            let (mut control, length) = block(level, kind, &before);
            control.clear_interface(length);
            assert_eq!(parse(&control, length), Some((level, kind, after)));
        }
    }

    #[test]
    fn a_truncated_message_is_left_alone() {
        let (whole, length) = block(libc::IPPROTO_IP, libc::IP_PKTINFO, &[1; 12]);
        for length in 0..length - 4 {
            let mut control = whole;
            control.clear_interface(length);
            assert_eq!(control.bytes, whole.bytes, "{length}");
        }
    }
}
