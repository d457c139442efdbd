//! Generates load over HTTP/3, on IP and over SCION, with quinn and only the framing that a GET
//! needs (RFC 9114).
//!
//! A library for HTTP/3 would cost the generator as much CPU time as the server. There is one QUIC
//! endpoint per source address.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, VarInt};
use rustls::client::Resumption;
use tokio::task::JoinSet;

use super::http::{in_time, write_query};
use super::load::Ask;
use super::mix::Kind;
use super::report::{Failure, Tally};
use super::tasks::{self, Client};
use super::{BenchError, Plan, Shared, reply};
use crate::client::TrackerUrl;
use crate::scion::socket::ScionSocket;

/// H3_NO_ERROR (RFC 9114, section 8.1).
const NO_ERROR: VarInt = VarInt::from_u32(0x100);
/// A control stream with empty settings: the stream type, then type and length of a frame.
const CONTROL: [u8; 3] = [0x00, 0x04, 0x00];
/// Longest reply that is read, in bytes.
const MAX_REPLY: usize = 1 << 16;

const DATA: u64 = 0;
const HEADERS: u64 = 1;

/// Runs the connections of a thread.
pub(super) fn run(
    plan: &Arc<Plan>,
    shared: &Arc<Shared>,
    thread: u32,
) -> Result<Tally, BenchError> {
    let config = config(plan)?;
    tasks::run(plan, shared, thread, |tasks, clients| {
        let mut endpoints = HashMap::new();
        for client in clients {
            let source = plan.load.source_of(client.connection);
            let (endpoint, to) = match endpoints.get(&source) {
                Some(known) => known,
                None => {
                    let opened = endpoint(plan, source)?;
                    endpoints.entry(source).or_insert(opened)
                }
            };
            let caller = Caller {
                endpoint: Endpoint::clone(endpoint),
                to: *to,
                config: config.clone(),
                client,
            };
            if plan.options.new_connections {
                tasks.spawn_local(caller.new_connections());
            } else {
                tasks.spawn_local(caller.kept());
            }
        }
        Ok(())
    })
}

fn config(plan: &Plan) -> Result<ClientConfig, BenchError> {
    let mut config = plan.options.trust.config()?;
    config.alpn_protocols = vec![b"h3".to_vec()];
    // Each new connection must make a full handshake.
    config.resumption = Resumption::disabled();
    Ok(ClientConfig::new(Arc::new(QuicClientConfig::try_from(
        config,
    )?)))
}

/// Makes an endpoint at a source address. Returns it with the address to connect to.
fn endpoint(plan: &Plan, number: u32) -> Result<(Endpoint, SocketAddr), BenchError> {
    let source = plan.source(number).map_err(BenchError::Socket)?;
    let bind = SocketAddr::new(source.ip, 0);
    let (Some(host), Some(tracker)) = (source.scion, plan.options.url.scion()) else {
        let endpoint = Endpoint::client(bind).map_err(BenchError::Socket)?;
        return Ok((endpoint, plan.to));
    };
    let socket = ScionSocket::bind(host, bind).map_err(BenchError::Socket)?;
    let path = super::target::path(host.ia, tracker.host.ia);
    let to = socket.set_paths(tracker, (&path, plan.to), None)?;
    Ok((socket.endpoint(None).map_err(BenchError::Socket)?, to))
}

/// Opens one connection at a time.
struct Caller {
    endpoint: Endpoint,
    to: SocketAddr,
    config: ClientConfig,
    client: Client,
}

/// An open connection. HTTP/3 does not allow the control stream to be closed.
struct Open {
    connection: Connection,
    _control: SendStream,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connection.close(NO_ERROR, b"");
    }
}

impl Caller {
    async fn connect(&self) -> Result<Open, Failure> {
        let host = self.client.plan.options.url.host();
        let connecting = self
            .endpoint
            .connect_with(self.config.clone(), self.to, host)
            .map_err(|error| Failure::error("cannot connect", &error))?;
        let connection = connecting
            .await
            .map_err(|error| Failure::error("connection failed", &error))?;
        let mut control = connection
            .open_uni()
            .await
            .map_err(|error| broken(&error))?;
        let sent = control.write_all(&CONTROL).await;
        sent.map_err(|error| Failure::error("connection broke", &error))?;
        Ok(Open {
            connection,
            _control: control,
        })
    }

    /// Makes each request on a new connection.
    async fn new_connections(self) {
        let client = &self.client;
        let mut exchange = Exchange::new(&client.plan);
        loop {
            let (since, ask) = client.turn().await;
            let deadline = Instant::now() + client.plan.options.timeout;
            let asked = async {
                let open = self.connect().await?;
                exchange.ask(&open.connection, &ask).await
            };
            match in_time(deadline, asked).await {
                Ok(peers) => client.answered(ask.kind, since, peers),
                Err(failure) => {
                    client.failed(failure);
                    client.pause().await;
                }
            }
        }
    }

    /// Makes requests on one connection, with one task per stream. Opens it again when it breaks.
    async fn kept(self) {
        loop {
            let deadline = Instant::now() + self.client.plan.options.timeout;
            match in_time(deadline, self.connect()).await {
                Err(failure) => self.client.failed(failure),
                Ok(open) => {
                    let open = Rc::new(open);
                    let mut streams = JoinSet::new();
                    for _ in 0..self.client.plan.options.in_flight {
                        let client = self.client.clone();
                        streams.spawn_local(ask_on(client, Rc::clone(&open)));
                    }
                    // Each task ends with the connection.
                    while streams.join_next().await.is_some() {}
                }
            }
            self.client.pause().await;
        }
    }
}

/// Makes one request after another on a connection, until it is closed.
async fn ask_on(client: Client, open: Rc<Open>) {
    let mut exchange = Exchange::new(&client.plan);
    while open.connection.close_reason().is_none() {
        let (since, ask) = client.turn().await;
        let deadline = Instant::now() + client.plan.options.timeout;
        match in_time(deadline, exchange.ask(&open.connection, &ask)).await {
            Ok(peers) => client.answered(ask.kind, since, peers),
            Err(failure) => {
                client.failed(failure);
                client.pause().await;
            }
        }
    }
}

/// The buffers of a request, and the parts that all requests have in common.
struct Exchange {
    plan: Arc<Plan>,
    announce: String,
    scrape: String,
    authority: String,
    target: String,
    fields: Vec<u8>,
    out: Vec<u8>,
    input: Box<[u8]>,
}

impl Exchange {
    fn new(plan: &Arc<Plan>) -> Self {
        let url = &plan.options.url;
        let path = |url: TrackerUrl| url.with_query("");
        Self {
            plan: Arc::clone(plan),
            announce: path(url.announce()),
            scrape: path(url.scrape()),
            authority: url.authority(),
            target: String::with_capacity(512),
            fields: Vec::with_capacity(512),
            out: Vec::with_capacity(512),
            input: vec![0; MAX_REPLY].into(),
        }
    }

    /// Makes one request. Returns the number of peers in the reply.
    async fn ask(&mut self, connection: &Connection, ask: &Ask) -> Result<u32, Failure> {
        self.write(ask);
        let (mut send, mut receive) = connection.open_bi().await.map_err(|error| broken(&error))?;
        let sent = send.write_all(&self.out).await;
        sent.map_err(|error| Failure::error("stream broke", &error))?;
        // Only a stream that was reset cannot be finished.
        let _ = send.finish();
        let length = self.receive(&mut receive).await?;
        let message = parse(&mut self.input[..length]).ok_or(Failure::MALFORMED)?;
        if !message.ok {
            return Err(Failure("a status other than 200".into()));
        }
        reply::check(ask.kind, self.plan.options.numwant, message.body)
    }

    async fn receive(&mut self, stream: &mut RecvStream) -> Result<usize, Failure> {
        let mut length = 0;
        loop {
            let room = &mut self.input[length..];
            if room.is_empty() {
                return Err(Failure::MALFORMED);
            }
            match stream.read(room).await {
                Ok(Some(more)) => length += more,
                Ok(None) => return Ok(length),
                Err(error) => return Err(Failure::error("stream broke", &error)),
            }
        }
    }

    /// Writes a HEADERS frame, with fields of the static table and literals (RFC 9204, 4.5).
    fn write(&mut self, ask: &Ask) {
        self.target.clear();
        self.target.push_str(match ask.kind {
            Kind::Scrape => &self.scrape,
            _ => &self.announce,
        });
        write_query(&self.plan, ask, &mut self.target);
        self.fields.clear();
        // No dynamic table, then `:method: GET` and `:scheme: https`.
        self.fields.extend_from_slice(&[0, 0, 0xc0 | 17, 0xc0 | 23]);
        // The values of `:authority` and `:path`.
        push_field(0, self.authority.as_bytes(), &mut self.fields);
        push_field(1, self.target.as_bytes(), &mut self.fields);
        self.out.clear();
        self.out.push(HEADERS as u8);
        // A variable-length integer of four bytes (RFC 9000, section 16).
        let length = self.fields.len() as u32 | 0x8000_0000;
        self.out.extend_from_slice(&length.to_be_bytes());
        self.out.extend_from_slice(&self.fields);
    }
}

fn broken(error: &quinn::ConnectionError) -> Failure {
    Failure::error("connection broke", error)
}

/// Appends a literal value with a name of the static table, without Huffman coding.
fn push_field(name: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(0x50 | name);
    // The length has a prefix of 7 bits (RFC 7541, section 5.1).
    match value.len().checked_sub(127) {
        None => out.push(value.len() as u8),
        Some(mut rest) => {
            out.push(127);
            while rest > 127 {
                out.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            out.push(rest as u8);
        }
    }
    out.extend_from_slice(value);
}

#[derive(Debug, PartialEq, Eq)]
struct Message<'a> {
    /// Whether the status is 200.
    ok: bool,
    body: &'a [u8],
}

/// Parses a complete reply. Joins the DATA frames in place.
fn parse(bytes: &mut [u8]) -> Option<Message<'_>> {
    let (mut at, mut body, mut ok) = (0, 0, None);
    while at < bytes.len() {
        let kind = varint(bytes, &mut at)?;
        let length = usize::try_from(varint(bytes, &mut at)?).ok()?;
        let end = at.checked_add(length).filter(|end| *end <= bytes.len())?;
        match kind {
            HEADERS if ok.is_none() => ok = Some(is_200(&bytes[at..end])),
            DATA => {
                ok?;
                bytes.copy_within(at..end, body);
                body += length;
            }
            _ => {}
        }
        at = end;
    }
    Some(Message {
        ok: ok?,
        body: &bytes[..body],
    })
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let first = *bytes.get(*at)?;
    let length = 1 << (first >> 6);
    let rest = bytes.get(*at + 1..*at + length)?;
    *at += length;
    let begin = u64::from(first & 0x3f);
    Some(
        rest.iter()
            .fold(begin, |value, byte| value << 8 | u64::from(*byte)),
    )
}

/// Whether a field section begins with `:status: 200`, which must come first: from the static
/// table, or as a literal.
fn is_200(section: &[u8]) -> bool {
    matches!(
        section,
        [0, _, 0xd9, ..] | [0, _, 0x5f, 9, 3, b'2', b'0', b'0', ..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_taken_apart() {
        let mut bytes = b"\x01\x03\0\0\xd9\x21\x02??\0\x40\x03d1:\0\x01e".to_vec();
        let body = &b"d1:e"[..];
        assert_eq!(parse(&mut bytes.clone()), Some(Message { ok: true, body }));
        bytes[4] = 0xdb;
        assert_eq!(parse(&mut bytes.clone()), Some(Message { ok: false, body }));
        // A truncated reply is invalid, or has a shorter body.
        for length in 0..bytes.len() {
            let message = parse(&mut bytes[..length]).map(|message| message.body.len());
            assert!(message.is_none_or(|length| length < 4), "{length}");
        }
        assert_eq!(
            parse(&mut b"\0\x01x".to_vec()),
            None,
            "a body without a head"
        );
    }

    #[test]
    fn lengths_have_a_prefix_of_seven_bits() {
        for (length, prefix) in [
            (126, &[126][..]),
            (127, &[127, 0]),
            (254, &[127, 127]),
            (255, &[127, 0x80, 1]),
        ] {
            let mut out = Vec::new();
            push_field(1, &vec![b'x'; length], &mut out);
            assert_eq!(out[..=prefix.len()], [&[0x51], prefix].concat());
            assert_eq!(out.len(), 1 + prefix.len() + length);
        }
    }
}
