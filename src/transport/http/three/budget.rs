//! Bounds what a connection may cost without carrying bytes or requests.
//!
//! A packet of 1,400 bytes holds some 400 empty STREAM frames. Each causes an event, although it
//! carries nothing.

use super::frame::Code;

/// Events that a connection may cause before it must carry bytes. Repeated packets carry nothing
/// new, so a client on a bad link needs some, as does one that cancels its requests.
const MOST: usize = 4096;
/// What a new stream costs, in events.
const STREAM: usize = 16;
/// What an answered request earns: the events of a stream, and some more.
const ANSWER: usize = 32;

/// The events that a connection may still cause. Bytes and answered requests earn more.
#[derive(Debug)]
pub(super) struct Budget(usize);

impl Budget {
    pub(super) const fn new() -> Self {
        Self(MOST)
    }

    /// Pays for an event of a stream.
    pub(super) const fn pay_event(&mut self) -> Result<(), Code> {
        self.pay(1)
    }

    /// Pays for a stream that the client has opened.
    pub(super) const fn pay_stream(&mut self) -> Result<(), Code> {
        self.pay(STREAM)
    }

    /// Earns for bytes that were read.
    pub(super) fn earn_bytes(&mut self, bytes: usize) {
        self.0 = self.0.saturating_add(bytes).min(MOST);
    }

    /// Earns for an answered request.
    pub(super) fn earn_answer(&mut self) {
        self.earn_bytes(ANSWER);
    }

    const fn pay(&mut self, cost: usize) -> Result<(), Code> {
        match self.0.checked_sub(cost) {
            Some(rest) => {
                self.0 = rest;
                Ok(())
            }
            None => Err(Code::EXCESSIVE_LOAD),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_without_bytes_run_out() {
        let mut budget = Budget::new();
        for _ in 0..MOST {
            assert_eq!(budget.pay_event(), Ok(()));
        }
        assert_eq!(budget.pay_event(), Err(Code::EXCESSIVE_LOAD));
        budget.earn_bytes(1);
        assert_eq!(budget.pay_event(), Ok(()));
        assert_eq!(budget.pay_event(), Err(Code::EXCESSIVE_LOAD));
    }

    #[test]
    fn streams_without_requests_run_out_and_requests_do_not() {
        let mut budget = Budget::new();
        let streams = (0..).take_while(|_| budget.pay_stream().is_ok()).count();
        assert_eq!(streams, MOST / STREAM);
        let mut budget = Budget::new();
        for _ in 0..10 * MOST {
            budget.pay_event().unwrap();
            budget.pay_stream().unwrap();
            budget.earn_answer();
        }
    }

    #[test]
    fn nothing_is_saved_up() {
        let mut budget = Budget::new();
        budget.earn_bytes(usize::MAX);
        let events = (0..).take_while(|_| budget.pay_event().is_ok()).count();
        assert_eq!(events, MOST);
    }
}
