//! Decodes a request and encodes its reply, as bytes of a request stream (RFC 9114 section 4).
//!
//! A tracker needs little of HTTP/3. These requests are malformed (section 4.1.2) and end their
//! stream with H3_MESSAGE_ERROR: a pseudo-header field that is repeated or follows a regular field,
//! connection-specific fields such as `connection: keep-alive`, and a `content-length` that differs
//! from the length of the body.

use std::ops::Range;

use scion_tracker_core::request::Origin;

use super::frame::{self, Code};
use super::qpack::{self, SectionError};
use crate::transport::Options;
use crate::transport::Shared;
use crate::transport::http::answer::{
    self, Method, RawRequest, Reply, Request, Scratch, Status, Transport,
};
use crate::transport::http::origin::{Client, Hops};

/// Bytes of frames other than the header section that a request may have: trailers, and unknown
/// frames, which are ignored. A request with more ends with H3_EXCESSIVE_LOAD.
pub(in crate::transport) const EXTRA_BYTES: usize = 1024;

/// Buffers that are reused from request to request.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// Decoded Huffman strings.
    plain: Vec<u8>,
    pub(super) path: Vec<u8>,
    authority: Vec<u8>,
    /// The reply to the last request.
    pub(super) reply: Vec<u8>,
}

/// Answers a request. Writes the reply to `buffers`.
pub(super) fn answer(request: &Request, shared: &Shared, buffers: &mut Buffers) {
    Scratch::with(|scratch| {
        let reply = answer::answer(&shared.service, Transport::Http3, request, scratch);
        write(&reply, request.method, scratch, &mut buffers.reply);
    });
}

/// Decodes a request from `bytes`, the start of its stream, or all of the stream if `end`. `frames`
/// keeps what earlier calls have read of the stream.
pub(super) fn decode(
    frames: &mut Frames,
    bytes: &[u8],
    end: bool,
    origin: Origin,
    options: &Options,
    head_bytes: usize,
    buffers: &mut Buffers,
) -> Result<Request, Stop> {
    let rejected = |status| Ok(Request::rejected(&origin, Method::Get, status));
    let section = match frames.split(bytes, end, head_bytes) {
        Ok(section) => section,
        Err(Stop::More) if bytes.len() > head_bytes + EXTRA_BYTES => {
            return Err(Stop::Reset(Code::EXCESSIVE_LOAD));
        }
        Err(Stop::TooLong) => return rejected(Status::HeadTooLarge),
        Err(stop) => return Err(stop),
    };
    let head = match read(&section, origin, options, head_bytes, buffers) {
        Ok(head) => head,
        Err(SectionError::Qpack) => return Err(Stop::Close(Code::QPACK_DECOMPRESSION_FAILED)),
        Err(SectionError::Field(Fault::Malformed)) => {
            return Err(Stop::Reset(Code::MESSAGE_ERROR));
        }
        Err(SectionError::Field(Fault::Refused(status))) => return rejected(status),
    };
    if section.body.is_some() {
        return rejected(Status::ContentTooLarge);
    }
    let Ok(target) = std::str::from_utf8(&buffers.path) else {
        return rejected(Status::BadRequest);
    };
    Ok(Request::decode(&RawRequest {
        method: head.method,
        target,
        client: head.client,
        early: head.early,
    }))
}

/// The frames of a request that matter here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Section<'a> {
    headers: &'a [u8],
    trailers: Option<&'a [u8]>,
    /// The length of the first DATA frame, if there is one.
    body: Option<u64>,
}

/// Why a request cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// More bytes are needed.
    More,
    /// The header section is longer than allowed.
    TooLong,
    /// The stream is in error.
    Reset(Code),
    /// The connection is in error.
    Close(Code),
}

/// The frames of a request stream that have arrived so far.
///
/// Each frame is read once, however many packets its stream takes, so that the work for a stream
/// grows with its bytes and not with its packets.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Where the first frame begins that has not arrived in full.
    at: usize,
    headers: Option<Range<usize>>,
    trailers: Option<Range<usize>>,
    /// Bytes of frames other than the header section.
    extra: usize,
}

impl Frames {
    /// Splits a request stream into frames. Stops at the first frame of a body. `bytes` must begin
    /// with the bytes of the previous call.
    pub(super) fn split<'a>(
        &mut self,
        bytes: &'a [u8],
        end: bool,
        head_bytes: usize,
    ) -> Result<Section<'a>, Stop> {
        // Section 7.1: the stream must not end within a frame.
        let cut = || {
            if end {
                Stop::Close(Code::FRAME_ERROR)
            } else {
                Stop::More
            }
        };
        while self.at < bytes.len() {
            let mut rest = &bytes[self.at..];
            let kind = frame::varint(&mut rest).ok_or_else(cut)?;
            let length = frame::varint(&mut rest).ok_or_else(cut)?;
            match kind {
                frame::DATA if self.headers.is_none() || self.trailers.is_some() => {
                    return Err(Stop::Close(Code::FRAME_UNEXPECTED));
                }
                frame::DATA if length > 0 => return self.section(bytes, Some(length)),
                frame::HEADERS if self.trailers.is_some() => {
                    return Err(Stop::Close(Code::FRAME_UNEXPECTED));
                }
                frame::HEADERS if length > head_bytes as u64 => return Err(Stop::TooLong),
                frame::CANCEL_PUSH
                | frame::SETTINGS
                | frame::PUSH_PROMISE
                | frame::GOAWAY
                | frame::MAX_PUSH_ID => return Err(Stop::Close(Code::FRAME_UNEXPECTED)),
                kind if frame::is_of_http2(kind) => {
                    return Err(Stop::Close(Code::FRAME_UNEXPECTED));
                }
                _ => {}
            }
            let start = bytes.len() - rest.len();
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let after = start.saturating_add(length);
            let is_head = kind == frame::HEADERS && self.headers.is_none();
            let mut extra = self.extra;
            if !is_head {
                extra = extra.saturating_add(after - self.at);
                if extra > EXTRA_BYTES {
                    return Err(Stop::Reset(Code::EXCESSIVE_LOAD));
                }
            }
            if after > bytes.len() {
                return Err(cut());
            }
            (self.at, self.extra) = (after, extra);
            if is_head {
                self.headers = Some(start..after);
            } else if kind == frame::HEADERS {
                self.trailers = Some(start..after);
            }
        }
        match self.headers {
            _ if !end => Err(Stop::More),
            None => Err(Stop::Reset(Code::REQUEST_INCOMPLETE)),
            Some(_) => self.section(bytes, None),
        }
    }

    fn section<'a>(&self, bytes: &'a [u8], body: Option<u64>) -> Result<Section<'a>, Stop> {
        let of = |range: &Option<Range<usize>>| range.clone().and_then(|range| bytes.get(range));
        Ok(Section {
            headers: of(&self.headers).unwrap_or_default(),
            trailers: of(&self.trailers),
            body,
        })
    }
}

/// A well-formed header section. The path is in the buffers.
#[derive(Debug)]
pub(super) struct Head<'a> {
    method: Method,
    pub(super) client: Client<'a>,
    early: bool,
}

/// What is wrong with a header section that is valid QPACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Malformed,
    Refused(Status),
}

/// Decodes the header section. Decodes the trailers only to check that they are valid QPACK.
pub(super) fn read<'a>(
    section: &Section<'_>,
    origin: Origin,
    options: &'a Options,
    head_bytes: usize,
    buffers: &mut Buffers,
) -> Result<Head<'a>, SectionError<Fault>> {
    buffers.path.clear();
    buffers.authority.clear();
    let mut fields = Fields {
        size: 0,
        size_max: head_bytes,
        pseudo: 0,
        regular: false,
        method: Method::Other,
        connect: false,
        web: false,
        host: false,
        content_length: None,
        early: false,
        path: &mut buffers.path,
        authority: &mut buffers.authority,
        hops: Hops::behind(&options.proxies, &origin),
    };
    qpack::fields(section.headers, &mut buffers.plain, |name, value| {
        fields.take(name, value)
    })?;
    if let Some(trailers) = section.trailers {
        qpack::fields(trailers, &mut buffers.plain, |name, value| {
            regular_field(name, value)
        })?;
    }
    fields.check(section.body).map_err(SectionError::Field)?;
    let early = fields.early;
    let method = fields.method;
    let client = fields.hops.map_or(Client::Known(origin), Hops::client);
    Ok(Head {
        method,
        client,
        early,
    })
}

const METHOD: u8 = 1;
const SCHEME: u8 = 2;
const AUTHORITY: u8 = 4;
const PATH: u8 = 8;

/// A header section that is being read.
struct Fields<'a, 'p> {
    size: usize,
    size_max: usize,
    /// The pseudo-header fields so far, one bit each.
    pseudo: u8,
    /// Whether there was a regular field.
    regular: bool,
    method: Method,
    connect: bool,
    /// The scheme is http or https.
    web: bool,
    host: bool,
    content_length: Option<u64>,
    early: bool,
    path: &'a mut Vec<u8>,
    /// `:authority`, else `host`.
    authority: &'a mut Vec<u8>,
    hops: Option<Hops<'p>>,
}

impl Fields<'_, '_> {
    fn take(&mut self, name: &[u8], value: &[u8]) -> Result<(), Fault> {
        // Section 4.2.2: each field counts 32 bytes more than its name and value.
        self.size += name.len() + value.len() + 32;
        if self.size > self.size_max {
            return Err(Fault::Refused(Status::HeadTooLarge));
        }
        if name.first() == Some(&b':') {
            return self.take_pseudo(name, value);
        }
        self.regular = true;
        regular_field(name, value)?;
        if let Some(hops) = &mut self.hops {
            hops.header(name, value);
        }
        match name {
            b"host" => {
                let differs = !self.authority.is_empty() && self.authority != value;
                if self.host || value.is_empty() || differs {
                    return Err(Fault::Malformed);
                }
                self.host = true;
                self.authority.clear();
                self.authority.extend_from_slice(value);
            }
            b"content-length" => {
                let length = decimal(value).ok_or(Fault::Malformed)?;
                if self
                    .content_length
                    .replace(length)
                    .is_some_and(|other| other != length)
                {
                    return Err(Fault::Malformed);
                }
            }
            b"early-data" => self.early |= value == b"1",
            _ => {}
        }
        Ok(())
    }

    fn take_pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), Fault> {
        let bit = match name {
            b":method" => {
                self.method = Method::of(value);
                self.connect = value == b"CONNECT";
                METHOD
            }
            b":scheme" => {
                self.web = matches!(value, b"http" | b"https");
                SCHEME
            }
            b":authority" => {
                self.authority.extend_from_slice(value);
                AUTHORITY
            }
            b":path" => {
                self.path.extend_from_slice(value);
                PATH
            }
            // `:status` is for replies. `:protocol` needs an extension (RFC 8441), which is not
            // supported.
            _ => return Err(Fault::Malformed),
        };
        // Section 4.3: pseudo-header fields come before all regular fields. Section 4.3.1: each
        // only once.
        if self.regular || self.pseudo & bit != 0 || !is_field_value(value) {
            return Err(Fault::Malformed);
        }
        self.pseudo |= bit;
        Ok(())
    }

    /// Checks the section as a whole: its mandatory fields, and the length of the body.
    fn check(&self, body: Option<u64>) -> Result<(), Fault> {
        let has = |bits| self.pseudo & bits == bits;
        let complete = if self.connect {
            has(METHOD | AUTHORITY) && self.pseudo & (SCHEME | PATH) == 0
        } else {
            has(METHOD | SCHEME | PATH) && !self.path.is_empty()
        };
        // Section 4.3.1: `http` and `https` need an authority without user information.
        let named = !self.web || (!self.authority.is_empty() && !self.authority.contains(&b'@'));
        // Section 4.1.2. Only the first frame of the body is known.
        let length = match (self.content_length, body) {
            (None, _) | (Some(0), None) => true,
            (Some(_), None) => false,
            (Some(length), Some(frame)) => frame <= length,
        };
        if complete && named && length {
            Ok(())
        } else {
            Err(Fault::Malformed)
        }
    }
}

/// Whether a regular field is allowed (sections 4.2 and 10.3).
fn regular_field(name: &[u8], value: &[u8]) -> Result<(), Fault> {
    let of_the_connection = match name {
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
            true
        }
        b"te" => !value.eq_ignore_ascii_case(b"trailers"),
        _ => false,
    };
    let good = !name.is_empty() && name.iter().all(|byte| is_name_byte(*byte));
    if of_the_connection || !good || !is_field_value(value) {
        return Err(Fault::Malformed);
    }
    Ok(())
}

/// Whether a byte may be in a field name: a token (RFC 9110 section 5.6.2) without upper case (RFC
/// 9114 section 4.2).
const fn is_name_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-'
            | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
    )
}

/// Whether a field value is valid (RFC 9110 section 5.5): no control character except the tab, and
/// no white space at either end.
fn is_field_value(value: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_text = |byte: u8| (byte >= b' ') & (byte != 0x7f) | (byte == b'\t');
    // The processor looks at all bytes of a chunk at once.
    let (chunks, rest) = value.as_chunks::<16>();
    let are_text = |chunk: &[u8; 16]| chunk.iter().fold(true, |all, byte| all & is_text(*byte));
    !blank(value.first())
        && !blank(value.last())
        && chunks.iter().all(are_text)
        && rest.iter().all(|byte| is_text(*byte))
}

fn decimal(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value)
        .ok()
        .filter(|_| digits)?
        .parse()
        .ok()
}

/// Writes a reply: a HEADERS frame and, except for HEAD, a DATA frame.
fn write(reply: &Reply, method: Method, scratch: &mut Scratch, out: &mut Vec<u8>) {
    out.clear();
    // The section is shorter than 2^14 bytes, so its length takes two bytes, which are patched in
    // below.
    out.extend_from_slice(&[frame::HEADERS as u8, 0, 0]);
    let start = out.len();
    qpack::push_status(reply.status.code(), out);
    qpack::push_static(qpack::NO_STORE, out);
    if reply.status == Status::Ok {
        qpack::push_static(qpack::ALLOW_ANY_ORIGIN, out);
    }
    qpack::push_field(qpack::CONTENT_TYPE, reply.content_type.as_bytes(), out);
    let mut digits = [0; 20];
    let length = answer::decimal(scratch.body.len(), &mut digits);
    qpack::push_field(qpack::CONTENT_LENGTH, length, out);
    qpack::push_field(qpack::DATE, scratch.date().as_bytes(), out);
    if let Some(methods) = reply.allow() {
        qpack::push_named_field("allow", methods.as_bytes(), out);
    }
    let length = (out.len() - start) as u16 | 0x4000;
    out[start - 2..start].copy_from_slice(&length.to_be_bytes());
    if method != Method::Head {
        out.push(frame::DATA as u8);
        frame::push_varint(scratch.body.len() as u32, out);
        out.extend_from_slice(&scratch.body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_values_have_no_control_characters_at_any_place() {
        for length in 1..40 {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    let mut value = vec![b'x'; length];
                    value[at] = byte;
                    let end = at == 0 || at == length - 1;
                    let expected = match byte {
                        b' ' | b'\t' => !end,
                        0x7f => false,
                        _ => byte >= b' ',
                    };
                    assert_eq!(
                        is_field_value(&value),
                        expected,
                        "{byte:#x} at {at} of {length}"
                    );
                }
            }
        }
        assert!(is_field_value(b""));
    }
}
