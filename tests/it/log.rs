//! What the log of the program says of requests, and what becomes of it when it cannot be written.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cli::{Tracker, await_log, home, program};

const HASH: &str = "0123456789abcdef0123456789abcdef01234567";
const SCION: &str = "1-ff00:0:110,[127.0.0.1]";

/// A tracker with a listener of each kind, which takes one peer of a host per torrent. Returns its log after
/// these exchanges.
fn log_at(level: &str, exchange: impl FnOnce(&[String])) -> String {
    let home = home();
    let scion = format!("{SCION}:0");
    let flags = [
        "--udp",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--https",
        "127.0.0.1:0",
        "--http3",
        "127.0.0.1:0",
        "--scion",
        &scion,
        "--log",
        level,
    ];
    let mut command = program(home.path(), &flags);
    let mut tracker = Tracker::start(command.env("SCION_TRACKER_PEERS_PER_SOURCE_IN_TORRENT", "1"));
    let urls: Vec<_> = (0..6).map(|_| tracker.line()).collect();
    // The log may be longer than its pipe.
    let mut stderr = tracker.child.stderr.take().unwrap();
    let log = std::thread::spawn(move || {
        let mut log = String::new();
        stderr.read_to_string(&mut log).unwrap();
        log
    });
    exchange(&urls);
    tracker.signal(Signal::TERM);
    assert!(tracker.child.wait().unwrap().success());
    log.join().unwrap()
}

fn announce(url: &str, port: &str) -> bool {
    let home = home();
    let mut args = vec!["announce", url, "--info-hash", HASH, "--port", port];
    if url.starts_with("https") || url.starts_with("h3") {
        args.push("--insecure");
    }
    if url.contains("ff00") {
        args.extend(["--scion-local", SCION]);
    }
    let output = program(home.path(), &args).output().unwrap();
    output.status.success()
}

fn address(url: &str) -> SocketAddr {
    url.split('/').nth(2).unwrap().parse().unwrap()
}

/// Sends bytes over TCP, and waits until the other side has closed.
fn send(url: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address(url)).unwrap();
    stream.write_all(bytes).unwrap();
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Announces that are refused on every transport, and bytes that are no request.
fn refused_and_malformed(urls: &[String]) {
    for url in urls {
        assert!(announce(url, "1"), "{url}");
        assert!(!announce(url, "2"), "{url}");
    }
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.send_to(b"\x1b[31mforged\n", address(&urls[0])).unwrap();
    let http = &urls[1];
    send(
        http,
        b"GET /s3cret/announce?passkey=s3cret&port=\x01 HTTP/1.1\r\nHost: t\r\n\r\n",
    );
    send(
        http,
        b"GET /announce/s3cret?passkey=s3cret&port=%1b[2J HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
    );
    send(
        http,
        b"PUT /announce HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
    );
    send(http, b"garbage\r\n\r\n");
    send(&urls[2], b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    // A datagram is handled before the one that follows it is answered.
    assert!(announce(&urls[0], "1"));
}

#[test]
fn at_debug_each_refused_or_malformed_request_says_who_what_and_why() {
    let log = log_at("debug", refused_and_malformed);
    let count = |parts: &[&str]| {
        let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
        log.lines().filter(has_all).count()
    };
    let limit = r#"reason="too many peers of this torrent from your address""#;
    for (parts, expected) in [
        (
            &[
                "UDP request refused",
                "client=127.0.0.1 ",
                "request=\"announce\"",
                limit,
            ][..],
            1,
        ),
        (
            &[
                "UDP request refused",
                "client=1-ff00:0:110,127.0.0.1 ",
                limit,
            ],
            1,
        ),
        (
            &[
                "HTTP request refused",
                "client=127.0.0.1 ",
                "request=\"announce\"",
                limit,
            ],
            3,
        ),
        (
            &[
                "HTTP request refused",
                "client=1-ff00:0:110,127.0.0.1 ",
                limit,
            ],
            1,
        ),
        (
            &[
                "UDP datagram dropped",
                r"datagram=\x1b[31mforged\n",
                "not a request of BEP 15",
            ],
            1,
        ),
        (
            &[
                "client=127.0.0.1 ",
                "method=Get",
                "target=/announce/*?passkey=*&port=%1b[2J",
            ],
            1,
        ),
        (
            &[
                "client=127.0.0.1 ",
                "method=Other",
                "target=/announce ",
                "Method Not Allowed",
            ],
            1,
        ),
        (&["client=127.0.0.1 ", "reason=\"Bad Request\""], 2),
        (&["TLS handshake failed", "client=127.0.0.1 "], 1),
        (&["s3cret"], 0),
        (&["\x1b"], 0),
        // At trace only.
        (&["UDP request "], 2),
    ] {
        assert_eq!(count(parts), expected, "{parts:?}: {log}");
    }
}

#[test]
fn at_info_nothing_is_said_of_requests() {
    let log = log_at("info", refused_and_malformed);
    let (log, end) = log.split_once(" stopped after ").unwrap();
    assert!(end.contains("announces=7 scrapes=0 refused=6"), "{end}");
    for word in ["refused", "dropped", "TLS handshake", "request=", "client="] {
        assert!(!log.contains(word), "{word}: {log}");
    }
    assert!(log.contains("listening on udp"), "{log}");
}

#[test]
fn at_trace_each_request_is_a_line() {
    let log = log_at("trace", |urls| {
        for url in &urls[..4] {
            assert!(announce(url, "1"));
        }
    });
    let count = |part: &str| log.lines().filter(|line| line.contains(part)).count();
    let udp = format!("UDP request client=127.0.0.1 request=\"announce\" info_hash={HASH} port=1 ");
    assert_eq!(count(&udp), 1, "{log}");
    assert_eq!(count("UDP request client=127.0.0.1 request=\"connect\""), 1);
    let http = "HTTP request client=127.0.0.1 method=Get target=/announce?info_hash=";
    assert_eq!(count(http), 3, "{log}");
    // Lines of libraries are not asked for.
    assert_eq!(
        count(" h2::") + count(" quinn") + count(" rustls::"),
        0,
        "{log}"
    );
}

/// The tracker serves, reloads and stops with this for a log.
fn check_serves_with(stderr: Stdio) {
    let home = home();
    let mut command = program(
        home.path(),
        &["--udp", "127.0.0.1:0", "--http", "127.0.0.1:0"],
    );
    let command = command.stdout(Stdio::piped()).stderr(stderr);
    let mut tracker = Tracker::of(command.spawn().unwrap());
    // The child alone has the pipe now.
    command.stderr(Stdio::null());
    let urls = [tracker.line(), tracker.line()];
    // Each writes lines.
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2] {
        tracker.signal(signal);
        for url in &urls {
            assert!(announce(url, "1"), "{url} after {signal:?}");
        }
    }
    tracker.signal(Signal::TERM);
    assert!(tracker.child.wait().unwrap().success());
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    // Nobody reads this pipe: writing to it fails with EPIPE.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    check_serves_with(writer.into());
    if let Ok(full) = File::options().write(true).open("/dev/full") {
        check_serves_with(full.into());
    }
    // The error that ends the program is lost, too; its exit code is not.
    for output in [std::io::pipe().unwrap().1.into(), Stdio::null()] {
        let home = home();
        let mut command = program(home.path(), &["--config", "/nowhere"]);
        let status = command.stderr(output).status().unwrap();
        assert_eq!(status.code(), Some(78));
    }
}

#[test]
fn lines_that_strangers_cause_are_limited() {
    let home = home();
    // Fewer descriptors than connections. The shell limits itself, and becomes the tracker.
    let script = "ulimit -n 48; exec \"$0\" --http 127.0.0.1:0";
    let mut command = Command::new("sh");
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_scion-tracker")])
        .env_clear()
        .env("HOME", home.path())
        .env("SCION_TRACKER_WORKERS", "4");
    let mut tracker = Tracker::start(&mut command);
    let url = tracker.line();
    let mut connections = Vec::new();
    for _ in 0..100 {
        let mut stream =
            TcpStream::connect_timeout(&address(&url), Duration::from_secs(20)).unwrap();
        let _ = stream.write_all(b"GET /");
        connections.push(stream);
    }
    let mut log = BufReader::new(tracker.child.stderr.take().unwrap());
    let read = await_log(&mut log, "more lines like this are suppressed for a minute");
    drop(connections);
    // It serves those who come after.
    assert!(announce(&url, "1"));
    tracker.signal(Signal::TERM);
    let mut all = read;
    log.read_to_string(&mut all).unwrap();
    // Four workers write at the same time, so some of the ten lines may come after the notice.
    for (text, times) in [
        ("cannot accept connections error=", 10),
        ("more lines like this", 1),
    ] {
        assert_eq!(all.matches(text).count(), times, "{text}: {all}");
    }
    assert!(tracker.child.wait().unwrap().success());
}

#[test]
fn a_proxy_that_hides_its_clients_is_reported_with_its_listener() {
    let home = home();
    let file = home.path().join("tracker.toml");
    let listener = "{ address = '127.0.0.1:0', proxies = ['127.0.0.1'], header = 'x-real-ip' }";
    fs::write(&file, format!("listen.http = [{listener}, {listener}]")).unwrap();
    let flags = ["--config", file.to_str().unwrap()];
    let mut tracker = Tracker::start(&mut program(home.path(), &flags));
    let urls = [tracker.line(), tracker.line()];
    for _ in 0..2 {
        assert!(!announce(&urls[1], "1"));
    }
    let (_, log) = tracker.stop(Signal::TERM);
    let expected = format!("listener=http {} header=x-real-ip", address(&urls[1]));
    assert_eq!(log.matches(&expected).count(), 1, "{log}");
    assert_eq!(log.matches("refusing announces").count(), 1, "{log}");
}

#[test]
fn a_receive_buffer_smaller_than_asked_is_said_at_the_start() {
    let start = |size: &str| {
        let home = home();
        let mut command = program(home.path(), &["--udp", "127.0.0.1:0"]);
        let mut tracker = Tracker::start(command.env("SCION_TRACKER_UDP_RECEIVE_BUFFER", size));
        let address = address(&tracker.line());
        let (_, log) = tracker.stop(Signal::TERM);
        (address, log)
    };
    let (address, log) = start("1GiB");
    let expected = format!("listener=udp {address} asked=1073741824 granted=");
    assert!(log.contains(&expected), "{log}");
    let (_, log) = start("64KiB");
    assert!(!log.contains("receive buffer"), "{log}");
}

#[test]
fn a_log_that_nobody_reads_stalls_nothing() {
    let home = home();
    let flags = [
        "--udp",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--log",
        "trace",
    ];
    let mut tracker = Tracker::start(&mut program(home.path(), &flags));
    let urls = [tracker.line(), tracker.line()];
    // Each request is a line of more than 100 bytes. The pipe holds 64 KiB, and nobody reads it.
    let mut stream = TcpStream::connect(address(&urls[1])).unwrap();
    let request = "GET /scrape?info_hash=01234567890123456789 HTTP/1.1\r\nHost: t\r\n\r\n";
    let mut reply = [0; 4096];
    for _ in 0..3000 {
        stream.write_all(request.as_bytes()).unwrap();
        assert!(stream.read(&mut reply).unwrap() > 0);
    }
    assert!(announce(&urls[0], "1"));
    tracker.signal(Signal::TERM);
    // The end waits a second for the last lines, and no longer.
    let start = Instant::now();
    assert!(tracker.child.wait().unwrap().success());
    assert!(start.elapsed() < Duration::from_secs(5));
    let mut log = String::new();
    let mut stderr = tracker.child.stderr.take().unwrap();
    stderr.read_to_string(&mut log).unwrap();
    assert!(log.len() >= 60 << 10, "the pipe was full");
}

#[test]
fn the_start_says_version_files_limits_and_urls_and_the_end_what_was_served() {
    let home = home();
    let file = home.path().join("tracker.toml");
    fs::write(
        &file,
        "listen.udp = ['127.0.0.1:0']\npublic_urls = ['udp://tracker.example:6969']\nlog.summary = '1s'\n",
    )
    .unwrap();
    let flags = ["--config", file.to_str().unwrap(), "--http", "127.0.0.1:0"];
    let mut tracker = Tracker::start(&mut program(home.path(), &flags));
    // The public URL stands in place of the addresses.
    assert_eq!(tracker.line(), "udp://tracker.example:6969/announce");
    let mut log = BufReader::new(tracker.child.stderr.take().unwrap());
    let start = await_log(&mut log, "announce to udp://tracker.example:6969/announce");
    let at = |what: &str| {
        start
            .find(what)
            .unwrap_or_else(|| panic!("{what}: {start}"))
    };
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    let order = [
        at(&version),
        at(file.to_str().unwrap()),
        at("limits"),
        at("listening on http 127.0.0.1:"),
        at("announce to"),
    ];
    assert!(order.is_sorted(), "{start}");

    let listening = start.split("listening on http ").nth(1).unwrap();
    let url = format!("http://{}/announce", listening.lines().next().unwrap());
    assert!(announce(&url, "7"));
    await_log(
        &mut log,
        "served since the last line announces=1 scrapes=0 refused=0 malformed=0 torrents=1 peers=1",
    );
    tracker.signal(Signal::TERM);
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(tracker.child.wait().unwrap().success());
    let last = rest.lines().last().unwrap();
    assert!(
        last.contains("this was served announces=1 scrapes=0"),
        "{rest}"
    );
    assert!(
        !rest.contains("since the last line"),
        "nothing more happened: {rest}"
    );
}

#[test]
fn a_log_file_is_opened_again_on_sighup() {
    let home = home();
    let path = home.path().join("tracker.log");
    let old = home.path().join("tracker.log.1");
    let flags = ["--udp", "127.0.0.1:0", "--log-to", path.to_str().unwrap()];
    let mut tracker = Tracker::start(&mut program(home.path(), &flags));
    let url = tracker.line();
    fs::rename(&path, &old).unwrap();
    tracker.signal(Signal::HUP);
    let read = || fs::read_to_string(&path).unwrap_or_default();
    let end = Instant::now() + Duration::from_secs(20);
    while !read().contains("reloaded") {
        assert!(Instant::now() < end, "{}", read());
        std::thread::sleep(Duration::from_millis(10));
    }
    let (_, stderr) = tracker.stop(Signal::TERM);
    assert_eq!(stderr, "");
    let old = fs::read_to_string(&old).unwrap();
    assert!(old.contains(&format!("announce to {url}")), "{old}");
    assert!(!old.contains("reloaded") && !old.contains('\x1b'), "{old}");
    assert!(read().contains("this was served"), "{}", read());
}

#[test]
fn a_log_that_cannot_be_started_is_said() {
    let home = home();
    for (to, code, expected) in [
        ("/nowhere/log", 1, "cannot log to the file /nowhere/log"),
        (
            "stdout",
            2,
            "the log goes to stderr, journald, syslog, or a file",
        ),
    ] {
        let mut command = program(home.path(), &["--log-to", to]);
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}

/// A line of the access log.
fn access_lines(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

#[test]
fn the_access_log_has_a_line_for_each_announce_and_refusal() {
    let home = home();
    let path = home.path().join("access.json");
    let flags = ["--udp", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    let mut command = program(home.path(), &flags);
    command
        .env("SCION_TRACKER_LOG_ACCESS", &path)
        .env("SCION_TRACKER_PEERS_PER_SOURCE_IN_TORRENT", "1");
    let mut tracker = Tracker::start(&mut command);
    let urls = [tracker.line(), tracker.line()];
    assert!(announce(&urls[0], "1"));
    assert!(announce(
        &urls[1].replace("/announce", "/announce/s3cretkey"),
        "1"
    ));
    assert!(!announce(&urls[1], "2"));
    // Port 0 is served and stored nowhere.
    send(
        &urls[1],
        b"GET /announce?info_hash=aaaaaaaaaaaaaaaaaaaa&peer_id=-TR4050-bbbbbbbbbbbb&port=0&left=5 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
    );
    tracker.stop(Signal::TERM);
    let lines = access_lines(&path);
    let say = |field: &str| {
        let values = lines.iter().map(|line| line[field].to_string());
        values.collect::<Vec<_>>()
    };
    assert_eq!(
        say("outcome"),
        ["\"served\"", "\"served\"", "\"refused\"", "\"served\""]
    );
    assert_eq!(
        say("change"),
        ["\"joined\"", "\"refreshed\"", "null", "null"]
    );
    assert_eq!(say("port"), ["1", "1", "2", "0"]);
    assert_eq!(say("passkey"), ["null", "\"*\"", "null", "null"]);
    assert_eq!(say("request"), ["\"announce\""; 4]);
    assert!(say("client").iter().all(|client| client == "\"127.0.0.1\""));
    assert!(!fs::read_to_string(&path).unwrap().contains("cret"));
}

#[test]
fn an_access_log_on_a_slow_disk_loses_lines_and_delays_nobody() {
    let home = home();
    let path = home.path().join("access.fifo");
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let mut command = program(home.path(), &["--http", "127.0.0.1:0"]);
    command.env("SCION_TRACKER_LOG_ACCESS", &path);
    let mut tracker = Tracker::start(&mut command);
    let url = tracker.line();
    // The pipe holds 64 KiB and the queue 8192 lines, and nobody reads.
    let mut stream = TcpStream::connect(address(&url)).unwrap();
    let request = "GET /announce?info_hash=aaaaaaaaaaaaaaaaaaaa&peer_id=-TR4050-bbbbbbbbbbbb&port=1&left=5 HTTP/1.1\r\nHost: t\r\n\r\n".repeat(50);
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let announces = 10_000;
    for _ in 0..announces / 50 {
        stream.write_all(request.as_bytes()).unwrap();
        for _ in 0..50 {
            read_reply(&mut reader);
        }
    }
    #[cfg(feature = "admin")]
    let counted = lost_lines_of_metrics(home.path());
    // Now the disk is fast again.
    let mut read = File::open(&path).unwrap();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        text
    });
    tracker.signal(Signal::TERM);
    let mut log = String::new();
    let mut stderr = tracker.child.stderr.take().unwrap();
    stderr.read_to_string(&mut log).unwrap();
    assert!(tracker.child.wait().unwrap().success());
    let text = reading.join().unwrap();
    let (lost, written): (Vec<_>, Vec<_>) =
        text.lines().partition(|line| line.contains("\"lost\""));
    let [lost] = lost[..] else { panic!("{lost:?}") };
    let lost: serde_json::Value = serde_json::from_str(lost).unwrap();
    let lost = lost["lost"].as_u64().unwrap();
    assert!(lost > 0);
    #[cfg(feature = "admin")]
    assert_eq!(counted, lost);
    assert_eq!(written.len() as u64 + lost, announces);
    assert!(
        log.contains(&format!(
            "lines of the access log were lost: the disk is slow or full path={} lost={lost}",
            path.display()
        )),
        "{log}"
    );
}

/// Lines of the access log that were lost, as `/metrics` says.
#[cfg(feature = "admin")]
fn lost_lines_of_metrics(home: &Path) -> u64 {
    let socket = home.join(".local/state/scion-tracker/admin.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    stream.write_all(request).unwrap();
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).unwrap();
    let mut lines = metrics.lines();
    let lost = lines.find_map(|it| it.strip_prefix("scion_tracker_lost_access_log_lines_total "));
    lost.unwrap().parse().unwrap()
}

/// Reads one reply of HTTP/1.1 with a length.
fn read_reply(reader: &mut impl BufRead) {
    let mut length = 0;
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0);
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
}
