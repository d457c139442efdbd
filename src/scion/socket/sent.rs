//! Keeps the long datagrams that a client has sent lately, which no SCMP error can return whole: those that
//! open a QUIC connection. When a router reports that their path has failed, they are sent again over
//! another path at once. QUIC itself would wait for three of its assumed round trips.

use std::collections::VecDeque;

/// Datagrams that are kept: those of two openings, with the first requests.
const KEPT: usize = 8;
/// Shorter ones are returned whole, over all but the longest paths: an SCMP message has 1232 bytes, headers
/// included.
const SHORT: usize = 256;
/// How much of one has to be returned to recognize it: some of it is encrypted.
const ENOUGH: usize = 64;

/// The kept datagrams, the latest at the end.
#[derive(Debug, Default)]
pub(super) struct Sent(VecDeque<Vec<u8>>);

impl Sent {
    pub(super) fn keep(&mut self, datagram: &[u8]) {
        if datagram.len() < SHORT {
            return;
        }
        // Reuses the memory of the oldest.
        let mut room = match self.0.len() {
            KEPT.. => self.0.pop_front().unwrap_or_default(),
            _ => Vec::new(),
        };
        room.clear();
        room.extend_from_slice(datagram);
        self.0.push_back(room);
    }

    /// The kept datagram that begins so.
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
