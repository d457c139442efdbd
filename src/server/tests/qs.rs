//! HTTP/1.1 on one pair of streams, as the Go programs of the SCION world speak it.

use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use tokio::time::timeout;

use super::*;
use crate::Counter;

const NEAR: &str = "1-ff00:0:111,[10.0.0.1]";
const FAR: &str = "2-ff00:0:211,[10.0.0.1]";
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection as `quicutil.SingleStream` has it.
struct Client {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    /// What was received and not yet looked at.
    bytes: Vec<u8>,
}

impl Client {
    /// Connects and sends the first bytes: the tracker's stream is there when it has answered.
    async fn dial(tracker: &Running, from: &str, first: &[u8]) -> Self {
        let dialing = async {
            let connection = tracker.connect(from, &path(1), b"qs").await.unwrap();
            let mut send = connection.open_uni().await.unwrap();
            send.write_all(first).await.unwrap();
            let recv = connection.accept_uni().await.unwrap();
            Self {
                connection,
                send,
                recv,
                bytes: Vec::new(),
            }
        };
        timeout(PATIENCE, dialing).await.expect("a stream in time")
    }

    /// Reads one reply: its head and its body.
    async fn reply(&mut self) -> (String, Vec<u8>) {
        loop {
            if let Some(reply) = self.take_reply() {
                return reply;
            }
            let chunk = timeout(PATIENCE, self.recv.read_chunk(65536, true));
            let chunk = chunk.await.expect("a reply in time").unwrap();
            self.bytes
                .extend_from_slice(&chunk.expect("a whole reply").bytes);
        }
    }

    fn take_reply(&mut self) -> Option<(String, Vec<u8>)> {
        let end = self.bytes.windows(4).position(|it| it == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(self.bytes[..end].to_vec()).unwrap();
        let (_, rest) = head.split_once("Content-Length: ").unwrap();
        let length: usize = rest.split_once("\r\n").unwrap().0.parse().unwrap();
        if self.bytes.len() < end + length {
            return None;
        }
        let body = self.bytes.drain(..end + length).skip(end).collect();
        Some((head, body))
    }

    /// Reads on to the end of the tracker's stream.
    async fn rest(&mut self) -> Vec<u8> {
        let rest = timeout(PATIENCE, self.recv.read_to_end(65536));
        rest.await.expect("an end in time").unwrap()
    }

    /// Waits for the tracker's acknowledgement: a stream without bytes.
    async fn acknowledged(&self) {
        let acknowledgement = async {
            let mut stream = self.connection.accept_uni().await.unwrap();
            stream.read_to_end(1).await.unwrap()
        };
        let bytes = timeout(PATIENCE, acknowledgement).await;
        assert!(bytes.expect("an acknowledgement in time").is_empty());
    }

    async fn acknowledge(&self) {
        self.connection.open_uni().await.unwrap().finish().unwrap();
    }

    /// Waits for the tracker to close the connection, and returns the code that it gives.
    async fn closed(&self) -> VarInt {
        match timeout(PATIENCE, self.connection.closed()).await {
            Ok(ConnectionError::ApplicationClosed(close)) => close.error_code,
            other => panic!("{other:?}"),
        }
    }
}

/// One GET on a connection of its own: the body of the reply.
pub(super) async fn get(tracker: &Running, from: &str, target: &str) -> Vec<u8> {
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut client = Client::dial(tracker, from, request.as_bytes()).await;
    client.reply().await.1
}

fn announce(path: &str, port: u16, more: &str) -> Vec<u8> {
    let host = "[1-ff00:0:110,127.0.0.1]:80";
    let peer_id = format!("-XX0001-0000000{port:05}");
    format!(
        "GET {path}?info_hash={HASH}&peer_id={peer_id}&port={port}&left=1 HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n{more}\r\n"
    )
    .into_bytes()
}

fn answer(body: &[u8]) -> Answer {
    serde_bencode::from_bytes(body)
        .unwrap_or_else(|error| panic!("{error}: {}", body.escape_ascii()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_serves_announces_until_its_client_closes_it() {
    let tracker = start();
    let mut near = Client::dial(&tracker, NEAR, &announce("/announce", 6881, "")).await;
    let (head, body) = near.reply().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(!head.contains("Connection:"), "{head}");
    assert_eq!(answer(&body).incomplete, 1);
    // The same IP and port in another AS, and the path of the first SCION tracker.
    let mut far = Client::dial(&tracker, FAR, &announce("/", 6881, "")).await;
    let (_, body) = far.reply().await;
    assert_eq!(
        answer(&body).peers,
        [peer("1-ff00:0:111", "10.0.0.1", 6881)]
    );
    near.send
        .write_all(&announce("/announce", 6881, ""))
        .await
        .unwrap();
    let (_, body) = near.reply().await;
    assert_eq!(
        answer(&body).peers,
        [peer("2-ff00:0:211", "10.0.0.1", 6881)]
    );
    // HTTP/3 is there as well, and the same swarm.
    let by_http3 = tracker
        .announce("1-ff00:0:110,[127.0.0.1]", &[], 7000, "")
        .await;
    assert_eq!(by_http3.peers.len(), 2);

    // As SingleStream.CloseSync does.
    near.send.finish().unwrap();
    near.recv.stop(VarInt::from_u32(0)).unwrap();
    near.acknowledge().await;
    near.acknowledged().await;
    near.connection.close(VarInt::from_u32(0), b"ok");
    let counters = tracker.handle.stats().counters;
    assert_eq!(counters.get(Counter::HttpAnnounces), 3);
    assert_eq!(counters.get(Counter::Http3Announces), 1);
    assert_eq!(counters.get(Counter::QuicAborted), 0);
    tracker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_is_answered_with_an_end_and_an_acknowledgement() {
    let tracker = start();
    let mut client = Client::dial(&tracker, NEAR, &announce("/announce", 6881, "")).await;
    client.send.finish().unwrap();
    let (head, _) = client.reply().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(client.rest().await.is_empty());
    client.acknowledged().await;
    client.acknowledge().await;
    assert_eq!(client.closed().await, VarInt::from_u32(0));
    tracker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tracker_ends_a_connection_that_is_not_to_be_kept() {
    let tracker = start();
    let request = announce("/announce", 6881, "Connection: close\r\n");
    let mut client = Client::dial(&tracker, NEAR, &request).await;
    let (head, _) = client.reply().await;
    assert!(head.contains("Connection: close\r\n"), "{head}");
    assert!(client.rest().await.is_empty());
    client.acknowledged().await;
    // Nothing is lost on a client that takes its time: the connection stays until it has acknowledged.
    assert_eq!(client.connection.close_reason(), None);
    client.acknowledge().await;
    assert_eq!(client.closed().await, VarInt::from_u32(0));
    tracker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_acknowledges_is_not_waited_for_for_ever() {
    let mut config = config();
    config.connections.reply_timeout = Duration::from_millis(200);
    let tracker = start_with(config);
    let request = announce("/announce", 6881, "Connection: close\r\n");
    let mut client = Client::dial(&tracker, NEAR, &request).await;
    client.reply().await;
    assert_eq!(client.closed().await, VarInt::from_u32(0));
    tracker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_is_refused_or_comes_to_its_end() {
    let mut config = config();
    config.connections.head_timeout = Duration::from_millis(300);
    let tracker = start_with(config);
    let aborted = || tracker.handle.stats().counters.get(Counter::QuicAborted);
    for (first, status) in [
        (&b"\x16\x03\x01\r\n\r\n"[..], "400 Bad Request"),
        (&[b'a'; 20_000], "431 Request Header Fields Too Large"),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
            "413 Content Too Large",
        ),
    ] {
        let mut client = Client::dial(&tracker, NEAR, first).await;
        let (head, _) = client.reply().await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{head}"
        );
        assert!(head.contains("Connection: close\r\n"), "{head}");
        client.acknowledge().await;
        assert_eq!(client.closed().await, VarInt::from_u32(0));
    }
    assert_eq!(aborted(), 0);
    // A head that stalls, HTTP/2, and no head at all.
    for (nth, first) in [
        &b"GET /announce?info"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let client = tracker.connect(NEAR, &path(1), b"qs").await.unwrap();
        let mut send = client.open_uni().await.unwrap();
        send.write_all(first).await.unwrap();
        let closed = timeout(PATIENCE, client.closed()).await.unwrap();
        let ConnectionError::ApplicationClosed(close) = closed else {
            panic!("{closed:?}");
        };
        assert_eq!(close.error_code, VarInt::from_u32(0x101));
        assert_eq!(aborted(), nth as u64 + 1);
    }
    let silent = tracker.connect(NEAR, &path(1), b"qs").await.unwrap();
    timeout(PATIENCE, silent.closed()).await.unwrap();
    assert_eq!(aborted(), 3);
    tracker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_does_not_hold_the_tracker_up() {
    let tracker = start();
    let mut client = Client::dial(&tracker, NEAR, &announce("/announce", 6881, "")).await;
    client.reply().await;
    let since = std::time::Instant::now();
    tracker.stop().await;
    assert!(
        since.elapsed() < Duration::from_secs(4),
        "{:?}",
        since.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_spoken_over_scion_alone_and_other_protocols_nowhere() {
    let mut config = config();
    config.listen.http3 = vec![loopback().into()];
    let tracker = start_with(config);
    let refused = tracker.connect(NEAR, &path(1), b"hq").await;
    assert!(refused.is_err(), "{refused:?}");
    let endpoint = quinn::Endpoint::client(loopback()).unwrap();
    for (alpn, spoken) in [(&b"qs"[..], false), (b"h3", true)] {
        let connected = endpoint
            .connect_with(
                tracker.client_config(alpn),
                tracker.http3.unwrap(),
                "localhost",
            )
            .unwrap()
            .await;
        assert_eq!(connected.is_ok(), spoken, "{connected:?}");
    }
    tracker.stop().await;
}
