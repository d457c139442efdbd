//! Looks up the names of SCION hosts in `/etc/scion/hosts`, in the format of scion-apps.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::Path;

use scion_tracker_core::address::{Host, IsdAs};

use super::ScionError;

/// Most bytes of the file that are read.
const MAX_FILE: u64 = 1 << 20;

/// Finds the host with this name. A missing file has no names.
pub(super) fn find(file: &Path, name: &str) -> Result<Option<Host>, ScionError> {
    let failed = |source| ScionError::Hosts {
        path: file.into(),
        source,
    };
    let mut text = Vec::new();
    match File::open(file) {
        Ok(file) => file.take(MAX_FILE).read_to_end(&mut text).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    match find_in(&String::from_utf8_lossy(&text), name) {
        Ok(found) => Ok(found),
        Err(line) => Err(ScionError::HostsLine {
            path: file.into(),
            line,
        }),
    }
}

/// Finds a name in lines of the form `ISD-AS,[ip] name name...`. A `#` starts a comment. The first
/// line with the name counts. Invalid lines are skipped, except a line with the name: its number,
/// from 1, is the error.
pub(super) fn find_in(text: &str, name: &str) -> Result<Option<Host>, usize> {
    for (number, line) in text.lines().enumerate() {
        let line = line.split_once('#').map_or(line, |(front, _)| front);
        let mut words = line.split_whitespace();
        let address = words.next();
        if !words.any(|word| word.eq_ignore_ascii_case(name)) {
            continue;
        }
        return address.and_then(read_host).map(Some).ok_or(number + 1);
    }
    Ok(None)
}

fn read_host(text: &str) -> Option<Host> {
    let (ia, ip) = text.split_once(',')?;
    let ip = ip
        .strip_prefix('[')
        .map_or(Some(ip), |ip| ip.strip_suffix(']'))?;
    let ip: IpAddr = ip.parse().ok()?;
    Some(Host::new(IsdAs::parse_place(ia).ok()?, ip))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const FILE: &str = "\
# The hosts of a lab.
1-ff00:0:110,[10.0.0.1] tracker.lab Tracker  # tracker2.lab
1-ff00:0:111,[fd00::1]\ttracker6.lab tracker.lab
2-ff00:0:210,10.0.0.3 plain.lab
nonsense
19-ffaa:1:c3f,[10.0.0.4 broken.lab
0-0,[10.0.0.5] nowhere.lab
";

    #[test]
    fn names_lead_to_hosts() {
        for (name, found) in [
            ("tracker.lab", Some("1-ff00:0:110,10.0.0.1")),
            ("TRACKER", Some("1-ff00:0:110,10.0.0.1")),
            ("tracker6.lab", Some("1-ff00:0:111,[fd00::1]")),
            ("plain.lab", Some("2-ff00:0:210,10.0.0.3")),
            ("tracker2.lab", None),
            ("1-ff00:0:110,[10.0.0.1]", None),
            ("", None),
        ] {
            let host = find_in(FILE, name).unwrap().map(|host| host.to_string());
            assert_eq!(host.as_deref(), found, "{name}");
        }
        assert_eq!(find_in(FILE, "broken.lab"), Err(6));
        assert_eq!(find_in(FILE, "nowhere.lab"), Err(7));
    }

    #[test]
    fn a_file_may_be_missing_but_not_unreadable() {
        assert_eq!(find(Path::new("/nonexistent/hosts"), "a").unwrap(), None);
        let error = find(Path::new("/"), "a").unwrap_err();
        assert!(matches!(error, ScionError::Hosts { .. }), "{error:?}");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"\xff\n1-ff00:0:110,[10.0.0.1] a\nx b")
            .unwrap();
        assert!(find(file.path(), "a").unwrap().is_some());
        let error = find(file.path(), "b").unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
    }
}
