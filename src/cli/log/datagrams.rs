//! Sends lines as datagrams to a Unix socket, for the journal and syslog.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use crate::log::queue::Sink;

/// Sends datagrams. A receiver that starts again at the same path gets the lines that come after.
pub(super) struct Datagrams {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Datagrams {
    /// Fails if nobody receives there.
    pub(super) fn to(path: &Path) -> io::Result<Self> {
        // Tells whether anyone receives, and sends nothing.
        UnixDatagram::unbound()?.connect(path)?;
        Ok(Self {
            socket: UnixDatagram::unbound()?,
            path: path.into(),
        })
    }
}

impl Sink<Vec<u8>> for Datagrams {
    fn write(&mut self, line: Vec<u8>) -> io::Result<()> {
        self.socket.send_to(&line, &self.path)?;
        Ok(())
    }

    fn report_lost(&mut self, lost: u64) {
        super::report_lost(lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_that_starts_again_gets_what_comes_after() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert!(Datagrams::to(&path).is_err());
        let receiver = UnixDatagram::bind(&path).unwrap();
        let mut datagrams = Datagrams::to(&path).unwrap();
        drop(receiver);
        std::fs::remove_file(&path).unwrap();
        assert!(datagrams.write(b"one".into()).is_err());
        let receiver = UnixDatagram::bind(&path).unwrap();
        datagrams.write(b"two".into()).unwrap();
        let mut received = [0; 8];
        assert_eq!(receiver.recv(&mut received).unwrap(), 3);
        assert!(received.starts_with(b"two"));
    }
}
