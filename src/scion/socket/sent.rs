//! Keeps the long datagrams that were sent last: all of a client, those of handshakes of a server.
//!
//! They open a QUIC connection, and are too long for an SCMP error to return in full. When a router
//! reports that their path has failed, they are sent again over another path at once. QUIC itself
//! would wait for three of its assumed round trips.

use std::collections::VecDeque;
use std::net::SocketAddr;

/// Number of datagrams that a client keeps: two openings of a connection with their first requests.
const OF_CLIENT: usize = 8;
/// Number of datagrams that a server keeps: its part of some forty handshakes. An error about them
/// arrives within a round trip.
const OF_SERVER: usize = 128;
/// Datagrams up to this length are not kept. SCMP errors, which have at most 1232 bytes with
/// headers, return them in full over all but the longest paths.
const SHORT: usize = 256;
/// Bytes that identify a returned datagram: some of them are encrypted.
const ENOUGH: usize = 64;

/// The kept datagrams, the latest last, with the synthetic addresses of their receivers.
#[derive(Debug)]
pub(super) struct Sent {
    kept: VecDeque<(SocketAddr, Vec<u8>)>,
    most: usize,
}

impl Sent {
    pub(super) fn of_client() -> Self {
        Self {
            kept: VecDeque::new(),
            most: OF_CLIENT,
        }
    }

    pub(super) fn of_server() -> Self {
        Self {
            kept: VecDeque::new(),
            most: OF_SERVER,
        }
    }

    pub(super) fn keep(&mut self, to: SocketAddr, datagram: &[u8]) {
        if datagram.len() < SHORT {
            return;
        }
        // Reuses the memory of the oldest.
        let mut room = match self.kept.len() >= self.most {
            true => self.kept.pop_front().unwrap_or((to, Vec::new())).1,
            false => Vec::new(),
        };
        room.clear();
        room.extend_from_slice(datagram);
        self.kept.push_back((to, room));
    }

    /// Finds the kept datagram with this beginning.
    pub(super) fn find(&self, beginning: &[u8]) -> Option<&[u8]> {
        let mut latest = self.kept.iter().rev();
        let found = latest.find(|(_, it)| is_of(beginning, it));
        found.map(|(_, datagram)| datagram.as_slice())
    }

    /// Takes out the datagram with this beginning that was sent to this receiver.
    pub(super) fn take(&mut self, to: SocketAddr, beginning: &[u8]) -> Option<Vec<u8>> {
        let mut kept = self.kept.iter();
        let at = kept.rposition(|(receiver, it)| *receiver == to && is_of(beginning, it))?;
        self.kept.remove(at).map(|(_, datagram)| datagram)
    }
}

fn is_of(beginning: &[u8], datagram: &[u8]) -> bool {
    beginning.len() >= ENOUGH && datagram.starts_with(beginning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_long_datagrams_are_found_by_their_beginning() {
        let mut sent = Sent::of_client();
        let to = SocketAddr::from(([127, 0, 0, 1], 1));
        let datagram = |number: u8| [&[number; 100][..], &[0; 1100]].concat();
        for number in 0..=OF_CLIENT as u8 {
            sent.keep(to, &datagram(number));
            sent.keep(to, &[number; 200]);
        }
        assert_eq!(sent.kept.len(), OF_CLIENT);
        assert_eq!(sent.find(&datagram(0)), None, "the oldest has made room");
        for number in 1..=OF_CLIENT as u8 {
            let whole = datagram(number);
            assert_eq!(sent.find(&whole[..1000]), Some(&whole[..]));
            assert_eq!(sent.find(&whole[..ENOUGH]), Some(&whole[..]));
            assert_eq!(sent.find(&whole[..ENOUGH - 1]), None);
        }
        assert_eq!(sent.find(&[9; 1000]), None);
        assert_eq!(sent.find(&[]), None);

        let whole = datagram(1);
        let other = SocketAddr::from(([127, 0, 0, 1], 2));
        assert_eq!(sent.take(other, &whole[..1000]), None, "sent to another");
        assert_eq!(sent.take(to, &whole[..ENOUGH - 1]), None);
        assert_eq!(sent.take(to, &whole[..1000]), Some(whole.clone()));
        assert_eq!(sent.take(to, &whole[..1000]), None, "once");
    }
}
