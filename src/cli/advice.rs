//! Says in plain words what a failed request to a tracker usually means: wrong port, wrong protocol,
//! a flag that is missing.

use std::io;

use scion_tracker_core::codec::reply::ReplyError;

use crate::client::{DaemonError, RequestError, Scheme, ScionError, TrackerUrl};

/// The usual cause of the error, or the flag that helps. `None` if the error says it all.
pub(super) fn advice(error: &RequestError, url: &TrackerUrl) -> Option<String> {
    if error.is_of_unknown_authority() {
        let flags = "trust another authority with --ca FILE, or any certificate with --insecure";
        return Some(flags.to_owned());
    }
    let port = url.port();
    let over_udp = matches!(url.scheme(), Scheme::Udp | Scheme::H3);
    match error {
        RequestError::Io { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
            Some(match over_udp {
                true => format!("nothing listens on UDP port {port} there"),
                false => format!("nothing listens on TCP port {port} there"),
            })
        }
        RequestError::Io { source, .. } if url.scheme() == Scheme::Https => {
            let no_tls = match source.get_ref().and_then(|it| it.downcast_ref()) {
                Some(rustls::Error::InvalidMessage(_)) => true,
                _ => source.kind() == io::ErrorKind::UnexpectedEof,
            };
            no_tls.then(|| format!("port {port} does not speak TLS: http:// may be right"))
        }
        RequestError::Http(cause) => {
            let error = cause.downcast_ref::<hyper::Error>()?;
            let plain = url.scheme() == Scheme::Http;
            (plain && (error.is_parse() || error.is_incomplete_message() || error.is_canceled()))
                .then(|| format!("port {port} does not speak plain HTTP: https:// may be right"))
        }
        RequestError::Quic { source, .. } => {
            let no_protocol = u8::from(rustls::AlertDescription::NoApplicationProtocol);
            match source.downcast_ref()? {
                quinn::ConnectionError::TimedOut => Some(format!(
                    "nothing on UDP port {port} there answers HTTP/3: check the host and the port"
                )),
                quinn::ConnectionError::TransportError(error)
                    if error.code == quinn::TransportErrorCode::crypto(no_protocol) =>
                {
                    Some(no_http3(port))
                }
                quinn::ConnectionError::ConnectionClosed(close)
                    if close.error_code == quinn::TransportErrorCode::crypto(no_protocol) =>
                {
                    Some(no_http3(port))
                }
                _ => None,
            }
        }
        RequestError::Timeout(_) => Some(match url.scheme() {
            Scheme::Udp => format!(
                "nothing on UDP port {port} there answers as a UDP tracker: check the host and the \
                 port, and whether the port is for h3://"
            ),
            _ => "check the host and the port".to_owned(),
        }),
        RequestError::Reply(ReplyError::Bencode(_)) | RequestError::Malformed(_) => {
            Some("this may not be the announce URL of a tracker".to_owned())
        }
        RequestError::Scion(ScionError::Daemon(DaemonError::Unreachable { .. })) => Some(
            "to reach a tracker in the AS of this host without a daemon, name the address of this \
             host with --scion-local ISD-AS,[IP]"
                .to_owned(),
        ),
        _ => None,
    }
}

fn no_http3(port: u16) -> String {
    format!("UDP port {port} speaks QUIC, but not HTTP/3")
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::client::{Client, Options, Trust};

    const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

    /// Asks a URL on this host. Returns the advice.
    async fn asked(scheme: &str, port: u16, timeout: Duration) -> String {
        let options = Options {
            timeout,
            trust: Trust::Anyone,
            ..Options::default()
        };
        let url: TrackerUrl = format!("{scheme}://127.0.0.1:{port}").parse().unwrap();
        let client = Client::new(&options).unwrap();
        let error = client.scrape(&url, &[HASH.parse().unwrap()]).await;
        advice(&error.unwrap_err(), &url).unwrap_or_default()
    }

    #[tokio::test]
    async fn a_closed_port_is_named_at_once() {
        let start = Instant::now();
        let long = Duration::from_secs(3600);
        for (scheme, kind) in [
            ("udp", "UDP"),
            ("h3", "UDP"),
            ("http", "TCP"),
            ("https", "TCP"),
        ] {
            // A port that was free a moment ago.
            let port = match kind {
                "UDP" => UdpSocket::bind(("127.0.0.1", 0)).unwrap().local_addr(),
                _ => TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr(),
            };
            let port = port.unwrap().port();
            let said = asked(scheme, port, long).await;
            assert_eq!(said, format!("nothing listens on {kind} port {port} there"));
        }
        assert!(start.elapsed() < Duration::from_secs(60));
    }

    #[tokio::test]
    async fn a_port_of_another_protocol_is_said() {
        let silent = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let port = silent.local_addr().unwrap().port();
        let short = Duration::from_millis(200);
        let said = asked("udp", port, short).await;
        assert!(said.contains("answers as a UDP tracker"), "{said}");
        let said = asked("h3", port, short).await;
        assert!(
            said.contains("answers HTTP/3") || said.contains("check the host"),
            "{said}"
        );

        for (scheme, answer, words) in [
            (
                "http",
                &b"\x15\x03\x03\x00\x02\x02\x32"[..],
                "https:// may be right",
            ),
            ("http", b"", "https:// may be right"),
            (
                "https",
                b"HTTP/1.1 400 Bad Request\r\n\r\n",
                "http:// may be right",
            ),
            ("https", b"", "http:// may be right"),
        ] {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
                .await
                .unwrap();
            let port = listener.local_addr().unwrap().port();
            let serving = tokio::spawn(async move {
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
                // Until the client closes: a reset could overtake the answer.
                let _ = stream.read(&mut [0; 4096]).await;
            });
            let said = asked(scheme, port, Duration::from_secs(60)).await;
            assert!(
                said.contains(words),
                "{scheme} {}: {said}",
                answer.escape_ascii()
            );
            serving.await.unwrap();
        }
    }
}
