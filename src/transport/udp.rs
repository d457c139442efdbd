//! BEP 15 over UDP: a thread and a socket per worker.
//!
//! Packets that are not BEP 15 are dropped, as are those with a connection id that was not given to
//! their source. With a forged source, the tracker therefore sends at most a connect reply of 16
//! bytes for a connect request of 16 bytes.

mod handler;

use std::fmt;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use scion_tracker_core::address::Host;
use scion_tracker_core::codec::bep15;
use scion_tracker_core::codec::connection::ConnectionIds;
use scion_tracker_core::request::Origin;
use scion_tracker_core::types::Time;
use tokio_util::sync::CancellationToken;

use crate::counters::{Counter, Snapshot};
use crate::samples::Sampler;
use crate::scion::socket::Datagram;
use crate::server::secrets::Secrets;
use crate::service::{self, Service};
use crate::socket::mmsg::RequestBatch;

use super::receive::ReceiveErrors;
use handler::Handler;

/// Longest request that is read, in bytes. The longest scrape of BEP 15 has 1,496 bytes.
const REQUEST: usize = 2048;
/// Longest reply, in bytes: fits an Ethernet frame over IPv6 without fragments, with a margin for
/// tunnels.
const REPLY: usize = 1432;
/// Longest reply over IPv6, in bytes: the smallest MTU of IPv6, 1280 (RFC 8200 section 5), without the
/// headers of IPv6 and UDP. Routers do not fragment IPv6, and tunnels are common.
const REPLY_V6: usize = 1280 - 40 - 8;

/// How often an idle worker checks whether to stop.
const WAKE: Duration = Duration::from_millis(200);

/// Options of the UDP transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    /// How long a connection id is valid, in seconds. BEP 15 says two minutes. Real clients use
    /// theirs for longer.
    pub(crate) connection_validity: u32,
    /// Most torrents in one scrape. BEP 15 has room for 74.
    pub(crate) max_scrape: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connection_validity: 600,
            max_scrape: bep15::MAX_SCRAPE,
        }
    }
}

/// Serves on these sockets, one thread each, until `shutdown`. The sockets must form one
/// SO_REUSEPORT group: packets of one source always reach the same socket, but any of them can
/// answer.
pub(crate) fn spawn(
    service: &Arc<Service>,
    sockets: Vec<UdpSocket>,
    options: Options,
    shutdown: &CancellationToken,
) -> io::Result<Vec<JoinHandle<()>>> {
    let ids = connection_ids(service, options)?;
    sockets
        .into_iter()
        .enumerate()
        .map(|(number, socket)| {
            socket.set_nonblocking(false)?;
            socket.set_read_timeout(Some(WAKE))?;
            let handler = handler(service, ids.clone(), options)?;
            let shutdown = shutdown.clone();
            thread::Builder::new()
                .name(format!("udp-{number}"))
                .spawn(move || run(handler, &socket, &shutdown))
        })
        .collect()
}

/// Answers the BEP 15 requests of a SCION port, in batches.
pub(crate) struct OverScion {
    handler: Handler,
    /// The clock is read once per batch.
    now: Time,
}

impl OverScion {
    pub(crate) fn new(service: &Arc<Service>, options: Options) -> io::Result<Self> {
        Ok(Self {
            handler: handler(service, connection_ids(service, options)?, options)?,
            now: Time::default(),
        })
    }

    /// Starts a batch. Call it before the requests of the batch are answered.
    pub(super) fn begin_batch(&mut self, requests: &[Datagram<'_>]) {
        let datagrams = requests.iter().map(|it| (it.payload, it.source.host));
        self.handler.prefetch(datagrams);
        self.now = self.handler.service.now();
    }

    /// Answers one request. Writes the reply to the buffer, which is as long as the path allows, and
    /// returns its length, 0 for no reply.
    pub(super) fn answer(
        &mut self,
        request: &Datagram<'_>,
        origin: &Origin,
        reply: &mut [u8],
    ) -> usize {
        self.handler
            .answer(request.payload, origin, self.now, reply)
    }

    /// Ends a batch. Call it before the replies are sent, so that a request is counted when its
    /// reply arrives.
    pub(super) fn end_batch(&mut self) {
        let Handler {
            service, counts, ..
        } = &mut self.handler;
        service.counters.flush(counts);
    }
}

impl fmt::Debug for OverScion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OverScion").finish_non_exhaustive()
    }
}

/// All UDP listeners share one secret: an id is bound to the ISD-AS and the host.
fn connection_ids(service: &Service, options: Options) -> io::Result<ConnectionIds> {
    let validity = options.connection_validity;
    if let Some(Secrets { key, past }) = &service.secrets {
        return Ok(ConnectionIds::new(*key, validity).accepting(past));
    }
    let mut key = [0; 16];
    getrandom::fill(&mut key)?;
    Ok(ConnectionIds::new(key, validity))
}

fn handler(service: &Arc<Service>, ids: ConnectionIds, options: Options) -> io::Result<Handler> {
    Ok(Handler {
        service: Arc::clone(service),
        ids,
        max_scrape: options.max_scrape,
        rng: service::rng()?,
        rules: service.rules_cache(),
        counts: Snapshot::default(),
        sampler: Sampler::default(),
    })
}

fn run(mut handler: Handler, socket: &UdpSocket, shutdown: &CancellationToken) {
    let mut errors = ReceiveErrors::new("UDP");
    let mut batch = match RequestBatch::<REQUEST, REPLY>::new(socket) {
        Ok(batch) => batch,
        Err(error) => return tracing::error!(%error, "cannot set up a UDP worker"),
    };
    while !shutdown.is_cancelled() {
        match batch.receive(socket) {
            Ok(()) => {
                let datagrams = batch.requests();
                handler.prefetch(datagrams.map(|(it, source)| (it, Host::ip_only(source.ip()))));
                // The clock is read once per batch.
                let now = handler.service.now();
                batch.answer(|datagram, source, reply| {
                    // A reply to port 0 cannot be sent.
                    let origin = Origin::ip(source.ip());
                    if source.port() == 0 {
                        return handler.silence(Counter::UdpMalformed, &origin);
                    }
                    let room = match origin.host.ip() {
                        IpAddr::V4(_) => REPLY,
                        IpAddr::V6(_) => REPLY_V6,
                    };
                    handler.answer(datagram, &origin, now, &mut reply[..room])
                });
                // Counted before sending, so that a request is counted when its reply arrives.
                handler.service.counters.flush(&mut handler.counts);
                let failed = batch.send(socket) as u64;
                handler.counts.add(Counter::UdpSendFailures, failed);
            }
            Err(error) if is_pause(&error) => {}
            // Errors such as ENOMEM pass. A socket that fails again at once must not spin.
            Err(error) => thread::sleep(errors.note(&error, &handler.service.counters)),
        }
    }
}

/// Whether a wait ended without a datagram, which is no error.
fn is_pause(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
