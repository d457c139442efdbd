//! A file that a log is appended to, and that is opened again after logrotate has renamed it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Readable for the owner and its group: a log names clients.
const MODE: u32 = 0o640;

/// Bytes that are written at once while lines keep coming. As many wait while the disk is full.
const CHUNK: usize = 64 << 10;

/// Appends whole lines to a file.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    /// What is not written yet. May begin in the middle of a line.
    buffer: Vec<u8>,
}

impl LogFile {
    /// Opens the file, or creates it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.into(),
            file: open(path)?,
            buffer: Vec::new(),
        })
    }

    /// Goes on with the file that has this name now. If it cannot be opened, with the old one.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        let new = open(&self.path)?;
        // The lines that came before belong to the old file, as far as it takes them.
        let _ = self.flush();
        self.file = new;
        Ok(())
    }

    /// Appends a line, which ends with a line break, to the buffer. Without room the line is lost.
    pub(crate) fn push(&mut self, line: &[u8]) -> io::Result<()> {
        if self.buffer.len() + line.len() > CHUNK {
            self.flush()?;
        }
        self.buffer.extend_from_slice(line);
        Ok(())
    }

    /// Writes the buffer. What the file does not take stays there.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while !self.buffer.is_empty() {
            match self.file.write(&self.buffer) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.buffer.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Also for reading, so that a named pipe opens without waiting for its reader (fifo(7)).
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .read(true)
        .create(true)
        .mode(MODE)
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn append(log: &mut LogFile, line: &[u8]) {
        log.push(line).unwrap();
        log.flush().unwrap();
    }

    #[test]
    fn a_full_disk_keeps_a_bounded_buffer() {
        let mut log = LogFile::open(Path::new("/dev/full")).unwrap();
        let line = [b'x'; 1 << 10];
        let taken = (0..1000).filter(|_| log.push(&line).is_ok()).count();
        assert_eq!(taken, CHUNK / line.len());
        assert!(log.flush().is_err());
        assert_eq!(log.buffer.len(), CHUNK);
    }

    #[test]
    fn a_renamed_file_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let old = dir.path().join("log.1");
        let mut log = LogFile::open(&path).unwrap();
        append(&mut log, b"one\n");
        fs::rename(&path, &old).unwrap();
        append(&mut log, b"two\n");
        log.reopen().unwrap();
        append(&mut log, b"three\n");
        assert_eq!(fs::read_to_string(&old).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        // It appends to what another run has written.
        append(&mut LogFile::open(&path).unwrap(), b"four\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\nfour\n");
        fs::remove_dir_all(dir.path()).unwrap();
        assert!(log.reopen().is_err());
        append(&mut log, b"five\n");
    }
}
