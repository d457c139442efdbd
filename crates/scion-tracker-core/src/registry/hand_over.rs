//! Hands chosen peers over to the sink of a reply, in random order.

use crate::address::IsdAs;
use crate::registry::PeerEntry;
use crate::registry::table::record::{Chosen, Class, Packed, Picks};
use crate::response::{Peer, PeerSink};
use crate::types::{PeerId, Rng};

/// Hands peers over as they are chosen.
pub(super) struct Straight<'a, S> {
    pub(super) order: Order<'a>,
    pub(super) sink: &'a mut S,
}

impl<'a, S: PeerSink> Chosen<'a> for Straight<'_, S> {
    #[inline]
    fn put<P: Packed>(&mut self, ia: IsdAs, class: Class, addr: &'a P, id: &'a PeerId) {
        let (addr, reach) = (addr.bytes(), class.reach());
        let peer = Peer {
            ia,
            reach,
            addr,
            id,
        };
        self.order.push(peer, self.sink);
    }
}

/// The order in which peers are handed over to one requester. Each peer may be at any position.
#[derive(Clone, Copy)]
pub(super) struct Order<'a> {
    requester: &'a PeerEntry,
    draw: u64,
}

impl<'a> Order<'a> {
    pub(super) fn new(requester: &'a PeerEntry, rng: &mut Rng) -> Self {
        Self {
            requester,
            draw: rng.u64(..),
        }
    }

    /// The numbers below `count` (at most [`MAX_NUMWANT`](crate::registry::MAX_NUMWANT)), from a random one by a random stride that has no
    /// factor in common with `count`.
    #[inline]
    pub(super) fn of(self, count: usize) -> impl Iterator<Item = usize> {
        /// Primes above [`MAX_NUMWANT`](crate::registry::MAX_NUMWANT).
        const STRIDES: [usize; 16] = [
            503, 509, 521, 523, 541, 547, 557, 563, 569, 571, 577, 587, 593, 599, 601, 607,
        ];
        let stride = STRIDES[(self.draw & 15) as usize] % count.max(1);
        let mut next = ((self.draw >> 32) as usize * count) >> 32;
        (0..count).map(move |_| {
            let at = next;
            next += stride;
            if next >= count {
                next -= count;
            }
            at
        })
    }

    /// Hands the chosen ones over.
    pub(super) fn push_all<S: PeerSink>(self, chosen: &Picks<'_>, sink: &mut S) {
        for at in self.of(chosen.len()) {
            if let Some(peer) = chosen[at].peer() {
                self.push(peer, sink);
            }
        }
    }

    /// Hands a peer over, unless it is the requester itself under another ISD-AS, from an earlier
    /// announce. Peers with the same IP address are the same host on the Internet only: inside another
    /// AS the address belongs to another host.
    // Inlined: as a function it would get the peer through memory and test again what callers know.
    #[inline(always)]
    pub(super) fn push<S: PeerSink>(self, peer: Peer<'_>, sink: &mut S) {
        let requester = self.requester;
        let itself = peer.addr.is(&requester.addr)
            && *peer.id == requester.id
            && requester.reach.over_ip()
            && peer.reach.over_ip();
        if !itself {
            sink.push(peer);
        }
    }
}
