//! Encodes lines for syslog, as defined by RFC 5424.

use std::fmt::Write as _;
use std::time::SystemTime;

use super::super::visible::visible;
use super::record::Record;
use crate::config::Facility;

/// Where syslog listens.
pub(super) const SOCKET: &str = "/dev/log";

/// What stands in every line.
pub(super) struct Header {
    facility: Facility,
    host: String,
    process: u32,
}

impl Header {
    pub(super) fn new(facility: Facility) -> Self {
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        // Printable ASCII, at most 255 characters; a dash for none.
        let host: String = host
            .chars()
            .filter(char::is_ascii_graphic)
            .take(255)
            .collect();
        Self {
            facility,
            host: if host.is_empty() { "-".into() } else { host },
            process: std::process::id(),
        }
    }

    /// The datagram of one line: `<PRI>1 TIME HOST NAME PROCESS - - MESSAGE field="value"`. The fields are
    /// in the message, because structured data needs an enterprise number.
    pub(super) fn encode(&self, record: &Record, now: SystemTime) -> Vec<u8> {
        let Self {
            facility,
            host,
            process,
        } = self;
        let priority = facility.number() * 8 + record.severity();
        let time = humantime::format_rfc3339_micros(now);
        let mut line = format!(
            "<{priority}>1 {time} {host} {} {process} - - {}: {}",
            super::IDENTIFIER,
            record.target,
            visible(&record.message)
        );
        for (name, value) in &record.fields {
            // Writing to a String cannot fail.
            let _ = write!(line, " {name}={}", visible(value));
        }
        line.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::record::example;
    use super::*;

    #[test]
    fn a_line_is_one_of_rfc_5424() {
        let mut header = Header::new("local3".parse().unwrap());
        assert!(!header.host.is_empty());
        header.host = "host".into();
        header.process = 7;
        let now = UNIX_EPOCH + Duration::from_micros(1_796_000_000_123_456);
        assert_eq!(
            String::from_utf8(header.encode(&example(), now)).unwrap(),
            "<156>1 2026-11-30T00:53:20.123456Z host scion-tracker 7 - - scion_tracker::tls: cannot read\\nthe \\u{1b}[31mcertificate path=/tls/cert.pem why.not=say \"no\"\\"
        );
    }
}
