//! Parses the head of an HTTP/1.1 request: the request line and the headers that a tracker needs.

use std::mem::MaybeUninit;

use scion_tracker_core::request::Origin;

use crate::transport::http::answer::{Method, RawRequest, Status};
use crate::transport::http::origin::{Client, Hops, Proxies};

/// Most headers in a request. Browsers send some 20, proxies add a few.
const HEADERS_MAX: usize = 64;

/// A parsed head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) request: RawRequest<'a>,
    /// How many bytes it has.
    pub(super) length: usize,
    /// Whether to keep the connection after the reply.
    pub(super) keep_alive: bool,
    /// The client speaks HTTP/1.0, so the reply must say if the connection is kept.
    pub(super) old: bool,
}

/// Why a head is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadError {
    /// The head is incomplete.
    Incomplete,
    /// Reply with this status and close the connection, because the start of the next request is
    /// unknown.
    Refused(Status),
}

impl From<Status> for HeadError {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

/// Parses a head at the start of `bytes`, from a connection with this origin.
///
/// Request smuggling is not possible: a request that announces a body is refused, and the
/// connection is closed.
pub(super) fn read<'a>(
    bytes: &'a [u8],
    origin: Origin,
    proxies: &'a Proxies,
) -> Result<Head<'a>, HeadError> {
    let mut headers = [MaybeUninit::uninit(); HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Err(HeadError::Incomplete),
        Err(httparse::Error::TooManyHeaders) => return Err(Status::HeadTooLarge.into()),
        Err(_) => return Err(Status::BadRequest.into()),
    };
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Status::BadRequest.into());
    };
    let old = version == 0;
    let mut hops = Hops::behind(proxies, &origin);
    let mut fields = Fields::default();
    for header in parsed.headers.iter() {
        fields.take(header.name, header.value)?;
        if let Some(hops) = &mut hops {
            hops.header(header.name.as_bytes(), header.value);
        }
    }
    // RFC 9112 section 3.2: exactly one Host header, with any value.
    if fields.hosts > 1 || (fields.hosts == 0 && !old) {
        return Err(Status::BadRequest.into());
    }
    let client = hops.map_or(Client::Known(origin), Hops::client);
    Ok(Head {
        request: RawRequest {
            method: Method::of(method.as_bytes()),
            target,
            client,
            early: fields.early,
        },
        length,
        keep_alive: !fields.close && (!old || fields.keep_alive),
        old,
    })
}

/// What the headers say about framing.
#[derive(Debug, Default)]
struct Fields {
    hosts: u8,
    close: bool,
    keep_alive: bool,
    early: bool,
}

impl Fields {
    fn take(&mut self, name: &str, value: &[u8]) -> Result<(), Status> {
        // The length alone tells most headers apart.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => self.hosts = self.hosts.saturating_add(1),
            10 if name.eq_ignore_ascii_case("connection") => {
                for option in value.split(|byte| *byte == b',') {
                    let option = option.trim_ascii();
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            // RFC 8470 section 5.1: a proxy received the request as early data.
            10 if name.eq_ignore_ascii_case("early-data") => self.early |= value == b"1",
            14 if name.eq_ignore_ascii_case("content-length") => match value {
                b"0" => {}
                _ if value.iter().all(u8::is_ascii_digit) && !value.is_empty() => {
                    return Err(Status::ContentTooLarge);
                }
                _ => return Err(Status::BadRequest),
            },
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                return Err(Status::ContentTooLarge);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    fn read_from(bytes: &str) -> Result<Head<'_>, HeadError> {
        static PROXIES: LazyLock<Proxies> = LazyLock::new(Proxies::default);
        let origin = Origin::ip("192.0.2.1".parse().unwrap());
        read(bytes.as_bytes(), origin, &PROXIES)
    }

    #[test]
    fn heads_of_real_clients() {
        for (head, keep_alive) in [
            ("GET /announce?a=b HTTP/1.1\r\nHost: t\r\n\r\n", true),
            (
                "GET /announce?a=b HTTP/1.1\r\nhost: t\r\nConnection: close\r\n\r\n",
                false,
            ),
            ("GET /announce?a=b HTTP/1.0\r\n\r\n", false),
            (
                "GET /announce?a=b HTTP/1.0\r\nConnection: x, Keep-Alive\r\n\r\n",
                true,
            ),
            (
                "GET /announce?a=b HTTP/1.1\nHost: t\nContent-Length: 0\n\n",
                true,
            ),
        ] {
            let read = read_from(head).unwrap();
            assert_eq!(read.request.target, "/announce?a=b");
            assert_eq!(
                (read.keep_alive, read.length),
                (keep_alive, head.len()),
                "{head}"
            );
            for end in 0..head.len() {
                assert_eq!(
                    read_from(&head[..end]).unwrap_err(),
                    HeadError::Incomplete,
                    "{end}"
                );
            }
        }
    }

    #[test]
    fn unclear_framing_is_refused() {
        let many = "a: b\r\n".repeat(HEADERS_MAX + 1);
        for (rest, status) in [
            ("Content-Length: 5\r\n", Status::ContentTooLarge),
            ("Content-Length: 00\r\n", Status::ContentTooLarge),
            (
                "Content-Length: 0\r\nContent-Length: 3\r\n",
                Status::ContentTooLarge,
            ),
            ("Content-Length: -1\r\n", Status::BadRequest),
            ("Content-Length:\r\n", Status::BadRequest),
            ("Transfer-Encoding: chunked\r\n", Status::ContentTooLarge),
            ("Host: again\r\n", Status::BadRequest),
            ("bad header\r\n", Status::BadRequest),
            ("folded: a\r\n b\r\n", Status::BadRequest),
            (&many, Status::HeadTooLarge),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: t\r\n{rest}\r\n");
            assert_eq!(
                read_from(&head).unwrap_err(),
                HeadError::Refused(status),
                "{rest}"
            );
        }
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET  HTTP/1.1\r\n\r\n",
            "\x16\x03\x01\r\n\r\n",
        ] {
            assert_eq!(
                read_from(head).unwrap_err(),
                HeadError::Refused(Status::BadRequest),
                "{head:?}"
            );
        }
    }
}
