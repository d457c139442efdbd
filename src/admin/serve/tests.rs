//! Clients that are slow, on purpose or not, and the end of their connections.

use std::pin::Pin;

use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::*;
use crate::config::Config;
use crate::server::Server;

/// The API of a server that does not run.
fn api() -> (Server, State) {
    let server = Server::bind(Config::of_a_test()).unwrap();
    let state = State::new(&server.handle());
    (server, state)
}

/// A connection over a pipe that holds this many bytes, and the client's end of it.
fn connect(
    router: Router,
    via: Via,
    bytes: usize,
) -> (DuplexStream, impl Future<Output = ()> + Send + 'static) {
    let (client, server) = duplex(bytes);
    (
        client,
        connection(server, via, router, CancellationToken::new()),
    )
}

fn stranger() -> Via {
    Via::Tcp {
        client: SocketAddr::from(([192, 0, 2, 1], 1)),
        is_loopback: false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_let_go() {
    let router = Router::new().route("/", get(|| async { "x".repeat(1 << 20) }));
    let (mut client, connection) = connect(router, stranger(), 1024);
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        .await
        .unwrap();
    let ended = timeout(TAKE_TIMEOUT + Duration::from_secs(1), connection).await;
    assert!(ended.is_ok(), "the connection is still open");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_gets_the_whole_reply() {
    let router = Router::new().route("/", get(|| async { "x".repeat(20_000) }));
    let (mut client, connection) = connect(router, stranger(), 1024);
    let serving = tokio::spawn(connection);
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let (mut read, mut buffer) = (0, [0; 1024]);
    loop {
        sleep(TAKE_TIMEOUT / 2).await;
        match client.read(&mut buffer).await.unwrap() {
            0 => break,
            bytes => read += bytes,
        }
    }
    assert!(read > 20_000);
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_given_up() {
    for via in [Via::Unix, stranger()] {
        let (_server, state) = api();
        let (mut client, connection) = connect(router(state.clone()), via, 1024);
        let start = Instant::now();
        let serving = tokio::spawn(connection);
        // `/stats` takes forms of everybody.
        let target = match via {
            Via::Unix => "/api/v2/allow",
            Via::Tcp { .. } => "/stats",
        };
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: t\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n"
        );
        client.write_all(head.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(client);
        let dribbling = tokio::spawn(async move {
            for _ in 0..1000 {
                sleep(Duration::from_secs(1)).await;
                if writer.write_all(b"#").await.is_err() {
                    return;
                }
            }
        });
        let mut answer = Vec::new();
        let _ = reader.read_to_end(&mut answer).await;
        serving.await.unwrap();
        let took = start.elapsed();
        assert!(took < Duration::from_secs(60), "{via:?}: {took:?}");
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        dribbling.await.unwrap();
        // Nothing is left of the request.
        tokio::task::yield_now().await;
        assert!(state.shared().changes.is_empty(), "{via:?}");
    }
}

/// Begins a request that is refused, with a body of this length. Returns the client's end and the connection.
async fn refused(
    state: &State,
    length: usize,
    header: &str,
) -> (DuplexStream, tokio::task::JoinHandle<()>) {
    let (mut client, connection) = connect(router(state.clone()), stranger(), 1024);
    let serving = tokio::spawn(connection);
    let head = format!(
        "POST /api/v2/allow HTTP/1.1\r\nHost: t\r\n{header}Content-Length: {length}\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await.unwrap();
    (client, serving)
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_that_sends_before_it_reads_gets_its_answer() {
    let (_server, state) = api();
    let (mut client, serving) = refused(&state, 1 << 20, "").await;
    client.write_all(&[b'#'; 1 << 20]).await.unwrap();
    // The connection goes on.
    client
        .write_all(b"GET /api/health_check HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    assert!(answers.starts_with("HTTP/1.1 401 "), "{answers}");
    assert!(answers.contains("HTTP/1.1 200 "), "{answers}");
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_wants_is_read_up_to_a_limit() {
    let (_server, state) = api();
    let (mut client, serving) = refused(&state, 1_000_000_000, "").await;
    let mut sent = 0;
    while client.write_all(&[b'#'; 1000]).await.is_ok() {
        sent += 1000;
        assert!(sent < REST_BYTES + 100_000, "it reads on");
    }
    assert!(sent >= REST_BYTES, "{sent}");
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 401 "));
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_wants_is_waited_for_but_not_for_long() {
    let (_server, state) = api();
    let start = Instant::now();
    let (mut client, serving) = refused(&state, 1000, "").await;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    serving.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), REST_TIMEOUT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_before_it_sends_is_answered_at_once() {
    let (_server, state) = api();
    let start = Instant::now();
    let (mut client, serving) = refused(&state, 1000, "Expect: 100-continue\r\n").await;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    serving.await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_the_registry_who_is_gone() {
    let (_server, state) = api();
    let walking = state.shared().walking.lock().await;
    for _ in 0..10 {
        let (mut client, connection) = connect(router(state.clone()), Via::Unix, 1024);
        let serving = tokio::spawn(connection);
        client
            .write_all(b"GET /api/v2/torrents HTTP/1.1\r\nHost: t\r\n\r\n")
            .await
            .unwrap();
        while state.shared().changes.is_empty() {
            tokio::task::yield_now().await;
        }
        drop(client);
        serving.await.unwrap();
        let gone = timeout(Duration::from_secs(1), async {
            while !state.shared().changes.is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(gone.await.is_ok(), "the question is still asked");
    }
    drop(walking);
}

/// An accepted connection of a listener.
type Accepting = Pin<Box<dyn Future<Output = io::Result<(DuplexStream, Via)>> + Send>>;

/// A listener to which connections of this client are sent.
fn listener(via: Via) -> (mpsc::Sender<DuplexStream>, impl Fn() -> Accepting) {
    let (sender, receiver) = mpsc::channel(64);
    let receiver = Arc::new(Mutex::new(receiver));
    let accept = move || -> Accepting {
        let receiver = Arc::clone(&receiver);
        Box::pin(async move {
            let stream = receiver.lock().await.recv().await;
            stream
                .map(|stream| (stream, via))
                .ok_or_else(|| io::Error::other("no client is left"))
        })
    };
    (sender, accept)
}

#[tokio::test(start_paused = true)]
async fn one_source_does_not_take_all_connections() {
    let (sender, accept) = listener(stranger());
    let router = Router::new().route("/", get(|| async { "x" }));
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve_all(accept, connection, router, stop.clone()));
    let mut clients: Vec<_> = (0..=crate::admin::sources::MOST)
        .map(|_| {
            let (client, server) = duplex(1024);
            sender.try_send(server).unwrap();
            client
        })
        .collect();
    // The last one is not served.
    let mut buffer = [0; 64];
    assert_eq!(clients.pop().unwrap().read(&mut buffer).await.unwrap(), 0);
    let client = &mut clients[0];
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        .await
        .unwrap();
    assert_ne!(client.read(&mut buffer).await.unwrap(), 0);
    stop.cancel();
    drop(clients);
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_connection_outlives_its_listener() {
    let (sender, accept) = listener(Via::Unix);
    let (_server, state) = api();
    let serving = serve_all(
        accept,
        connection,
        router(state.clone()),
        CancellationToken::new(),
    );
    // One sends half a head. The other reads events, and does not read them.
    let mut clients: Vec<_> = ["GET / HT", "GET /api/v2/events HTTP/1.1\r\nHost: t\r\n\r\n"]
        .map(|sent| {
            let (client, server) = duplex(64);
            sender.try_send(server).unwrap();
            (sent, client)
        })
        .into();
    let sending = async {
        for (sent, client) in &mut clients {
            client.write_all(sent.as_bytes()).await.unwrap();
        }
        let mut first = [0; 8];
        clients[1].1.read_exact(&mut first).await.unwrap();
    };
    tokio::select! {
        () = serving => panic!("nobody stops it"),
        () = sending => {}
    }
    for (_, client) in &mut clients {
        let mut rest = Vec::new();
        let end = timeout(Duration::from_secs(1), client.read_to_end(&mut rest));
        assert!(end.await.is_ok(), "it is still open");
    }
    let left = timeout(Duration::from_secs(1), async {
        while !state.shared().changes.is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(left.await.is_ok(), "the reader of events is still there");
}
