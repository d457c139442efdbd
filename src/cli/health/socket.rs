//! Asks a tracker on this host whether all its parts are ready, through its admin socket.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;

const REQUEST: &[u8] =
    b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
/// Most bytes of an answer.
const ANSWER: u64 = 1 << 20;

/// The answer: see [`crate::admin`].
#[derive(Debug, Deserialize)]
struct Answer {
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
struct Check {
    part: String,
    name: String,
    ready: bool,
    reason: Option<String>,
}

/// Fails if a part is not ready. Returns whether somebody listens on the socket.
pub(super) fn check(socket: &Path, timeout: Duration) -> anyhow::Result<bool> {
    let Ok(stream) = UnixStream::connect(socket) else {
        return Ok(false);
    };
    let answer = ask(&stream, timeout).context("the admin socket does not answer")?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the admin socket answers something that is no HTTP")?;
    let answer: Answer = serde_json::from_str(body).with_context(|| {
        let status = head.lines().next().unwrap_or_default();
        format!("the admin socket answers {status:?}, not whether the tracker is ready")
    })?;
    let parts = answer.checks.into_iter().filter(|check| !check.ready);
    let parts = parts.map(|check| {
        let Check {
            part, name, reason, ..
        } = check;
        let which = format!("{part} {name}");
        format!("{}: {}", which.trim_end(), reason.unwrap_or_default())
    });
    match parts.collect::<Vec<_>>() {
        not_ready if not_ready.is_empty() => Ok(true),
        not_ready => bail!("the tracker is not ready: {}", not_ready.join("; ")),
    }
}

fn ask(mut stream: &UnixStream, timeout: Duration) -> io::Result<String> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(REQUEST)?;
    let mut answer = String::new();
    stream.take(ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// What the command says about this answer.
    fn said(answer: &'static str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; REQUEST.len()];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let checked = check(&path, Duration::from_secs(10));
        server.join().unwrap();
        match checked {
            Ok(listens) => listens.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_not_ready_is_said() {
        assert_eq!(
            said(
                "HTTP/1.1 200 OK\r\n\r\n{\"status\":\"ready\",\"checks\":[{\"part\":\"records\",\"name\":\"sqlite\",\"ready\":true}]}"
            ),
            "true"
        );
        assert_eq!(
            said(
                "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"checks\":[{\"part\":\"records\",\"name\":\"sqlite\",\"ready\":false,\"reason\":\"full\"}]}"
            ),
            "the tracker is not ready: records sqlite: full"
        );
        assert_eq!(
            said("HTTP/1.1 404 Not Found\r\n\r\n"),
            "the admin socket answers \"HTTP/1.1 404 Not Found\", not whether the tracker is ready"
        );
        assert_eq!(
            said("no"),
            "the admin socket answers something that is no HTTP"
        );
        let nowhere = Path::new("/nonexistent/admin.sock");
        assert!(!check(nowhere, Duration::from_secs(10)).unwrap());
    }
}
