//! What a client has sent lately and no SCMP error can give back whole: the long datagrams that QUIC opens
//! with. When a router says that their path has failed, they go out again over another one at once; QUIC
//! itself would wait for three of its assumed round trips.

use std::collections::VecDeque;

/// Datagrams that are kept: those of two openings, with what a client sends along.
const KEPT: usize = 8;
/// Shorter ones come back whole, over all but the longest paths: an SCMP message has 1232 bytes, headers
/// included.
const SHORT: usize = 256;
/// How much of one has to come back to know it by: what QUIC has encrypted is in it.
const ENOUGH: usize = 64;

/// The latest, the last one at the end.
#[derive(Debug, Default)]
pub(super) struct Sent(VecDeque<Vec<u8>>);

impl Sent {
    pub(super) fn keep(&mut self, datagram: &[u8]) {
        if datagram.len() < SHORT {
            return;
        }
        // The memory of the oldest one, if there are enough.
        let mut room = match self.0.len() {
            KEPT.. => self.0.pop_front().unwrap_or_default(),
            _ => Vec::new(),
        };
        room.clear();
        room.extend_from_slice(datagram);
        self.0.push_back(room);
    }

    /// The datagram of which this is the beginning.
    pub(super) fn find(&self, beginning: &[u8]) -> Option<&[u8]> {
        let mut latest = self.0.iter().rev();
        let found = latest.find(|it| beginning.len() >= ENOUGH && it.starts_with(beginning));
        found.map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_long_datagrams_are_found_by_their_beginning() {
        let mut sent = Sent::default();
        let datagram = |number: u8| [&[number; 100][..], &[0; 1100]].concat();
        for number in 0..=KEPT as u8 {
            sent.keep(&datagram(number));
            sent.keep(&[number; 200]);
        }
        assert_eq!(sent.0.len(), KEPT);
        assert_eq!(sent.find(&datagram(0)), None, "the oldest has made room");
        for number in 1..=KEPT as u8 {
            let whole = datagram(number);
            assert_eq!(sent.find(&whole[..1000]), Some(&whole[..]));
            assert_eq!(sent.find(&whole[..ENOUGH]), Some(&whole[..]));
            assert_eq!(sent.find(&whole[..ENOUGH - 1]), None);
        }
        assert_eq!(sent.find(&[9; 1000]), None);
        assert_eq!(sent.find(&[]), None);
    }
}
