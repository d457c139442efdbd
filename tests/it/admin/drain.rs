//! A tracker that drains or stops, seen by clients of HTTP/2 and HTTP/3 that others wrote (h2, h3): requests in
//! flight are answered, then the connection ends in order.

use std::time::Duration;

use bytes::{Buf as _, Bytes};
use scion_tracker::server::Kind;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::common::{self, Running};
use crate::http3::raw::{End, closed};
use crate::{http, http3};

/// How a tracker is told to go.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Going {
    Drains,
    Stops,
}

impl Going {
    fn begin(self, tracker: &Running) {
        match self {
            Self::Drains => tracker.handle.drain(None),
            Self::Stops => tracker.handle.stop(),
        }
    }
}

/// The deadline of a stop, and some time for a busy machine.
const SOON: Duration = Duration::from_secs(10);

fn request() -> ::http::Request<()> {
    let target = format!(
        "https://localhost/announce?{}",
        super::announce_query(1, 6881, 1)
    );
    ::http::Request::get(target).body(()).unwrap()
}

/// Reads a body to its end.
async fn read(mut body: h2::RecvStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    bytes
}

async fn stop(tracker: Running) {
    let stopped = tokio::task::spawn_blocking(move || tracker.stop());
    timeout(SOON, stopped).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_answers_what_is_in_flight_and_goes() {
    for going in [Going::Drains, Going::Stops] {
        let tracker = common::start(common::config());
        let stream = TcpStream::connect(tracker.address(Kind::Http)).await;
        // The client takes no byte of a body until it says so: its requests stay in flight.
        let built = h2::client::Builder::new()
            .initial_window_size(0)
            .handshake::<_, Bytes>(stream.unwrap())
            .await;
        let (mut sender, mut connection) = built.unwrap();
        let (open, opened) = oneshot::channel::<()>();
        let ended = tokio::spawn(async move {
            tokio::select! {
                end = &mut connection => return end,
                _ = opened => {}
            }
            connection.set_initial_window_size(65_535).unwrap();
            connection.await
        });
        let (held, _) = sender.send_request(request(), true).unwrap();
        let held = held.await.unwrap();
        assert_eq!(held.status(), 200);
        let mut bodies = vec![held.into_body()];
        going.begin(&tracker);
        if going == Going::Drains {
            // Connections end after their next reply, or before it if the tracker looks at them.
            let next = async {
                let mut sender = sender.clone().ready().await?;
                let (next, _) = sender.send_request(request(), true)?;
                next.await
            };
            match next.await {
                Ok(next) => bodies.push(next.into_body()),
                Err(error) => assert!(error.is_go_away(), "{error}"),
            }
        }
        // GOAWAY: the client opens no stream any more.
        let refused = timeout(SOON, async {
            loop {
                match sender.clone().ready().await {
                    Err(error) => return error,
                    Ok(_) => sleep(Duration::from_millis(5)).await,
                }
            }
        });
        let refused = refused.await.unwrap();
        assert!(refused.is_go_away(), "{going:?}: {refused}");
        assert_eq!(refused.reason(), Some(h2::Reason::NO_ERROR), "{going:?}");
        // What was in flight comes whole.
        open.send(()).unwrap();
        for body in bodies {
            let answer = timeout(SOON, read(body)).await.unwrap();
            let text = answer.escape_ascii();
            assert!(answer.starts_with(b"d8:complete"), "{going:?}: {text}");
        }
        let end = timeout(SOON, ended).await.unwrap().unwrap();
        assert!(end.is_ok(), "{going:?}: {end:?}");
        stop(tracker).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http3_answers_what_is_in_flight_and_goes() {
    for going in [Going::Drains, Going::Stops] {
        let tracker = http::start(|_| {});
        let (_endpoint, connection) = http3::connect(&tracker).await;
        let quic = connection.clone();
        let (mut driver, mut sender) = h3::client::new(h3_quinn::Connection::new(connection))
            .await
            .unwrap();
        let driving = tokio::spawn(async move { driver.wait_idle().await });
        // The tracker answers when a request has ended, and this one has not.
        let mut held = sender.send_request(request()).await.unwrap();
        let mut whole = sender.send_request(request()).await.unwrap();
        whole.finish().await.unwrap();
        // When the second one is answered, the tracker knows the first one.
        assert_eq!(whole.recv_response().await.unwrap().status(), 200);
        going.begin(&tracker);
        if going == Going::Drains {
            let mut next = sender.send_request(request()).await.unwrap();
            next.finish().await.unwrap();
            assert_eq!(next.recv_response().await.unwrap().status(), 200);
        }
        // GOAWAY: the client makes no request any more. One that it made before it knew is answered, or
        // rejected so that it can be made again.
        let told = timeout(SOON, async {
            while let Ok(mut early) = sender.send_request(request()).await {
                let _ = early.finish().await;
                let _ = early.recv_response().await;
            }
        });
        told.await.unwrap();
        assert!(quic.close_reason().is_none(), "{going:?}");
        held.finish().await.unwrap();
        let response = timeout(SOON, held.recv_response()).await.unwrap().unwrap();
        assert_eq!(response.status(), 200, "{going:?}");
        let mut body = Vec::new();
        while let Some(mut data) = held.recv_data().await.unwrap() {
            body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
        }
        assert!(body.starts_with(b"d8:complete"), "{}", body.escape_ascii());
        drop(held);
        // H3_NO_ERROR, by the tracker.
        let end = timeout(SOON, quic.closed()).await.unwrap();
        assert_eq!(closed(end), End::Connection(0x100), "{going:?}");
        drop(sender);
        let _ = driving.await;
        stop(tracker).await;
    }
}
