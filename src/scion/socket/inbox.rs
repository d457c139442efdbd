//! What comes in from the underlay: most of it is handled here, quinn gets what is QUIC.

use std::fmt;
use std::io::IoSliceMut;
use std::net::SocketAddr;

use arrayvec::ArrayVec;
use quinn::udp::RecvMeta;
use scion_tracker_core::codec::scion::{
    BuildError, Echo, Message, Packet, Scmp, Template, Udp, Unsealed,
};

use super::allowance::Allowance;
use super::gate::{Admitted, Request};
use super::quic::{self, Negotiator};
use super::remotes::{Arrival, Heard, Now, Route};
use super::underlay::{Received, Replies};
use super::{ECHOES, RESENDS, ScionSocket};
use crate::counters::Counter;
use crate::socket::mmsg::BATCH;

/// Answers BEP 15 datagrams, a batch at a time.
pub(crate) trait Datagrams: Send {
    /// Called with the requests of a batch before they are answered.
    fn begin_batch(&mut self, requests: &[Request<'_>]);

    /// Answers one: writes the reply into the buffer and returns its length, 0 for no reply.
    fn answer(&mut self, request: &Request<'_>, reply: &mut [u8]) -> usize;

    /// Called when a batch is over, before its replies go out.
    fn end_batch(&mut self);
}

/// A batch of datagrams, and how far it has been handled.
pub(super) struct Inbox {
    received: Received,
    filled: usize,
    next: usize,
    desk: Desk,
}

/// BEP 15 requests of a batch.
type Requests<'a> = ArrayVec<Request<'a>, BATCH>;

/// Whom a datagram is for.
enum Incoming<'a> {
    /// Quinn: the name of the remote and the payload.
    Quic(SocketAddr, &'a [u8]),
    /// Who answers BEP 15.
    Request(Request<'a>),
}

/// Handles one datagram after the other.
struct Desk {
    /// When the batch came.
    now: Now,
    negotiator: Negotiator,
    echoes: Allowance,
    resends: Allowance,
    datagrams: Option<(Box<dyn Datagrams>, Replies)>,
}

impl Inbox {
    /// With what answers BEP 15, on a server, on an underlay whose kernel cuts what is sent into so many
    /// datagrams.
    pub(super) fn new(now: Now, datagrams: Option<Box<dyn Datagrams>>, segments: usize) -> Self {
        Self {
            received: Received::new(),
            filled: 0,
            next: 0,
            desk: Desk {
                now,
                negotiator: Negotiator::new(),
                echoes: Allowance::new(ECHOES),
                resends: Allowance::new(RESENDS),
                datagrams: datagrams.map(|it| (it, Replies::new(segments))),
            },
        }
    }

    /// Where the next batch goes.
    pub(super) const fn received(&mut self) -> &mut Received {
        &mut self.received
    }

    /// A batch of so many has come.
    pub(super) const fn filled(&mut self, count: usize, now: Now) {
        self.filled = count;
        self.next = 0;
        self.desk.now = now;
    }

    /// Handles what has come and fills the buffers with what is QUIC, until they are full or all is
    /// handled. Returns how many it has filled.
    pub(super) fn hand_on(
        &mut self,
        socket: &ScionSocket,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> usize {
        let mut requests = Requests::new();
        let mut count = 0;
        while count < bufs.len().min(metas.len()) && self.next < self.filled {
            let datagram = self.received.datagram(self.next);
            self.next += 1;
            let Some((datagram, underlay)) = datagram else {
                socket.counters.count(Counter::ScionMalformed);
                continue;
            };
            let (addr, payload) = match self.desk.receive(socket, datagram, underlay) {
                Some(Incoming::Quic(addr, payload)) => (addr, payload),
                Some(Incoming::Request(request)) => {
                    requests.push(request);
                    continue;
                }
                None => continue,
            };
            // Longer than quinn has said that it takes.
            let Some(room) = bufs[count].get_mut(..payload.len()) else {
                continue;
            };
            room.copy_from_slice(payload);
            let len = payload.len();
            metas[count] = RecvMeta {
                addr,
                len,
                stride: len,
                ecn: None,
                dst_ip: None,
            };
            count += 1;
        }
        if !requests.is_empty() {
            self.desk.answer(socket, &requests);
        }
        count
    }
}

impl Desk {
    /// Handles a datagram from the underlay, but for what others do with it.
    #[inline]
    fn receive<'a>(
        &mut self,
        socket: &ScionSocket,
        datagram: &'a [u8],
        underlay: SocketAddr,
    ) -> Option<Incoming<'a>> {
        let (packet, udp, source) = match socket.gate.admit(datagram) {
            Ok(Admitted::Datagram {
                packet,
                udp,
                source,
            }) => (packet, udp, source),
            Ok(Admitted::Control(packet)) => {
                self.control(socket, &packet, underlay);
                return None;
            }
            Err(reject) => {
                socket.counters.count(reject.into());
                return None;
            }
        };
        if !packet.checksum_is_right() {
            socket.counters.count(Counter::ScionWrongChecksum);
        }
        if self.datagrams.is_some() && is_bep15(udp.payload) {
            return Some(Incoming::Request(Request {
                source,
                payload: udp.payload,
                path: packet.path,
                underlay,
            }));
        }
        let answer = || {
            let template = Template::answering(&packet, &udp)?;
            let next_hop = socket.gate.next_hop(source, template.path(), underlay);
            Ok(Route { template, next_hop })
        };
        if self.negotiates(socket, &udp, answer) {
            return None;
        }
        let name = socket.names.name(source);
        let arrival = Arrival {
            path: packet.path,
            via: socket.gate.via(underlay),
            token: quic::addressed_to(udp.payload),
            now: self.now,
        };
        let heard = socket
            .remotes
            .lock()
            .heard((name, source), &arrival, answer);
        match heard {
            Ok(Heard::Nothing) => {}
            Ok(Heard::Added) => socket.counters.count(Counter::ScionRemotesAdded),
            Ok(Heard::Adopted) => socket.counters.count(Counter::ScionPathsAdopted),
            Err(_) => {
                socket.counters.count(Counter::ScionUnanswerable);
                return None;
            }
        }
        Some(Incoming::Quic(name, udp.payload))
    }

    /// Answers the BEP 15 datagrams of a batch.
    fn answer(&mut self, socket: &ScionSocket, requests: &[Request<'_>]) {
        let Some((datagrams, replies)) = &mut self.datagrams else {
            return;
        };
        datagrams.begin_batch(requests);
        let mut unsealed: ArrayVec<Unsealed, BATCH> = ArrayVec::new();
        for request in requests {
            // There is one for each datagram of a batch.
            let Some(reply) = replies.buffer() else {
                break;
            };
            let serve = |reply: &mut [u8]| datagrams.answer(request, reply);
            match socket.gate.answer(request, reply, serve) {
                Ok(Some((packet, next_hop))) => {
                    replies.queue(packet.packet_len(), next_hop);
                    unsealed.push(packet);
                }
                Ok(None) => {}
                Err(reject) => socket.counters.count(reject.into()),
            }
        }
        datagrams.end_batch();
        for (unsealed, packet) in unsealed.iter().zip(replies.queued_mut()) {
            unsealed.seal(packet);
        }
        let failed = socket.underlay.send_all(replies);
        if failed > 0 {
            socket.counters.add(Counter::UdpSendFailures, failed as u64);
        }
    }

    fn control(&mut self, socket: &ScionSocket, packet: &Packet<'_>, underlay: SocketAddr) {
        let Message::Scmp(scmp) = packet.message else {
            return;
        };
        match scmp {
            Scmp::EchoRequest(request) => self.echo(socket, packet, &request, underlay),
            Scmp::EchoReply(_) | Scmp::Other { .. } => {
                socket.counters.count(Counter::ScionScmpIgnored);
            }
            _ => socket.failed(packet, &scmp, &mut self.resends, self.now),
        }
    }

    fn echo(
        &mut self,
        socket: &ScionSocket,
        packet: &Packet<'_>,
        request: &Echo<'_>,
        underlay: SocketAddr,
    ) {
        if !self.echoes.take(self.now.since_start) {
            socket.counters.count(Counter::ScionEchoesRefused);
            return;
        }
        let mut reply = Vec::new();
        match socket
            .gate
            .answer_echo(packet, request, underlay, &mut reply)
        {
            Ok(next_hop) => {
                socket.counters.count(Counter::ScionEchoes);
                socket.send(next_hop, &reply, None);
            }
            Err(reject) => socket.counters.count(reject.into()),
        }
    }

    /// Answers packets of other QUIC versions, without making an entry for their sender.
    fn negotiates(
        &mut self,
        socket: &ScionSocket,
        udp: &Udp<'_>,
        answer: impl FnOnce() -> Result<Route, BuildError>,
    ) -> bool {
        let mut reply = Vec::new();
        let (payload, now) = (udp.payload, self.now.since_start);
        if !self.negotiator.handles(payload, now, &mut reply) {
            return false;
        }
        if !reply.is_empty()
            && let Ok(route) = answer()
        {
            socket.counters.count(Counter::ScionVersionsNegotiated);
            socket.transmit(&route, &reply, None);
        }
        true
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

/// Whether this is a request of BEP 15 and not QUIC: connect with its magic number, or an announce or
/// scrape, whose action stands behind the connection id. A QUIC packet looks so once in 2^31; it is
/// then lost and sent again.
fn is_bep15(datagram: &[u8]) -> bool {
    const CONNECT: [u8; 12] = [0, 0, 0x04, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0];
    datagram.len() >= 16
        && (datagram.starts_with(&CONNECT) || matches!(datagram[8..12], [0, 0, 0, 1 | 2]))
}
