//! Replaces files in the data directory atomically, and removes what was left when the tracker was killed
//! meanwhile.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

/// How names of files begin that are not complete. Random characters follow.
const NEW: &str = ".scion-tracker-new-";
/// A file that is not complete after this time never will be: to write one takes milliseconds.
const STALE: Duration = Duration::from_secs(60);

/// Replaces a file atomically by one with this text and mode. It is on the disk when this returns.
pub(crate) fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(NEW)
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Removes files of [`replace`] that were never completed. Other trackers may use the directory, so those that
/// are new stay.
pub(crate) fn remove_stale(directory: &Path) {
    // The directory may not be there yet.
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    let is_ours = |entry: &fs::DirEntry| {
        entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(NEW.as_bytes())
    };
    for entry in entries.flatten().filter(is_ours) {
        let modified = entry.metadata().and_then(|it| it.modified());
        let age = modified.ok().and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age >= STALE)
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::debug!("cannot remove {}: {error}", entry.path().display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for (text, mode) in [("one", 0o644), ("two", 0o600)] {
            replace(&path, text, mode).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            let permissions = path.metadata().unwrap().permissions();
            assert_eq!(permissions.mode() & 0o777, mode);
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn only_old_files_of_ours_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let made = |name: &str, age: u64| {
            let file = File::create(path.join(name)).unwrap();
            let at = SystemTime::now() - Duration::from_secs(age);
            file.set_modified(at).unwrap();
        };
        made(".scion-tracker-new-old", 120);
        made(".scion-tracker-new-now", 0);
        made(".tmpABCDEF", 120);
        made("records.db", 120);
        remove_stale(path);
        remove_stale(&path.join("missing"));
        let names = fs::read_dir(path)
            .unwrap()
            .map(|it| it.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert_eq!(
            names,
            [".scion-tracker-new-now", ".tmpABCDEF", "records.db"]
        );
    }
}
