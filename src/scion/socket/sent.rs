//! Keeps the long datagrams that a client sent last.
//!
//! They open a QUIC connection, and are too long for an SCMP error to return in full. When a router
//! reports that their path has failed, they are sent again over another path at once. QUIC itself
//! would wait for three of its assumed round trips.

use std::collections::VecDeque;

/// Number of kept datagrams: two openings of a connection with their first requests.
const KEPT: usize = 8;
/// Datagrams up to this length are not kept. SCMP errors, which have at most 1232 bytes with
/// headers, return them in full over all but the longest paths.
const SHORT: usize = 256;
/// Bytes that identify a returned datagram: some of them are encrypted.
const ENOUGH: usize = 64;

/// The kept datagrams, the latest last.
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

    /// Finds the kept datagram with this beginning.
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
