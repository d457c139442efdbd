//! Requests and their replies: one `recvmmsg` and one `sendmmsg` for as many as are there.
//!
//! What every request of a batch needs (buffers, addresses, headers) is allocated once. On a socket that is
//! bound to the wildcard address, each reply leaves from the address that its request was sent to. A host
//! with several addresses would answer from another one otherwise, and the client would drop the reply.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};

use super::messages::{Ask, Incoming, Outgoing};
use crate::socket::options::receive_destinations;

/// Requests of at most `REQUEST` bytes and replies of at most `REPLY` bytes, for one worker.
pub(crate) struct RequestBatch<const REQUEST: usize, const REPLY: usize> {
    requests: Incoming<REQUEST>,
    replies: Outgoing<REPLY>,
    /// Whether the socket tells where each datagram was sent to.
    with_destination: bool,
    /// Number of queued replies.
    queued: usize,
}

impl<const REQUEST: usize, const REPLY: usize> RequestBatch<REQUEST, REPLY> {
    /// A batch for this socket.
    pub(crate) fn new(socket: &UdpSocket) -> io::Result<Self> {
        let with_destination = socket.local_addr()?.ip().is_unspecified();
        let ask = match with_destination {
            true => {
                receive_destinations(socket)?;
                Ask::SourceAndDestination
            }
            false => Ask::Source,
        };
        Ok(Self {
            requests: Incoming::new(ask),
            replies: Outgoing::new(),
            with_destination,
            queued: 0,
        })
    }

    /// Waits for a request and takes as many as are there. Queued replies are dropped.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        self.queued = 0;
        self.requests.receive(socket)?;
        Ok(())
    }

    /// The received requests, each with its source.
    pub(crate) fn requests(&self) -> impl Iterator<Item = (&[u8], SocketAddr)> {
        (0..self.requests.len()).filter_map(|at| request(&self.requests, at))
    }

    /// Hands each request to `answer` with its source and a buffer for the reply. Queues the replies for
    /// which `answer` returns a length above zero.
    pub(crate) fn answer(
        &mut self,
        mut answer: impl FnMut(&[u8], SocketAddr, &mut [u8; REPLY]) -> usize,
    ) {
        for at in 0..self.requests.len() {
            let Some((datagram, source)) = request(&self.requests, at) else {
                continue;
            };
            let reply = self.queued;
            let length = answer(datagram, source, &mut self.replies.buffers()[reply]);
            if length > 0 {
                self.queue(at, length);
            }
        }
    }

    /// Queues the reply in the next buffer, of this length, to the source of a request.
    fn queue(&mut self, request: usize, length: usize) {
        let reply = self.queued;
        self.queued += 1;
        let to = Some(self.requests.address(request));
        self.replies.set_vector(reply, reply, length);
        if self.with_destination {
            let (mut control, length) = self.requests.control(request);
            // The reply takes the route that the system chooses, not the interface of the request.
            control.clear_interface(length);
            let control = Some((&control, length));
            self.replies
                .set_message(reply, reply..reply + 1, to, control);
        } else {
            self.replies.set_message(reply, reply..reply + 1, to, None);
        }
    }

    /// Sends the queued replies. Returns how many of them could not be sent.
    pub(crate) fn send(&mut self, socket: &UdpSocket) -> usize {
        let queued = std::mem::take(&mut self.queued);
        let (mut sent, mut failed) = (0, 0);
        while sent < queued {
            match self.replies.send(socket, sent..queued) {
                Ok(count) if count > 0 => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The first of these cannot be sent (no route, no buffer): leave it out.
                _ => {
                    sent += 1;
                    failed += 1;
                }
            }
        }
        failed
    }
}

/// `None` for a request from no IP address, and one that is longer than a buffer. IPv4-mapped sources are
/// IPv4.
fn request<const LEN: usize>(requests: &Incoming<LEN>, at: usize) -> Option<(&[u8], SocketAddr)> {
    let source = requests.address(at).decode()?;
    let source = SocketAddr::new(source.ip().to_canonical(), source.port());
    Some((requests.datagram(at)?, source))
}

impl<const REQUEST: usize, const REPLY: usize> fmt::Debug for RequestBatch<REQUEST, REPLY> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBatch")
            .field("requests", &self.requests.len())
            .field("queued", &self.queued)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::*;
    use crate::socket::mmsg::BATCH;
    use crate::socket::mmsg::address::RawAddr;

    type Batch = RequestBatch<2048, 1432>;

    fn pair(server: &str, client: &str) -> (UdpSocket, UdpSocket) {
        let server = UdpSocket::bind(server).unwrap();
        let client = UdpSocket::bind(client).unwrap();
        for socket in [&server, &client] {
            socket
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
        }
        (server, client)
    }

    /// Echoes in batches, more datagrams than one batch holds, and drops the empty ones.
    fn echo(server: &str, client: &str, to: &str, source: &str) {
        let (server, client) = pair(server, client);
        let mut to: SocketAddr = to.parse().unwrap();
        to.set_port(server.local_addr().unwrap().port());
        let mut batch = Batch::new(&server).unwrap();
        let count = BATCH as u32 + 7;
        for number in 0..count {
            client.send_to(&number.to_be_bytes(), to).unwrap();
            client.send_to(b"", to).unwrap();
        }
        let mut seen = 0;
        while seen < 2 * count {
            batch.receive(&server).unwrap();
            batch.answer(|request, from, reply| {
                seen += 1;
                assert_eq!(from.ip(), source.parse::<IpAddr>().unwrap());
                reply[..request.len()].copy_from_slice(request);
                request.len()
            });
            assert_eq!(batch.send(&server), 0);
        }
        for number in 0..count {
            let mut reply = [0; 64];
            let (length, from) = client.recv_from(&mut reply).unwrap();
            assert_eq!(reply[..length], number.to_be_bytes());
            assert_eq!(from, to, "the reply comes from where the request went");
        }
    }

    #[test]
    fn echoes_over_ipv4() {
        echo("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:1", "127.0.0.1");
    }

    #[test]
    fn echoes_over_ipv6() {
        echo("[::1]:0", "[::1]:0", "[::1]:1", "::1");
    }

    #[test]
    fn answers_from_the_address_that_was_asked() {
        echo("0.0.0.0:0", "127.0.0.1:0", "127.0.0.77:1", "127.0.0.1");
    }

    #[test]
    fn answers_from_the_address_that_was_asked_on_a_dual_stack_socket() {
        let server =
            socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None).unwrap();
        server.set_only_v6(false).unwrap();
        server
            .bind(&"[::]:0".parse::<SocketAddr>().unwrap().into())
            .unwrap();
        let server: UdpSocket = server.into();
        server
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let port = server.local_addr().unwrap().port();
        let mut batch = Batch::new(&server).unwrap();
        for (client, to) in [("127.0.0.1:0", "127.0.0.77"), ("[::1]:0", "::1")] {
            let client = UdpSocket::bind(client).unwrap();
            client
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            let to = SocketAddr::new(to.parse().unwrap(), port);
            client.send_to(b"hello", to).unwrap();
            batch.receive(&server).unwrap();
            batch.answer(|request, from, reply| {
                assert_eq!(from, client.local_addr().unwrap());
                reply[..request.len()].copy_from_slice(request);
                request.len()
            });
            assert_eq!(batch.send(&server), 0);
            let mut reply = [0; 64];
            assert_eq!(client.recv_from(&mut reply).unwrap(), (5, to));
        }
    }

    #[test]
    fn a_reply_that_cannot_be_sent_does_not_hold_up_the_others() {
        let (server, client) = pair("127.0.0.1:0", "127.0.0.1:0");
        let to = server.local_addr().unwrap();
        let mut batch = Batch::new(&server).unwrap();
        client.send_to(b"a", to).unwrap();
        client.send_to(b"b", to).unwrap();
        let mut seen = 0;
        while seen < 2 {
            batch.receive(&server).unwrap();
            batch.answer(|request, _, reply| {
                seen += 1;
                reply[0] = request[0];
                1
            });
            assert_eq!(batch.send(&server), 0);
        }
        batch.queue(0, 1);
        batch.queue(0, 1);
        // Port zero cannot be sent to.
        let nowhere = RawAddr::from(SocketAddr::new(to.ip(), 0));
        batch.replies.set_message(0, 0..1, Some(&nowhere), None);
        assert_eq!(batch.send(&server), 1);
    }

    #[test]
    fn an_oversized_datagram_is_passed_over() {
        let (server, client) = pair("127.0.0.1:0", "127.0.0.1:0");
        let to = server.local_addr().unwrap();
        let mut batch = Batch::new(&server).unwrap();
        client.send_to(&[7; 2048 + 1], to).unwrap();
        client.send_to(b"small", to).unwrap();
        let mut seen = Vec::new();
        while seen.is_empty() {
            batch.receive(&server).unwrap();
            batch.answer(|request, _, _| {
                seen.push(request.to_vec());
                0
            });
        }
        assert_eq!(seen, [b"small"]);
    }
}
