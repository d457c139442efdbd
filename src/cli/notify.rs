//! Tells a service manager what the tracker does (sd_notify(3)): a datagram of `NAME=VALUE` lines to the
//! Unix socket that `NOTIFY_SOCKET` names.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};

/// What the tracker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It serves, after the start or a reload.
    Ready,
    /// It reloads its configuration.
    Reloading,
    /// It stops.
    Stopping,
}

/// Notifies the service manager, if there is one.
pub(super) fn notify(state: State) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return;
    };
    if let Err(error) = send(&socket, &message(state)) {
        tracing::warn!(?socket, "cannot notify the service manager: {error}");
    }
}

fn message(state: State) -> String {
    match state {
        State::Ready => "READY=1\n".into(),
        // systemd tells by the time whether the next READY=1 belongs to this reload.
        State::Reloading => {
            let now = clock_gettime(ClockId::Monotonic);
            let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
            format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\n")
        }
        State::Stopping => "STOPPING=1\n".into(),
    }
}

/// Sends to a path, or to the abstract socket of this name if it begins with `@` (unix(7)).
fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let sent = UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
    match sent == message.len() {
        true => Ok(()),
        false => Err(io::ErrorKind::WriteZero.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_abstract_sockets_are_notified() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("scion-tracker-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        for (socket, to) in [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (
                UnixDatagram::bind_addr(&abstract_address).unwrap(),
                format!("@{name}").into(),
            ),
        ] {
            send(&to, &message(State::Ready)).unwrap();
            let mut received = [0; 64];
            let length = socket.recv(&mut received).unwrap();
            assert_eq!(&received[..length], b"READY=1\n");
        }
        let reloading = message(State::Reloading);
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        assert!(time.unwrap().trim_end().parse::<u64>().unwrap() > 0);
        assert!(send(OsStr::new("/nonexistent/notify"), "READY=1\n").is_err());
    }
}
