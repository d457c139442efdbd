//! The file of a SQLite database: its mode, who can read it, and whether it is still where it was.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::RecordsError;

/// A file, which must stay where it was at the start. What is committed to one that was moved away is not there
/// after a restart, and one that took its place has other records than those in force.
#[derive(Debug)]
pub(super) struct TheFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl TheFile {
    /// Creates a file that only its owner can read, and the directory around it. A file that is there stays, with
    /// its mode.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        if let Some(directory) = directory(path) {
            fs::create_dir_all(directory)?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let metadata = options.open(path)?.metadata()?;
        Ok(Self {
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
        })
    }

    /// Checks that the file is still where it was at the start.
    pub(super) fn check(&self) -> Result<(), RecordsError> {
        let path = self.path.display();
        let reason = match fs::metadata(&self.path) {
            Ok(it) if (it.dev(), it.ino()) == self.identity => return Ok(()),
            Ok(_) => {
                format!("another file has replaced {path}: start the tracker again to read it")
            }
            Err(error) => format!("{path} was moved away: {error}"),
        };
        Err(RecordsError::Unreachable(reason))
    }

    /// Warns if every user of the host can read the file: records have passkeys.
    pub(super) fn warn_if_public(&self) {
        // An error is that of a file that was moved away: see `check`.
        if is_public(&self.path).unwrap_or(false) {
            tracing::warn!(
                "every user of this host can read the records in {path}, and so all passkeys: run chmod o-rwx {path}*",
                path = self.path.display()
            );
        }
    }
}

/// Whether the modes of a file and of its directory let every user of the host read it. Directories further up
/// are not looked at.
fn is_public(path: &Path) -> io::Result<bool> {
    let directory = directory(path).unwrap_or_else(|| Path::new("."));
    Ok(fs::metadata(path)?.mode() & 0o004 != 0 && fs::metadata(directory)?.mode() & 0o001 != 0)
}

/// The directory that a path names, if it names one.
fn directory(path: &Path) -> Option<&Path> {
    path.parent().filter(|it| !it.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_public_if_others_can_read_it_and_enter_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/records.db");
        TheFile::create(&path).unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
        for (directory_mode, file_mode, expected) in [
            (0o755, 0o600, false),
            (0o755, 0o640, false),
            (0o755, 0o642, false),
            (0o755, 0o644, true),
            (0o711, 0o604, true),
            (0o750, 0o644, false),
            (0o700, 0o666, false),
        ] {
            set(&path, file_mode).unwrap();
            set(path.parent().unwrap(), directory_mode).unwrap();
            assert_eq!(
                is_public(&path).unwrap(),
                expected,
                "{directory_mode:o} {file_mode:o}"
            );
        }
        assert!(is_public(&path.with_extension("gone")).is_err());
    }

    #[test]
    fn a_new_file_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records.db");
        TheFile::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
}
