//! Checks of path policies, of files with host names and of a daemon's replies, for fuzzing and tests.

use std::time::{Duration, SystemTime};

use scion_tracker_core::address::IsdAs;

use super::{Acl, PathInterface, PathStatus, hosts, path};
use crate::scion::daemon;

/// Checks that an error of a policy points into it, and that a policy decides about each interface of
/// a path by itself. The text behind a line break stands for the interfaces.
pub fn path_policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (text, interfaces) = text.split_once('\n').unwrap_or((text, ""));
    let acl = match text.parse::<Acl>() {
        Ok(acl) => acl,
        Err(error) => {
            assert!(
                (1..=text.chars().count() + 1).contains(&error.at),
                "{error}"
            );
            return;
        }
    };
    assert!(acl.allows(&[]));
    let interfaces: Vec<_> = interfaces
        .as_bytes()
        .chunks_exact(4)
        .map(|it| PathInterface {
            ia: IsdAs::from_u64(u64::from(it[0] & 3) << 48 | u64::from(it[1])),
            id: u16::from_be_bytes([it[2] & 1, it[3]]),
        })
        .collect();
    // Pairs, as whether an interface enters or leaves an AS depends on its position.
    let links: Vec<_> = interfaces.chunks(2).map(|link| acl.allows(link)).collect();
    assert_eq!(
        acl.allows(&interfaces),
        links.iter().all(|allowed| *allowed)
    );
}

/// Checks that a name is found in a file exactly as in the lines that have it. The first line is the
/// name.
pub fn hosts_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (name, text) = text.split_once('\n').unwrap_or(("a", &text));
    let found = hosts::find_in(text, name);
    let first =
        text.lines()
            .enumerate()
            .find_map(|(number, line)| match hosts::find_in(line, name) {
                Ok(None) => None,
                Ok(Some(host)) => Some(Ok(host)),
                Err(_) => Some(Err(number + 1)),
            });
    assert_eq!(found, first.transpose());
    if let Ok(Some(host)) = found {
        assert!(!host.ia.is_wildcard());
    }
}

/// Checks that usable paths of a daemon are neither denied nor expired, and that all can be shown.
pub fn daemon_messages(bytes: &[u8]) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let paths = daemon::fuzz::read(bytes);
    let count = paths.len();
    let paths = path::in_order(
        paths,
        std::net::Ipv6Addr::LOCALHOST.into(),
        &Acl::default(),
        now,
    );
    assert_eq!(paths.len(), count);
    for path in paths {
        let expired = path.expiry().is_none_or(|it| it < now);
        assert!(path.status() != PathStatus::Usable || !expired);
        let links = path.interfaces().len() / 2;
        let shown = path.to_string();
        assert_eq!(shown.split_whitespace().count(), links * 2 + links.min(1));
    }
}
