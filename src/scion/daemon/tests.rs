//! Tests the daemon client with a real HTTP/2 server.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::fake::{Answer, FakeDaemon, path, serve, status};
use super::*;
use crate::scion::socket::tests::net;

fn ia(text: &str) -> IsdAs {
    text.parse().unwrap()
}

fn at(addr: SocketAddr) -> Daemon {
    Daemon {
        addr: addr.into(),
        timeout: Duration::from_secs(5),
    }
}

fn router() -> SocketAddr {
    "127.0.0.17:31002".parse().unwrap()
}

#[tokio::test]
async fn a_daemon_gives_the_isd_as_and_paths() {
    let fake = FakeDaemon::start("1-ff00:0:110").await;
    let daemon = at(fake.addr);
    assert_eq!(daemon.isd_as().await.unwrap(), ia("1-ff00:0:110"));
    assert_eq!(
        daemon.port_range().await.unwrap(),
        DispatchedPorts::Range(1, 65535)
    );
    assert_eq!(
        daemon.interfaces().await.unwrap(),
        HashMap::<u16, SocketAddr>::new()
    );
    let there = ia("2-ff00:0:210");
    let none = daemon.paths(ia("1-ff00:0:110"), there, Refresh::No).await;
    assert_eq!(none.unwrap(), []);

    fake.add_path(
        net::path(1),
        router(),
        &["1-ff00:0:110#1", "2-ff00:0:210#2"],
    );
    fake.knows.lock().interfaces = vec![
        (1, "127.0.0.17:31002".into()),
        (2, "0.0.0.0:0".into()),
        (70_000, "127.0.0.17:31002".into()),
    ];
    fake.knows.lock().ports = (31000, 32767);
    let paths = daemon
        .paths(ia("1-ff00:0:110"), there, Refresh::Yes)
        .await
        .unwrap();
    assert_eq!(paths.len(), 1);
    assert_eq!(*paths[0].raw, net::path(1));
    assert_eq!(paths[0].next_hop, router());
    assert_eq!(
        paths[0].interfaces,
        [(ia("1-ff00:0:110"), 1), (ia("2-ff00:0:210"), 2)]
    );
    assert_eq!(paths[0].latency, Some(Duration::from_millis(10)));
    let lasts = paths[0].expiry.duration_since(SystemTime::now()).unwrap();
    // The expiry of the hop fields, 64 times 337.5 s, is less than a tenth later.
    assert!(lasts > Duration::from_secs(21_000), "{lasts:?}");
    assert_eq!(fake.knows.lock().asked, (2, 1));
    let interfaces = daemon.interfaces().await.unwrap();
    assert_eq!(interfaces, HashMap::from([(1, router())]));
    assert_eq!(
        daemon.port_range().await.unwrap(),
        DispatchedPorts::Range(31000, 32767)
    );
}

#[tokio::test]
async fn paths_that_cannot_be_used_are_left_out() {
    let good = path(net::path(1), router(), &["1-1#1", "2-2#2"]);
    let mut paths = vec![good.clone(); 5];
    paths[1].raw.pop();
    paths[2].raw.clear();
    paths[3].interface = None;
    paths[4].interfaces[0].id = 65536;
    let addr = serve(move |_, _| {
        Answer::message(&messages::PathsResponse {
            paths: paths.clone(),
        })
    })
    .await;
    let read = at(addr)
        .paths(ia("1-1"), ia("2-2"), Refresh::No)
        .await
        .unwrap();
    assert_eq!(read.len(), 1);

    let mut bad = good.clone();
    bad.raw.clear();
    let addr = serve(move |_, _| {
        Answer::message(&messages::PathsResponse {
            paths: vec![bad.clone()],
        })
    })
    .await;
    let error = at(addr).paths(ia("1-1"), ia("2-2"), Refresh::No).await;
    assert!(matches!(
        error,
        Err(DaemonError::Call {
            source: CallError::Content(_),
            ..
        })
    ));
    let mut unknown = good;
    unknown.latency[0].nanos = -1;
    assert_eq!(read_path(unknown.clone()).unwrap().latency, None);
    unknown.latency.clear();
    unknown.expiration = None;
    let read = read_path(unknown).unwrap();
    assert_eq!(read.latency, None);
    assert!(read.expiry > SystemTime::now());
}

/// Checks the error for a daemon with this answer.
async fn check_refused(answer: fn() -> Answer, says: &str) {
    let addr = serve(move |_, _| answer()).await;
    let error = anyhow::Error::new(at(addr).isd_as().await.unwrap_err());
    let text = format!("{error:#}");
    assert!(text.contains(says), "{text} does not say {says}");
    assert!(text.contains(&addr.to_string()), "{text}");
}

#[tokio::test]
async fn a_bad_answer_is_an_error_that_says_why() {
    let sound = || {
        Answer::message(&messages::AsResponse {
            isd_as: 1 << 48 | 1,
        })
    };
    assert!(at(serve(move |_, _| sound()).await).isd_as().await.is_ok());
    check_refused(
        || Answer::error("5", "AS%20not%C3%A9 found"),
        "AS noté found",
    )
    .await;
    check_refused(
        || Answer {
            trailers: Some(status("13", "late")),
            ..Answer::message(&messages::Empty {})
        },
        "\"late\" (gRPC status 13)",
    )
    .await;
    check_refused(
        || Answer {
            trailers: None,
            ..Answer::message(&messages::Empty {})
        },
        "no gRPC status",
    )
    .await;
    check_refused(
        || Answer {
            status: 404,
            ..Answer::message(&messages::Empty {})
        },
        "HTTP status 404",
    )
    .await;
    check_refused(
        || Answer::message(&messages::AsResponse { isd_as: 1 }),
        "a wildcard",
    )
    .await;
    for (answer, says) in [
        ((|| body(&[0, 0, 0, 0])) as fn() -> Answer, "no message"),
        (|| body(&[1, 0, 0, 0, 0]), "a compressed message"),
        (|| body(&[0, 0, 0, 0, 9, 8]), "not exactly one message"),
        (|| body(&[0, 0, 0, 0, 0, 0]), "not exactly one message"),
        (
            || body(&[0, 0, 0, 0, 1, 8]),
            "its message cannot be decoded",
        ),
        (|| body(&[0; (1 << 20) + 6]), "longer than 1048576 bytes"),
    ] {
        check_refused(answer, says).await;
    }
}

fn body(bytes: &[u8]) -> Answer {
    Answer {
        body: bytes.to_vec(),
        ..Answer::message(&messages::Empty {})
    }
}

#[tokio::test]
async fn ports_may_be_none_or_unknown() {
    let old = serve(|_, _| Answer::error("12", "unknown method")).await;
    assert_eq!(
        at(old).port_range().await.unwrap(),
        DispatchedPorts::Unknown
    );
    for (range, expected) in [
        ((0, 0), Some(DispatchedPorts::None)),
        ((0, 9), Some(DispatchedPorts::Range(1, 9))),
        ((9, 8), None),
        ((1, 65536), None),
    ] {
        let fake = FakeDaemon::start("1-1").await;
        fake.knows.lock().ports = range;
        let found = at(fake.addr).port_range().await;
        assert_eq!(found.ok(), expected, "{range:?}");
    }
}

#[tokio::test]
async fn a_daemon_may_be_slow_absent_or_another_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut impatient = at(addr);
    impatient.timeout = Duration::from_millis(200);
    let error = impatient.isd_as().await.unwrap_err();
    assert!(matches!(error, DaemonError::Timeout { .. }), "{error:?}");

    let garbage = tokio::spawn(async move {
        // The earlier connection has ended.
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let error = at(addr).isd_as().await.unwrap_err();
    assert!(
        matches!(
            error,
            DaemonError::Call {
                source: CallError::Http2(_),
                ..
            }
        ),
        "{error:?}"
    );
    garbage.abort();
    assert!(garbage.await.unwrap_err().is_cancelled());

    let error = at(addr).isd_as().await.unwrap_err();
    assert!(
        matches!(error, DaemonError::Unreachable { .. }),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(text.contains("SCION_DAEMON") && text.contains(&addr.to_string()));
}

#[test]
fn addresses_have_a_host_and_a_port() {
    for good in [
        "127.0.0.1:30255",
        "[::1]:30255",
        "sciond:1",
        " sciond.lab:30255 ",
    ] {
        let addr: DaemonAddr = good.parse().unwrap();
        assert_eq!(addr.to_string(), good.trim());
    }
    for bad in [
        "",
        "127.0.0.1",
        "::1",
        ":30255",
        "a b:1",
        "host:0",
        "host:65536",
        "u@h:1",
        "h:1/x",
    ] {
        assert!(bad.parse::<DaemonAddr>().is_err(), "{bad}");
    }
}
