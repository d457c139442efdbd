//! Hands packets over between the endpoints of one port.
//!
//! The kernel chooses the socket by the address and port of the client. When the NAT of a client
//! changes its port, its packets reach another socket than before. The connection ids of an
//! endpoint say which endpoint it is, so that the packets can be handed over.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use quinn_proto::{
    ConnectionId, ConnectionIdGenerator, EcnCodepoint, EndpointConfig, HashedConnectionIdGenerator,
    InvalidCid,
};

use super::driver::Received;

/// The most packets that wait for an endpoint. Strangers can send packets with any id.
const MOST: usize = 256;
/// Length of a connection id, which [`HashedConnectionIdGenerator`] makes.
const ID: usize = 8;

/// An endpoint's place among the endpoints of its port.
#[derive(Debug)]
pub(crate) struct Seat {
    index: usize,
    mailboxes: Arc<[Mailbox]>,
    /// The waker in the mailbox.
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Mailbox {
    /// Whether packets wait.
    filled: AtomicBool,
    packets: Mutex<(Vec<Packet>, Option<Waker>)>,
}

/// A packet that another socket has received.
#[derive(Debug)]
pub(super) struct Packet {
    payload: Box<[u8]>,
    remote: SocketAddr,
    local: Option<IpAddr>,
    ecn: Option<EcnCodepoint>,
}

impl Packet {
    pub(super) fn received(&self) -> Received<'_> {
        Received {
            payload: &self.payload,
            remote: self.remote,
            local: self.local,
            ecn: self.ecn,
        }
    }
}

impl Seat {
    /// The seats of so many endpoints.
    pub(crate) fn group(endpoints: usize) -> impl Iterator<Item = Self> {
        let mailboxes: Arc<[Mailbox]> = (0..endpoints).map(|_| Mailbox::default()).collect();
        (0..endpoints).map(move |index| Self {
            index,
            mailboxes: Arc::clone(&mailboxes),
            waker: None,
        })
    }

    /// Makes the endpoint name its seat in its connection ids.
    pub(super) fn mark(&self, config: &mut EndpointConfig) {
        let (index, endpoints) = (self.index, self.mailboxes.len());
        if endpoints > 1 {
            config.cid_generator(move || {
                Box::new(Ids {
                    index,
                    endpoints,
                    hashed: HashedConnectionIdGenerator::new(),
                })
            });
        }
    }

    /// Hands a packet over if it belongs to another endpoint: `Some` if it does, with whether there
    /// was room for it.
    ///
    /// Only packets after the handshake are handed over. The ids of the first packets are the
    /// client's.
    pub(super) fn hand_over(&self, datagram: &Received<'_>) -> Option<bool> {
        let endpoints = self.mailboxes.len();
        if endpoints == 1 {
            return None;
        }
        let [flags, id @ ..] = datagram.payload else {
            return None;
        };
        let owner = owner(id.get(..ID)?, endpoints);
        if flags & 0x80 != 0 || owner == self.index {
            return None;
        }
        Some(self.mailboxes[owner].put(datagram))
    }

    /// Takes the packets that others have handed over. The task is woken when there are more.
    pub(super) fn take(&mut self, cx: &Context<'_>) -> Vec<Packet> {
        if self.mailboxes.len() == 1 {
            return Vec::new();
        }
        let mailbox = &self.mailboxes[self.index];
        if !self
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            self.waker = Some(cx.waker().clone());
            mailbox.packets.lock().1.clone_from(&self.waker);
        }
        if !mailbox.filled.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut mailbox.packets.lock().0)
    }
}

impl Mailbox {
    /// Returns whether there was room.
    fn put(&self, datagram: &Received<'_>) -> bool {
        let (packets, waker) = &mut *self.packets.lock();
        if packets.len() >= MOST {
            return false;
        }
        packets.push(Packet {
            payload: datagram.payload.into(),
            remote: datagram.remote,
            local: datagram.local,
            ecn: datagram.ecn,
        });
        self.filled.store(true, Ordering::Release);
        if let Some(waker) = waker {
            waker.wake_by_ref();
        }
        true
    }
}

/// The endpoint that made a connection id.
fn owner(id: &[u8], endpoints: usize) -> usize {
    let first = id.iter().take(2);
    first.fold(0, |number, byte| number << 8 | usize::from(*byte)) % endpoints
}

/// Makes connection ids that [`owner`] reads: draws until one fits, which takes as many draws as
/// there are endpoints. To others the ids look random.
struct Ids {
    index: usize,
    endpoints: usize,
    hashed: HashedConnectionIdGenerator,
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        loop {
            let id = self.hashed.generate_cid();
            if owner(&id, self.endpoints) == self.index {
                return id;
            }
        }
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        self.hashed.validate(id)
    }

    fn cid_len(&self) -> usize {
        ID
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(payload: &[u8]) -> Received<'_> {
        Received {
            payload,
            remote: SocketAddr::from(([192, 0, 2, 1], 1)),
            local: None,
            ecn: None,
        }
    }

    #[test]
    fn packets_reach_the_endpoint_that_made_their_id() {
        let mut seats: Vec<_> = Seat::group(3).collect();
        for index in 0..3 {
            let mut ids = Ids {
                index,
                endpoints: 3,
                hashed: HashedConnectionIdGenerator::new(),
            };
            assert_eq!(ids.generate_cid().len(), ids.cid_len());
            for _ in 0..50 {
                let id = ids.generate_cid();
                assert!(ids.validate(&id).is_ok());
                let short = [&[0x40][..], &id, b"payload"].concat();
                let long = [&[0xc0][..], &id, b"payload"].concat();
                for (from, seat) in seats.iter().enumerate() {
                    assert_eq!(seat.hand_over(&received(&long)), None);
                    assert_eq!(seat.hand_over(&received(&short[..8])), None);
                    let handed = seat.hand_over(&received(&short));
                    assert_eq!(handed, (from != index).then_some(true));
                }
                let cx = &mut Context::from_waker(Waker::noop());
                let packets = seats[index].take(cx);
                assert_eq!(packets.len(), 2);
                assert!(packets.iter().all(|it| it.received().payload == short));
            }
        }
    }

    #[test]
    fn a_full_mailbox_drops_packets() {
        let seats: Vec<_> = Seat::group(2).collect();
        let packet = [0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for _ in 0..MOST {
            assert_eq!(seats[1].hand_over(&received(&packet)), Some(true));
        }
        assert_eq!(seats[1].hand_over(&received(&packet)), Some(false));
        assert_eq!(seats[0].hand_over(&received(&packet)), None);
    }

    #[test]
    fn an_endpoint_alone_keeps_its_packets() {
        let mut seats: Vec<_> = Seat::group(1).collect();
        assert_eq!(seats[0].hand_over(&received(&[0x40; 20])), None);
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(seats[0].take(cx).is_empty());
    }
}
