//! Endpoints whose socket fails.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::pin::Pin;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use quinn::UdpPoller;
use quinn::udp::{RecvMeta, Transmit};

use super::*;
use crate::counters::Counter;
use crate::transport::scion::tests::{listener, service};

/// A socket whose first calls to receive fail.
#[derive(Debug)]
struct Failing {
    socket: Arc<QuicSocket>,
    errors: Mutex<VecDeque<i32>>,
}

impl AsyncUdpSocket for Failing {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        match self.errors.lock().pop_front() {
            Some(code) => Poll::Ready(Err(io::Error::from_raw_os_error(code))),
            None => self.socket.poll_recv(cx, buffers, metas),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Serves on a socket that fails with these errors.
fn failing(codes: &[i32]) -> Arc<Failing> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    Arc::new(Failing {
        socket: Arc::new(QuicSocket::new(socket).unwrap()),
        errors: Mutex::new(codes.iter().copied().collect()),
    })
}

fn seat() -> Seat {
    Seat::group(1).next().unwrap()
}

#[tokio::test]
async fn errors_of_receiving_that_pass_do_not_end_an_endpoint() {
    let codes = [
        libc::ENOMEM,
        libc::ECONNREFUSED,
        libc::ENOBUFS,
        libc::EHOSTUNREACH,
    ];
    let (service, socket) = (service(), failing(&codes));
    let to = socket.local_addr().unwrap();
    let (listener, stop) = (listener(&service), CancellationToken::new());
    let until = stop.clone();
    let served = tokio::spawn(async move { listener.run_on(socket, seat(), until).await });
    // Packets of an unknown version are answered.
    let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut packet = b"\xc3\x1a\x2a\x3a\x4a\x08destiny!\x03src".to_vec();
    packet.resize(1200, 0);
    client.send_to(&packet, to).await.unwrap();
    let answer = client.recv(&mut packet);
    let answered = tokio::time::timeout(Duration::from_secs(10), answer).await;
    assert!(answered.unwrap().unwrap() > 20);
    let failures = service.counters.snapshot().get(Counter::ReceiveFailures);
    assert_eq!(failures, codes.len() as u64);
    stop.cancel();
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_endpoint_ends_if_its_socket_is_unusable() {
    let (service, socket) = (service(), failing(&[libc::EBADF]));
    let listener = listener(&service);
    let ended = listener.run_on(socket, seat(), CancellationToken::new());
    let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
    assert_eq!(
        ended.unwrap().unwrap_err().raw_os_error(),
        Some(libc::EBADF)
    );
}
