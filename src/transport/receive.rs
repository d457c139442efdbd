//! Keeps a receiver going after errors that pass.
//!
//! A receiver may fail because the system is short of memory, or because an ICMP message about an
//! earlier datagram arrived. Such an error must not end a listener.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::counters::{Counter, Counters};

/// How long a receiver waits after an error that may come again at once.
const PAUSE: Duration = Duration::from_millis(20);
/// The log names errors at most once in this time.
const SAID: Duration = Duration::from_secs(10);

/// The errors of one receiver.
#[derive(Debug)]
pub(super) struct ReceiveErrors {
    /// What it receives, for the log.
    receiver: &'static str,
    /// When the log last named an error, and how many it has not named since.
    said: Option<Instant>,
    unsaid: u64,
    pause: Option<Pin<Box<Sleep>>>,
}

impl ReceiveErrors {
    pub(super) const fn new(receiver: &'static str) -> Self {
        Self {
            receiver,
            said: None,
            unsaid: 0,
            pause: None,
        }
    }

    /// Counts an error. Returns how long to wait before the next try.
    pub(super) fn note(&mut self, error: &io::Error, counters: &Counters) -> Duration {
        let code = error.raw_os_error();
        if code == Some(libc::EINTR) {
            return Duration::ZERO;
        }
        counters.count(Counter::ReceiveFailures);
        self.unsaid += 1;
        if self.said.is_none_or(|said| said.elapsed() >= SAID) {
            self.said = Some(Instant::now());
            let errors = std::mem::take(&mut self.unsaid);
            let receiver = self.receiver;
            tracing::warn!(receiver, %error, errors, "cannot receive for a moment");
        }
        if is_of_one_peer(code) {
            Duration::ZERO
        } else {
            PAUSE
        }
    }

    /// Bears the result of a receive call, if its error passes. After an error, it is as if no
    /// datagram had arrived, and the task is woken for the next try.
    pub(super) fn bear(
        &mut self,
        received: io::Result<()>,
        counters: &Counters,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Err(error) = received else {
            return Poll::Ready(Ok(()));
        };
        if !passes(&error) {
            return Poll::Ready(Err(error));
        }
        let pause = self.note(&error, counters);
        if pause.is_zero() {
            return Poll::Ready(Ok(()));
        }
        self.pause = Some(Box::pin(tokio::time::sleep(pause)));
        ready!(self.poll_paused(cx));
        Poll::Ready(Ok(()))
    }

    /// Ready unless the receiver waits after an error. Call it before each try.
    pub(super) fn poll_paused(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }
}

/// Whether the error says nothing about the socket itself. Errors without a code come from the
/// runtime.
fn passes(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        None | Some(libc::EBADF | libc::EFAULT | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP)
    )
}

/// Whether an ICMP message about one peer causes this error. Anyone can send such messages, so they
/// must not make others wait. The system reports each once.
const fn is_of_one_peer(code: Option<i32>) -> bool {
    matches!(
        code,
        Some(
            libc::ECONNREFUSED
                | libc::ECONNRESET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENOPROTOOPT
                | libc::EMSGSIZE
                | libc::EPROTO
                | libc::EACCES
        )
    )
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::task::Waker;

    use scion_tracker_core::codec::bep15::{TransactionId, write_connect_request};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::socket::mmsg::injected;
    use crate::transport::scion::tests::service;
    use crate::transport::udp;

    #[tokio::test(start_paused = true)]
    async fn errors_that_pass_are_counted_and_some_cause_a_pause() {
        let counters = Counters::default();
        let mut errors = ReceiveErrors::new("test");
        let cx = &mut Context::from_waker(Waker::noop());
        let fail = |code| Err(io::Error::from_raw_os_error(code));
        assert!(errors.bear(Ok(()), &counters, cx).is_ready());
        assert!(
            errors
                .bear(fail(libc::ECONNREFUSED), &counters, cx)
                .is_ready()
        );
        for code in [libc::ENOMEM, libc::ENOBUFS, libc::EIO] {
            assert!(errors.bear(fail(code), &counters, cx).is_pending());
            assert!(errors.poll_paused(cx).is_pending());
            tokio::time::advance(PAUSE).await;
            assert!(errors.poll_paused(cx).is_ready());
        }
        let snapshot = counters.snapshot();
        assert_eq!(snapshot.get(Counter::ReceiveFailures), 4);
        // The first error was logged; the others wait for their turn.
        assert_eq!(errors.unsaid, 3);
    }

    /// The port is served on, and no worker spins or ends.
    #[test]
    fn errors_that_pass_do_not_end_a_udp_worker() {
        let codes = [libc::ENOMEM, libc::ECONNREFUSED, libc::ENOBUFS];
        let service = service();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        injected::fail_next(to.port(), &codes);
        let stop = CancellationToken::new();
        let options = udp::Options::default();
        let workers = udp::spawn(&service, vec![socket], options, &stop).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut request = Vec::new();
        write_connect_request(TransactionId(7), &mut request);
        client.send_to(&request, to).unwrap();
        assert_eq!(client.recv(&mut [0; 32]).unwrap(), 16);
        let failures = service.counters.snapshot().get(Counter::ReceiveFailures);
        assert_eq!(failures, codes.len() as u64);
        stop.cancel();
        for worker in workers {
            worker.join().unwrap();
        }
    }

    #[test]
    fn errors_of_the_socket_itself_do_not_pass() {
        for code in [libc::EBADF, libc::ENOTSOCK, libc::EINVAL] {
            assert!(!passes(&io::Error::from_raw_os_error(code)));
        }
        assert!(!passes(&io::Error::other("the runtime shuts down")));
        assert!(passes(&io::Error::from_raw_os_error(libc::ENOMEM)));
    }
}
