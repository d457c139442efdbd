//! Tests trackers that redirect, forget connection ids, or send odd replies.

use super::*;

/// Starts a UDP tracker that answers each datagram with what `answer` makes of it.
async fn odd_udp_tracker(
    tasks: &mut JoinSet<()>,
    mut answer: impl FnMut(&[u8]) -> Vec<u8> + Send + 'static,
) -> TrackerUrl {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tasks.spawn(async move {
        let mut datagram = [0; 2048];
        loop {
            let (length, from) = socket.recv_from(&mut datagram).await.unwrap();
            let reply = answer(&datagram[..length]);
            socket.send_to(&reply, from).await.unwrap();
        }
    });
    localhost("udp", port, "/announce")
}

/// The header of a UDP reply, and its contents.
fn udp_reply(action: u8, request: &[u8], contents: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, action], &request[12..16], contents].concat()
}

#[tokio::test]
async fn a_forgotten_connection_id_is_renewed_once_per_request() {
    for (message, connects, announces) in [
        ("Connection ID missmatch.\0", 2, 2),
        ("invalid cookie", 2, 2),
        ("torrent not registered", 1, 1),
    ] {
        let mut tasks = JoinSet::new();
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let url = odd_udp_tracker(&mut tasks, move |request| {
            if request.len() == 16 {
                shared.connects.fetch_add(1, Ordering::Relaxed);
                return udp_reply(0, request, &[7; 8]);
            }
            shared.requests.fetch_add(1, Ordering::Relaxed);
            udp_reply(3, request, message.as_bytes())
        })
        .await;
        let refused = client(Trust::Anyone).announce(&url, &announce()).await;
        assert!(
            matches!(&refused, Err(RequestError::Refused(it)) if it.reason == message.trim_end_matches('\0')),
            "{refused:?}"
        );
        assert_eq!(seen.connects.load(Ordering::Relaxed), connects, "{message}");
        assert_eq!(
            seen.requests.load(Ordering::Relaxed),
            announces,
            "{message}"
        );
    }
}

#[tokio::test]
async fn whole_entries_of_a_cut_udp_reply_are_read() {
    let mut tasks = JoinSet::new();
    let url = odd_udp_tracker(&mut tasks, |request| match request.len() {
        16 => udp_reply(0, request, &[7; 8]),
        36 => udp_reply(2, request, &[0, 0, 0, 3, 0, 0, 0, 7, 0, 0, 0, 12, 0, 0]),
        _ => {
            let counts = [0, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 1];
            let peers = [1, 2, 3, 4, 0x1a, 0xe1, 5, 6, 7];
            udp_reply(1, request, &[&counts[..], &peers].concat())
        }
    })
    .await;
    let client = client(Trust::Anyone);
    let answer = client.announce(&url, &announce()).await.unwrap();
    let peers: Vec<_> = answer
        .peers
        .iter()
        .map(|it| it.endpoint.to_string())
        .collect();
    assert_eq!(
        (answer.interval, peers),
        (1800, vec!["1.2.3.4:6881".into()])
    );
    let answer = client.scrape(&url, &[HASH]).await.unwrap();
    assert_eq!(answer.files[0].1.seeders, 3);
}

/// Starts an HTTP/1.1 tracker that answers each target with a whole reply.
async fn odd_http_tracker(
    tasks: &mut JoinSet<()>,
    tls: Option<rustls::ServerConfig>,
    answer: impl Fn(&str) -> String + Send + Sync + 'static,
) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = tls.map(|config| tokio_rustls::TlsAcceptor::from(Arc::new(config)));
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            match &tls {
                None => answer_oddly(stream, &answer).await,
                Some(tls) => answer_oddly(tls.accept(stream).await.unwrap(), &answer).await,
            }
        }
    });
    port
}

async fn answer_oddly(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &impl Fn(&str) -> String,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let reply = answer(head.split(' ').nth(1).unwrap());
    stream.write_all(reply.as_bytes()).await.unwrap();
    let _ = stream.shutdown().await;
}

fn http_reply(head: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{body}")
}

const PEERS: &str = "d8:intervali60e5:peers6:\x01\x02\x03\x04\x1a\x01e";

#[tokio::test]
async fn redirects_are_followed_with_the_query_of_the_location() {
    let mut tasks = JoinSet::new();
    let other = odd_http_tracker(&mut tasks, None, |target| {
        assert!(target.starts_with("/moved?info_hash="), "{target}");
        http_reply("200 OK", PEERS)
    })
    .await;
    let port = odd_http_tracker(&mut tasks, None, move |target| {
        let (path, query) = target.split_once('?').unwrap();
        match path {
            "/moved" => http_reply("200 OK", PEERS),
            "/relative" => http_reply(&format!("307 x\r\nLocation: moved?{query}"), ""),
            "/nowhere" => http_reply("302 x", "no location"),
            "/loop" => http_reply("302 x\r\nLocation: ?x", ""),
            "/other" => http_reply("302 x\r\nLocation: ftp://127.0.0.1/", ""),
            "/udp" => http_reply("302 x\r\nLocation: udp://127.0.0.1:1/", ""),
            "/five" | "/4" | "/3" | "/2" | "/1" => {
                let next = match path {
                    "/five" => "/4",
                    "/4" => "/3",
                    "/3" => "/2",
                    "/2" => "/1",
                    _ => "/moved",
                };
                http_reply(&format!("301 x\r\nLocation: {next}?{query}"), "")
            }
            _ => {
                let status = path.trim_start_matches('/');
                let location = format!("http://127.0.0.1:{other}/moved?{query}");
                http_reply(&format!("{status} x\r\nLocation: {location}"), "")
            }
        }
    })
    .await;
    let client = client(Trust::Anyone);
    let asked = async |path: &str| {
        let url = localhost("http", port, path);
        client.announce(&url, &announce()).await
    };
    for path in ["/301", "/302", "/303", "/307", "/308", "/relative", "/five"] {
        let answer = asked(path).await.unwrap();
        assert_eq!((answer.interval, answer.peers.len()), (60, 1), "{path}");
    }
    for (path, expected) in [
        ("/loop", RedirectError::TooMany),
        ("/other", RedirectError::Url(UrlError::Scheme)),
        ("/udp", RedirectError::Scheme),
    ] {
        let error = asked(path).await.unwrap_err();
        assert!(
            matches!(&error, RequestError::Redirect { source, .. } if *source == expected),
            "{path}: {error:?}"
        );
    }
    for path in ["/nowhere", "/300", "/304"] {
        let error = asked(path).await.unwrap_err();
        assert!(
            matches!(error, RequestError::Status { .. }),
            "{path}: {error:?}"
        );
    }
}

#[tokio::test]
async fn redirects_do_not_leave_encryption() {
    let mut tasks = JoinSet::new();
    let plain = odd_http_tracker(&mut tasks, None, |_| http_reply("200 OK", PEERS)).await;
    let (certificates, trust, _dir) = certificates();
    let config = certificates.server_config(&[b"http/1.1"]);
    let secure = odd_http_tracker(&mut tasks, Some(config), move |target| {
        match target.starts_with("/down") {
            true => http_reply(
                &format!("301 x\r\nLocation: http://127.0.0.1:{plain}/announce"),
                "",
            ),
            false => http_reply("200 OK", PEERS),
        }
    })
    .await;
    let client = client(trust);
    let down = localhost("https", secure, "/down");
    let error = client.announce(&down, &announce()).await.unwrap_err();
    assert!(
        matches!(
            error,
            RequestError::Redirect {
                source: RedirectError::Downgrade,
                ..
            }
        ),
        "{error:?}"
    );
    let up = odd_http_tracker(&mut tasks, None, move |_| {
        let location = format!("https://127.0.0.1:{secure}/announce");
        http_reply(&format!("301 x\r\nLocation: {location}"), "")
    })
    .await;
    let up = localhost("http", up, "/announce");
    assert_eq!(
        client.announce(&up, &announce()).await.unwrap().interval,
        60
    );
}

#[tokio::test]
async fn odd_http_replies() {
    let mut tasks = JoinSet::new();
    let port = odd_http_tracker(&mut tasks, None, |target| {
        match target.split_once('?').unwrap().0 {
            "/refused" => http_reply("400 x", "d14:failure reason2:noe"),
            "/gzip" => http_reply("200 OK\r\nContent-Encoding: gzip", "\x1f"),
            "/claims-gzip" => http_reply("200 OK\r\nContent-Encoding: gzip", PEERS),
            _ => http_reply("200 OK", &format!("{PEERS}\r\n")),
        }
    })
    .await;
    let client = client(Trust::Anyone);
    let asked = async |path: &str| {
        let url = localhost("http", port, path);
        client.announce(&url, &announce()).await
    };
    let refused = asked("/refused").await.unwrap_err();
    assert_eq!(refused.to_string(), "the tracker refuses: no");
    let encoded = asked("/gzip").await.unwrap_err();
    assert!(matches!(encoded, RequestError::Encoding(_)), "{encoded:?}");
    for path in ["/claims-gzip", "/newline"] {
        assert_eq!(asked(path).await.unwrap().peers.len(), 1, "{path}");
    }
}
