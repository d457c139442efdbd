//! Generates load over HTTP/1.1, plain and over TLS: on kept connections with pipelining, or one
//! connection per request.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf as _, BytesMut};
use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use scion_tracker_core::codec::query::{self, AnnounceQuery};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;

use super::load::Ask;
use super::mix::Kind;
use super::report::{Failure, Tally};
use super::target::Over;
use super::tasks::{self, Client};
use super::{BenchError, Plan, Shared, reply};

/// Most header fields of a reply.
const FIELDS: usize = 32;
/// Longest reply that is read, in bytes.
const MAX_REPLY: usize = 1 << 20;

/// Runs the connections of a thread.
pub(super) fn run(
    plan: &Arc<Plan>,
    shared: &Arc<Shared>,
    thread: u32,
) -> Result<Tally, BenchError> {
    let tls = match Over::of(&plan.options.url) {
        Over::Https => Some(Tls::new(plan)?),
        _ => None,
    };
    tasks::run(plan, shared, thread, |tasks, clients| {
        for client in clients {
            tasks.spawn_local(serve(client, tls.clone()));
        }
        Ok(())
    })
}

#[derive(Clone)]
struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    fn new(plan: &Plan) -> Result<Self, BenchError> {
        let mut config = plan.options.trust.config()?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Each new connection must make a full handshake.
        config.resumption = Resumption::disabled();
        let name = ServerName::try_from(plan.options.url.host().to_owned());
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name: name.map_err(|_| BenchError::Name)?,
        })
    }
}

/// Makes requests until the end.
async fn serve(client: Client, tls: Option<Tls>) {
    let mut wire = Wire::new(&client);
    loop {
        if client.plan.options.new_connections {
            let (since, ask) = client.turn().await;
            let deadline = Instant::now() + client.plan.options.timeout;
            match in_time(deadline, once(&client, tls.as_ref(), &mut wire, &ask)).await {
                Ok(peers) => {
                    client.answered(ask.kind, since, peers);
                    continue;
                }
                Err(failure) => client.failed(failure),
            }
        } else {
            let (failure, count) = kept(&client, tls.as_ref(), &mut wire).await;
            (0..count.max(1)).for_each(|_| client.failed(failure.clone()));
        }
        client.pause().await;
    }
}

/// Makes one request on its own connection.
async fn once(
    client: &Client,
    tls: Option<&Tls>,
    wire: &mut Wire,
    ask: &Ask,
) -> Result<u32, Failure> {
    let stream = connect(client).await?;
    wire.clear();
    wire.write(ask);
    match tls {
        None => single(stream, wire, ask.kind).await,
        Some(tls) => single(handshake(tls, stream).await?, wire, ask.kind).await,
    }
}

async fn single(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    wire: &mut Wire,
    kind: Kind,
) -> Result<u32, Failure> {
    send(&mut stream, &wire.out).await?;
    loop {
        let read = stream.read_buf(&mut wire.input).await;
        let end = match read {
            Ok(length) => length == 0,
            // The reply was complete, but the server ended TLS without a close message.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => true,
            Err(error) => return Err(broken(&error)),
        };
        match wire.reply(kind, end)? {
            Some(peers) => return Ok(peers),
            None if end => return Err(Failure::CLOSED),
            None => {}
        }
    }
}

/// Makes requests on one connection. Returns why it ended, and the number of requests without a
/// reply.
async fn kept(client: &Client, tls: Option<&Tls>, wire: &mut Wire) -> (Failure, usize) {
    wire.clear();
    let deadline = Instant::now() + client.plan.options.timeout;
    let mut outstanding = VecDeque::with_capacity(client.plan.options.in_flight.into());
    let ended = async {
        let stream = in_time(deadline, connect(client)).await?;
        match tls {
            None => exchange(client, stream, wire, &mut outstanding).await,
            Some(tls) => {
                let stream = in_time(deadline, handshake(tls, stream)).await?;
                exchange(client, stream, wire, &mut outstanding).await
            }
        }
    };
    let Err(failure) = ended.await;
    (failure, outstanding.len())
}

pub(super) async fn in_time<T>(
    deadline: Instant,
    future: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let done = timeout_at(deadline.into(), future).await;
    done.unwrap_or(Err(Failure::TIMEOUT))
}

/// A request in flight.
struct Outstanding {
    kind: Kind,
    since: Instant,
    sent: Instant,
}

async fn exchange(
    client: &Client,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    wire: &mut Wire,
    outstanding: &mut VecDeque<Outstanding>,
) -> Result<Infallible, Failure> {
    let depth = usize::from(client.plan.options.in_flight);
    loop {
        if outstanding.is_empty() {
            let (since, ask) = client.turn().await;
            wire.put(outstanding, since, &ask);
        }
        while outstanding.len() < depth {
            let Some((since, ask)) = client.take() else {
                break;
            };
            wire.put(outstanding, since, &ask);
        }
        let Some(oldest) = outstanding.front() else {
            continue;
        };
        let deadline = oldest.sent + client.plan.options.timeout;
        if !wire.out.is_empty() {
            in_time(deadline, send(&mut stream, &wire.out)).await?;
            wire.out.clear();
        }
        let due = client.next_due().filter(|_| outstanding.len() < depth);
        let wake = due.map_or(deadline, |due| due.min(deadline));
        match timeout_at(wake.into(), stream.read_buf(&mut wire.input)).await {
            Ok(Ok(0)) => return Err(Failure::CLOSED),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(broken(&error)),
            Err(_) if Instant::now() >= deadline => return Err(Failure::TIMEOUT),
            Err(_) => continue,
        }
        while let Some(Outstanding { kind, since, .. }) = outstanding.front() {
            match wire.reply(*kind, false) {
                Ok(None) => break,
                Ok(Some(peers)) => client.answered(*kind, *since, peers),
                Err(failure) if failure == Failure::MALFORMED => return Err(failure),
                Err(failure) => client.failed(failure),
            }
            outstanding.pop_front();
        }
    }
}

async fn connect(client: &Client) -> Result<TcpStream, Failure> {
    let opened = async {
        let plan = &client.plan;
        let socket = match plan.to {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        // The ports of closed connections must be available again at once.
        socket.set_reuseaddr(true)?;
        let source = plan.source(plan.load.source_of(client.connection))?;
        if !source.ip.is_unspecified() {
            socket.bind(SocketAddr::new(source.ip, 0))?;
        }
        let stream = socket.connect(plan.to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    let opened: io::Result<_> = opened.await;
    opened.map_err(|error| Failure::error("cannot connect", &error))
}

async fn handshake(
    tls: &Tls,
    stream: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
    let connected = tls.connector.connect(tls.name.clone(), stream).await;
    connected.map_err(|error| Failure::error("TLS failed", &error))
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), Failure> {
    let sent = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    sent.await.map_err(|error| broken(&error))
}

fn broken(error: &io::Error) -> Failure {
    Failure::error("connection broke", error)
}

/// The buffers of a connection. Writes requests and reads replies.
struct Wire {
    plan: Arc<Plan>,
    /// The start of the request line: method, path, and the query of the URL.
    announce: String,
    scrape: String,
    /// The head after the target.
    tail: String,
    text: String,
    out: Vec<u8>,
    input: BytesMut,
}

impl Wire {
    fn new(client: &Client) -> Self {
        let url = &client.plan.options.url;
        let connection = match client.plan.options.new_connections {
            true => "Connection: close\r\n",
            false => "",
        };
        Self {
            plan: Arc::clone(&client.plan),
            announce: format!("GET {}", url.announce().with_query("")),
            scrape: format!("GET {}", url.scrape().with_query("")),
            tail: format!(" HTTP/1.1\r\nHost: {}\r\n{connection}\r\n", url.authority()),
            text: String::with_capacity(512),
            out: Vec::with_capacity(1024),
            input: BytesMut::with_capacity(8192),
        }
    }

    fn clear(&mut self) {
        self.out.clear();
        self.input.clear();
    }

    fn put(&mut self, outstanding: &mut VecDeque<Outstanding>, since: Instant, ask: &Ask) {
        self.write(ask);
        outstanding.push_back(Outstanding {
            kind: ask.kind,
            since,
            sent: Instant::now(),
        });
    }

    fn write(&mut self, ask: &Ask) {
        self.text.clear();
        write_query(&self.plan, ask, &mut self.text);
        let line = match ask.kind {
            Kind::Scrape => &self.scrape,
            _ => &self.announce,
        };
        for part in [line, &self.text, &self.tail] {
            self.out.extend_from_slice(part.as_bytes());
        }
    }

    /// Takes a complete reply from the input, if there is one. At the end of a connection a reply
    /// without a length is complete.
    fn reply(&mut self, kind: Kind, end: bool) -> Result<Option<u32>, Failure> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let begin = match head.parse(&self.input) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if self.input.len() <= MAX_REPLY => return Ok(None),
            _ => return Err(Failure::MALFORMED),
        };
        let length = head
            .headers
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case("content-length"))
            .map(|field| {
                str::from_utf8(field.value)
                    .ok()?
                    .trim()
                    .parse::<usize>()
                    .ok()
            });
        let length = match length {
            Some(Some(length)) if length <= MAX_REPLY => length,
            None if end => self.input.len() - begin,
            None if self.plan.options.new_connections => return Ok(None),
            _ => return Err(Failure::MALFORMED),
        };
        let status = head.code.unwrap_or_default();
        let Some(body) = self.input.get(begin..begin + length) else {
            return Ok(None);
        };
        let checked = match status {
            200 => reply::check(kind, self.plan.options.numwant, body),
            other => Err(Failure::status(other)),
        };
        self.input.advance(begin + length);
        checked.map(Some)
    }
}

/// Appends the query of a request, the same over HTTP/1.1 and HTTP/3.
pub(super) fn write_query(plan: &Plan, ask: &Ask, out: &mut String) {
    match ask.kind {
        Kind::Scrape => query::write_scrape(&[ask.info_hash], out),
        _ => query::write_announce(
            &AnnounceQuery {
                announce: plan.announce(ask),
                compact: Some(true),
                no_peer_id: false,
            },
            out,
        ),
    }
}
