//! Socket addresses as the kernel has them: `sockaddr_in` and `sockaddr_in6`, read and written as bytes.

use std::mem::offset_of;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use libc::{sockaddr_in, sockaddr_in6};

/// An IPv4 or IPv6 socket address in the kernel's form, or zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(8))]
pub(super) struct RawAddr([u8; Self::SIZE]);

impl RawAddr {
    /// The larger of the two forms.
    const SIZE: usize = size_of::<sockaddr_in6>();
    /// Room for either.
    pub(super) const ROOM: libc::socklen_t = Self::SIZE as libc::socklen_t;
    /// Of no family.
    pub(super) const NONE: Self = Self([0; Self::SIZE]);

    /// Bytes of the address.
    pub(super) fn len(&self) -> libc::socklen_t {
        match self.family() {
            libc::AF_INET => size_of::<sockaddr_in>() as libc::socklen_t,
            _ => Self::ROOM,
        }
    }

    /// The address; `None` if it is of another family.
    pub(super) fn decode(&self) -> Option<SocketAddr> {
        match self.family() {
            libc::AF_INET => {
                let ip = Ipv4Addr::from(self.get::<4>(offset_of!(sockaddr_in, sin_addr)));
                let port = self.get(offset_of!(sockaddr_in, sin_port));
                Some((ip, u16::from_be_bytes(port)).into())
            }
            libc::AF_INET6 => {
                let ip = Ipv6Addr::from(self.get::<16>(offset_of!(sockaddr_in6, sin6_addr)));
                let port = self.get(offset_of!(sockaddr_in6, sin6_port));
                let scope = self.get(offset_of!(sockaddr_in6, sin6_scope_id));
                let (port, scope) = (u16::from_be_bytes(port), u32::from_ne_bytes(scope));
                Some(SocketAddrV6::new(ip, port, 0, scope).into())
            }
            _ => None,
        }
    }

    fn family(&self) -> libc::c_int {
        const { assert!(offset_of!(sockaddr_in, sin_family) == offset_of!(sockaddr_in6, sin6_family)) };
        let family = self.get(offset_of!(sockaddr_in, sin_family));
        libc::sa_family_t::from_ne_bytes(family).into()
    }

    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut value = [0; N];
        value.copy_from_slice(&self.0[at..at + N]);
        value
    }

    fn put<const N: usize>(&mut self, at: usize, value: [u8; N]) {
        self.0[at..at + N].copy_from_slice(&value);
    }
}

impl From<SocketAddr> for RawAddr {
    fn from(addr: SocketAddr) -> Self {
        let mut raw = Self::NONE;
        let family = |family: libc::c_int| (family as libc::sa_family_t).to_ne_bytes();
        match addr {
            SocketAddr::V4(addr) => {
                raw.put(offset_of!(sockaddr_in, sin_family), family(libc::AF_INET));
                raw.put(offset_of!(sockaddr_in, sin_port), addr.port().to_be_bytes());
                raw.put(offset_of!(sockaddr_in, sin_addr), addr.ip().octets());
            }
            SocketAddr::V6(addr) => {
                let scope = addr.scope_id().to_ne_bytes();
                raw.put(
                    offset_of!(sockaddr_in6, sin6_family),
                    family(libc::AF_INET6),
                );
                raw.put(
                    offset_of!(sockaddr_in6, sin6_port),
                    addr.port().to_be_bytes(),
                );
                raw.put(offset_of!(sockaddr_in6, sin6_addr), addr.ip().octets());
                raw.put(offset_of!(sockaddr_in6, sin6_scope_id), scope);
            }
        }
        raw
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockAddr;

    use super::*;

    #[test]
    fn addresses_have_the_form_of_the_system() {
        for (text, scope) in [
            ("192.0.2.1:6969", 0),
            ("0.0.0.0:0", 0),
            ("[2001:db8::7]:65535", 0),
            ("[::ffff:192.0.2.1]:1", 0),
            ("[fe80::1]:80", 3),
        ] {
            let mut addr: SocketAddr = text.parse().unwrap();
            if let SocketAddr::V6(addr) = &mut addr {
                addr.set_scope_id(scope);
            }
            let raw = RawAddr::from(addr);
            assert_eq!(raw.decode(), Some(addr), "{text}");
            let theirs = SockAddr::from(addr);
            assert_eq!(raw.len(), theirs.len(), "{text}");
            let length = theirs.len() as usize;
            // SAFETY: the pointer is to the storage of `theirs`, of which `length` bytes are the address.
            let theirs =
                unsafe { std::slice::from_raw_parts(theirs.as_ptr().cast::<u8>(), length) };
            assert_eq!(raw.0[..length], *theirs, "{text}");
        }
    }

    #[test]
    fn other_families_are_no_address() {
        assert_eq!(RawAddr::NONE.decode(), None);
        let mut unix = RawAddr::NONE;
        unix.put(0, (libc::AF_UNIX as libc::sa_family_t).to_ne_bytes());
        assert_eq!(unix.decode(), None);
        assert_eq!(unix.len(), RawAddr::ROOM);
    }
}
