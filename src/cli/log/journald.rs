//! Encodes lines for the journal of systemd, in its native protocol: a datagram of fields
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::record::Record;

/// Where the journal listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// Whether standard error leads to the journal: systemd then says so in `JOURNAL_STREAM`, as
/// DEVICE:INODE (systemd.exec(5)). It stays set in children whose standard error is another one.
pub(super) fn is_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stderr) = fs::metadata("/proc/self/fd/2") else {
        return false;
    };
    stream == format!("{}:{}", stderr.dev(), stderr.ino()) && Path::new(SOCKET).exists()
}

/// The datagram of one line.
pub(super) fn encode(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    field(&mut out, "MESSAGE", record.text().as_bytes());
    field(
        &mut out,
        "PRIORITY",
        record.severity().to_string().as_bytes(),
    );
    field(&mut out, "SYSLOG_IDENTIFIER", super::IDENTIFIER.as_bytes());
    field(&mut out, "TARGET", record.target.as_bytes());
    if let (Some(file), Some(line)) = (record.file, record.line) {
        field(&mut out, "CODE_FILE", file.as_bytes());
        field(&mut out, "CODE_LINE", line.to_string().as_bytes());
    }
    for (name, value) in &record.fields {
        field(&mut out, &field_name(name), value.as_bytes());
    }
    out
}

/// `NAME=value`, or with a line break in the value: the name, a line break, the length and the value.
fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Names have capital letters, digits and underscores, and begin with a letter. Ours begin with `F_`, so
/// that none is one of the journal's own.
fn field_name(name: &str) -> String {
    let allowed = |c: char| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_uppercase(),
        false => '_',
    };
    "F_".chars()
        .chain(name.chars().map(allowed))
        .take(64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::record::example;
    use super::*;

    #[test]
    fn a_line_is_a_datagram_of_fields() {
        let message =
            "cannot read\nthe \x1b[31mcertificate path=/tls/cert.pem why.not=say \"no\"\\";
        let expected = [
            b"MESSAGE\n",
            &(message.len() as u64).to_le_bytes()[..],
            message.as_bytes(),
            b"\nPRIORITY=4\nSYSLOG_IDENTIFIER=scion-tracker\nTARGET=scion_tracker::tls\n",
            b"CODE_FILE=src/tls.rs\nCODE_LINE=7\nF_PATH=/tls/cert.pem\nF_WHY_NOT=say \"no\"\\\n",
        ];
        assert_eq!(encode(&example()), expected.concat());
    }
}
