//! Sockets that a service manager has bound for the tracker (sd_listen_fds(3)): it can bind low ports, and
//! clients wait in the sockets while the tracker starts again.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use socket2::{Socket, Type};

/// The descriptor of the first socket (SD_LISTEN_FDS_START).
const FIRST: RawFd = 3;
/// Sockets that are taken over at most.
const MOST: RawFd = 256;

/// Sockets that nobody has claimed yet.
static WAITING: Mutex<Vec<Waiting>> = Mutex::new(Vec::new());
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

#[derive(Debug)]
struct Waiting {
    address: SocketAddr,
    kind: Type,
    socket: Socket,
}

/// A socket that was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inherited {
    /// Its `FileDescriptorName=`, or the name of its unit.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

/// What the environment says about sockets.
#[derive(Debug, Default)]
struct Variables {
    pid: Option<OsString>,
    count: Option<OsString>,
    names: Option<OsString>,
}

impl Variables {
    /// Names of the descriptors, in their order. None if they are for another process.
    fn names(self, process: u32) -> Result<Vec<String>, String> {
        let text = |value: Option<OsString>| value.and_then(|value| value.into_string().ok());
        let Some(pid) = text(self.pid) else {
            return Ok(Vec::new());
        };
        if pid != process.to_string() {
            return Ok(Vec::new());
        }
        let count = text(self.count).unwrap_or_default();
        let count: RawFd = count
            .parse()
            .ok()
            .filter(|count| (0..=MOST).contains(count))
            .ok_or_else(|| {
                format!("LISTEN_FDS={count:?} is not a number of up to {MOST} sockets")
            })?;
        let names = text(self.names).unwrap_or_default();
        let mut names = names.split(':').map(ToOwned::to_owned);
        let next = |_| names.next().unwrap_or_default();
        Ok((0..count).map(next).collect())
    }
}

/// Takes over the sockets that the environment names. [`claim`] hands them to the listeners. The first
/// call takes them; later ones find none.
pub(crate) fn take() -> io::Result<Vec<Inherited>> {
    if IS_TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let variables = Variables {
        pid: std::env::var_os("LISTEN_PID"),
        count: std::env::var_os("LISTEN_FDS"),
        names: std::env::var_os("LISTEN_FDNAMES"),
    };
    let names = variables
        .names(std::process::id())
        .map_err(io::Error::other)?;
    let mut taken = Vec::new();
    for (fd, name) in (FIRST..).zip(names) {
        // SAFETY: the service manager opened these descriptors for this process (LISTEN_PID says so), and
        // this is the only place that takes them, once.
        let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let inherited = adopt(&name, socket).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("the socket {name:?} of the service manager (descriptor {fd}): {error}"),
            )
        })?;
        taken.push(inherited);
    }
    Ok(taken)
}

fn adopt(name: &str, socket: Socket) -> io::Result<Inherited> {
    socket.set_cloexec(true)?;
    let kind = socket.r#type()?;
    let address = socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("expected a socket on an IP address"))?;
    WAITING.lock().push(Waiting {
        address,
        kind,
        socket,
    });
    Ok(Inherited {
        name: name.to_owned(),
        address,
    })
}

/// The sockets of this type at this address, each handed out once.
pub(super) fn claim(kind: Type, address: SocketAddr) -> Vec<Socket> {
    let mut waiting = WAITING.lock();
    let is_it = |it: &mut Waiting| it.kind == kind && it.address == address;
    waiting.extract_if(.., is_it).map(|it| it.socket).collect()
}

/// Addresses of sockets that no listener has claimed.
pub(crate) fn unclaimed() -> Vec<SocketAddr> {
    WAITING.lock().iter().map(|it| it.address).collect()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn names(pid: &str, count: &str, names: &str) -> Result<Vec<String>, String> {
        let variables = Variables {
            pid: Some(pid.into()),
            count: Some(count.into()),
            names: Some(names.into()),
        };
        variables.names(7)
    }

    #[test]
    fn only_sockets_for_this_process_are_taken() {
        assert_eq!(Variables::default().names(7), Ok(vec![]));
        assert_eq!(names("8", "1", "http"), Ok(vec![]));
        assert_eq!(
            names("7", "2", "http:udp"),
            Ok(vec!["http".into(), "udp".into()])
        );
        assert_eq!(
            names("7", "2", "http"),
            Ok(vec!["http".into(), String::new()])
        );
        for bad in ["", "-1", "257", "x"] {
            assert!(names("7", bad, "").is_err(), "{bad}");
        }
    }

    #[test]
    fn a_socket_is_claimed_once_by_its_type_and_address() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let inherited = adopt("udp", socket.into()).unwrap();
        assert_eq!(inherited.address, address);
        assert!(unclaimed().contains(&address));
        assert!(claim(Type::STREAM, address).is_empty());
        assert_eq!(claim(Type::DGRAM, address).len(), 1);
        assert!(claim(Type::DGRAM, address).is_empty());
        assert!(!unclaimed().contains(&address));
    }
}
