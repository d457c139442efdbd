//! Sends packets again that a border router returned with an SCMP error, over another path.

use std::collections::VecDeque;

use parking_lot::MutexGuard;
use scion_tracker_core::address::ScionAddr;
use scion_tracker_core::codec::scion::{Packet, Scmp};
use scion_tracker_core::request::OriginIsdAs;

use super::ScionSocket;
use super::answered::{Answered, Held, Way, returned_packet};
use super::filter::Datagram;
use super::remotes::{Arrival, Now, Report, Returned, Route, Unsent, shared};
use super::sent::Sent;
use crate::counters::Counter;

/// Datagrams of a client that wait for another path.
const WAITING: usize = 8;

/// Datagrams of a client that were returned when it had no other path, until it has one.
#[derive(Debug, Default)]
pub(super) struct Waiting(VecDeque<Held>);

impl Waiting {
    /// The oldest makes room.
    fn add(&mut self, held: Held) {
        if self.0.len() >= WAITING {
            self.0.pop_front();
        }
        self.0.push_back(held);
    }

    /// Takes the datagrams to a remote, except those that have waited too long.
    fn take(&mut self, to: ScionAddr, now: Now) -> Vec<Held> {
        self.0.retain(|held| held.waits(now));
        let (taken, kept) = self.0.drain(..).partition(|held| held.to == to);
        self.0 = kept;
        Vec::from(taken)
    }
}

impl ScionSocket {
    /// Handles an SCMP error about a path. Sends the returned packet again over a working path, up
    /// to a rate: anyone can forge such an error and have us send the packet it quotes.
    pub(super) fn scmp_error(&self, packet: &Packet<'_>, scmp: &Scmp<'_>, now: Now) {
        let mut remotes = self.remotes.lock();
        let report = remotes.scmp_error(&self.addrs, self.local(), packet, scmp, now);
        drop(remotes);
        let Some(Report {
            failure,
            again,
            unsent,
        }) = report
        else {
            if !self.handshake_again(scmp, now) && !self.reply_again(scmp, now) {
                self.counters.count(Counter::ScionScmpIgnored);
            }
            return;
        };
        if let Some((route, returned)) = again {
            self.send_again(&route, returned, now);
        }
        if let Some(unsent) = unsent {
            match &self.answered {
                Some(answered) => self.send_over_a_way(&mut answered.lock(), &unsent, now),
                None => self.wait_for_paths(&unsent, now),
            }
        }
        if let Some(failure) = failure {
            self.counters.count(Counter::ScionPathsFailed);
            tracing::debug!(?failure, "path failed");
            // There may be no listener.
            let _ = self.failures.send(failure);
        }
    }

    fn send_again(&self, route: &Route, returned: Returned<'_>, now: Now) {
        let sent = self.sent.lock();
        if let Some(datagram) = returned.whole(&sent)
            && self.resends.lock().allow(now.since_start)
        {
            self.counters.count(Counter::ScionResent);
            self.transmit(route, datagram, None);
        }
    }

    /// Keeps a datagram of a client until [`ScionSocket::set_paths`] sets other paths.
    fn wait_for_paths(&self, unsent: &Unsent<'_>, now: Now) {
        let sent = self.sent.lock();
        if let Some(datagram) = unsent.returned.whole(&sent) {
            let held = Held::new(unsent.to, datagram, unsent.path, now);
            self.waiting.lock().add(held);
        }
    }

    /// Sends the datagrams that wait for another path to this remote.
    pub(super) fn send_waiting(&self, to: ScionAddr, now: Now) {
        let waiting = self.waiting.lock().take(to, now);
        let route = match waiting.is_empty() {
            true => return,
            false => self.remotes.lock().route(self.addrs.of(to), None),
        };
        let Some(route) = route else { return };
        for held in waiting {
            match held.may_take(route.template.path(), now) {
                true => self.send_reply_again(&route, &held, now),
                false => self.waiting.lock().add(held),
            }
        }
    }

    /// Sends a QUIC packet again over a path that other packets from the AS of the remote took. The
    /// remote keeps that path if routers prove the source AS of packets: no forger can then be on it.
    fn send_over_a_way(&self, answered: &mut Answered, unsent: &Unsent<'_>, now: Now) {
        // The path counts even if the datagram is not known.
        let (datagram, whole) = match unsent.returned {
            Returned::Whole(datagram) => (datagram, true),
            Returned::Beginning(_) => (&[][..], false),
        };
        let held = Held::new(unsent.to, datagram, unsent.path, now);
        match self.another_way(answered, &held, now) {
            Some((route, way)) => {
                if whole {
                    self.send_reply_again(&route, &held, now);
                }
                let proven = self.filter.proves(unsent.to.host.ia) == OriginIsdAs::Proven;
                if let Some(path) = way.path().filter(|_| proven) {
                    let arrival = Arrival {
                        path,
                        via: self.filter.via(path, way.underlay),
                        token: None,
                        now,
                    };
                    if self.remotes.lock().adopt(unsent.name, &arrival, route) {
                        self.counters.count(Counter::ScionPathsAdopted);
                    }
                }
            }
            None if whole => answered.hold(held),
            None => {}
        }
    }

    /// The path from the AS of a receiver that shares the fewest interfaces with the one that failed,
    /// and the route over it.
    fn another_way<'a>(
        &self,
        answered: &'a Answered,
        held: &Held,
        now: Now,
    ) -> Option<(Route, &'a Way)> {
        let ways = answered.ways(held.to.host.ia).filter_map(|way| {
            let route = self.route_to(held.to, way.path()?, way.underlay).ok()?;
            let path = route.template.path();
            let shared = shared(path, held.failed()?);
            held.may_take(path, now).then_some((shared, route, way))
        });
        let (_, route, way) = ways.min_by_key(|(shared, ..)| *shared)?;
        Some((route, way))
    }

    /// Sends a BEP 15 reply again that a router returned, over another path from the AS of its
    /// receiver. If none is known, the next packet over one has it sent. Returns whether the error is
    /// about a reply of ours.
    fn reply_again(&self, scmp: &Scmp<'_>, now: Now) -> bool {
        let Some(answered) = &self.answered else {
            return false;
        };
        let mut answered = answered.lock();
        let Some(held) = answered.returned(self.local(), scmp, now) else {
            return false;
        };
        self.send_held(answered, held, now);
        true
    }

    /// Sends a packet of a handshake again that a router returned, once, like a BEP 15 reply. The remote
    /// has proven nothing yet, so an error counts only if it quotes a packet that was sent to it.
    fn handshake_again(&self, scmp: &Scmp<'_>, now: Now) -> bool {
        let (Some(answered), Some((to, quoted))) =
            (&self.answered, returned_packet(self.local(), scmp))
        else {
            return false;
        };
        let sent = self.sent.lock().take(self.addrs.of(to), quoted.payload);
        let Some(datagram) = sent else {
            return false;
        };
        let held = Held::new(to, &datagram, quoted.path, now);
        self.send_held(answered.lock(), held, now);
        true
    }

    /// Sends a returned datagram over another path from the AS of its receiver, or keeps it until one
    /// is known.
    fn send_held(&self, mut answered: MutexGuard<'_, Answered>, held: Held, now: Now) {
        match self.another_way(&answered, &held, now) {
            Some((route, _)) => {
                drop(answered);
                self.send_reply_again(&route, &held, now);
            }
            None => answered.hold(held),
        }
    }

    /// Notes the path of a packet, and sends returned replies over it.
    pub(super) fn note_path(&self, datagram: &Datagram<'_>, now: Now) {
        let Some(answered) = &self.answered else {
            return;
        };
        let mut answered = answered.lock();
        answered.note_path(datagram);
        let held = answered.take_held(datagram.source.host.ia, now);
        drop(answered);
        self.try_held(held, datagram, now);
    }

    /// Sends returned replies over the path of this packet, unless it is the one that failed. Keeps
    /// the others.
    #[inline]
    pub(super) fn try_held(&self, held: Vec<Held>, datagram: &Datagram<'_>, now: Now) {
        for held in held {
            let route = self.route_to(held.to, datagram.path, datagram.underlay);
            match route {
                Ok(route) if held.may_take(route.template.path(), now) => {
                    self.send_reply_again(&route, &held, now);
                }
                _ => {
                    if let Some(answered) = &self.answered {
                        answered.lock().hold(held);
                    }
                }
            }
        }
    }

    fn send_reply_again(&self, route: &Route, held: &Held, now: Now) {
        if self.resends.lock().allow(now.since_start) {
            self.counters.count(Counter::ScionResent);
            self.transmit(route, &held.payload, None);
        }
    }
}

impl<'a> Returned<'a> {
    /// The whole datagram, which may be among those that were sent last.
    fn whole(self, sent: &'a Sent) -> Option<&'a [u8]> {
        match self {
            Self::Whole(datagram) => Some(datagram),
            Self::Beginning(it) => sent.find(it),
        }
    }
}
