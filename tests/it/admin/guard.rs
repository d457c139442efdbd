//! Who may ask: tokens, the Unix socket, browsers, addresses.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::{fs, io};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use scion_tracker::Server;
use scion_tracker::config::AdminListener;
use scion_tracker::server::Kind;

use super::{Tracker, config, exchange, request};
use crate::cli::{home, program, stderr};
use crate::common;

#[test]
fn tokens_decide_what_a_request_may_do() {
    let tracker = Tracker::start();
    let write = "Authorization: Bearer write-token";
    let read = "authorization: bearer read-token";
    let keys = "/api/v2/keys";
    for (method, target, headers, status) in [
        ("GET", "/api/health_check", &[][..], 200),
        ("GET", "/api/openapi.json", &[], 200),
        ("GET", "/api/v1/stats", &[], 200),
        ("GET", "/api/v1/stats", &["Host: evil.example"], 403),
        ("GET", "/api/v1/stats", &["X-Forwarded-For: 192.0.2.1"], 401),
        ("GET", "/api/v1/stats", &["Host: evil.example", read], 200),
        ("GET", "/api/v1/stats?token=wrong-token", &[], 401),
        ("GET", keys, &[], 401),
        ("GET", keys, &[read], 200),
        ("GET", "/api/v2/keys?token=read-token", &[], 200),
        ("GET", "/api/v2/keys?offset=0&token=write%2Dtoken", &[], 200),
        ("GET", keys, &["Authorization: Bearer wrong-token"], 401),
        (
            "GET",
            "/api/v2/keys?token=read-token",
            &["Authorization: Basic eA=="],
            401,
        ),
        (
            "PUT",
            "/api/v2/allow/0101010101010101010101010101010101010101",
            &[],
            401,
        ),
        (
            "PUT",
            "/api/v2/allow/0101010101010101010101010101010101010101",
            &[read],
            403,
        ),
        (
            "PUT",
            "/api/v2/allow/0101010101010101010101010101010101010101",
            &[write],
            200,
        ),
        ("GET", "/api/v1/keys/reload", &[read], 403),
        ("GET", "/api/v1/keys/reload", &[write], 200),
        ("GET", "/api/v1/stats", &["Via: 1.1 front"], 401),
        ("GET", "/api/v1/stats", &["X-Real-IP: 192.0.2.1"], 401),
        ("GET", "/nothing", &[], 401),
        ("GET", "/nothing", &[read], 404),
        ("OPTIONS", keys, &[], 401),
        ("PATCH", keys, &[write], 405),
    ] {
        let reply = tracker.over_tcp(method, target, headers);
        assert_eq!(
            reply.status, status,
            "{method} {target} {headers:?}: {reply:?}"
        );
        let is_asked = reply.head.contains("www-authenticate: bearer");
        assert_eq!(is_asked, status == 401, "{reply:?}");
        assert!(!reply.head.contains("access-control"), "{reply:?}");
    }
    assert_eq!(tracker.ask("GET", keys).status, 200);
}

#[test]
fn without_a_token_only_the_unix_socket_does_more_than_statistics() {
    let tracker = Tracker::start_with(|_| {});
    for (method, target, over_tcp, over_unix) in [
        ("GET", "/api/health_check", 200, 200),
        ("GET", "/api/v2/stats", 200, 200),
        ("GET", "/api/v2/keys", 401, 200),
        ("GET", "/api/v2/keys?token=", 401, 200),
        ("DELETE", "/api/v2/keys/abc", 401, 404),
    ] {
        let reply = tracker.over_tcp(method, target, &[]);
        assert_eq!(reply.status, over_tcp, "{target}: {reply:?}");
        assert_eq!(tracker.ask(method, target).status, over_unix, "{target}");
    }
}

#[test]
fn whoever_guesses_tokens_has_to_wait() {
    let tracker = Tracker::start();
    for _ in 0..10 {
        let reply = tracker.over_tcp("GET", "/api/v2/keys?token=guess", &[]);
        assert_eq!(reply.status, 401);
    }
    let reply = tracker.over_tcp("GET", "/api/v2/keys?token=write-token", &[]);
    assert_eq!(reply.status, 429, "{reply:?}");
    assert!(reply.head.contains("retry-after: "), "{reply:?}");
    // What needs no token still needs none.
    assert_eq!(
        tracker.over_tcp("GET", "/api/health_check", &[]).status,
        200
    );
    assert_eq!(tracker.ask("GET", "/api/v2/keys").status, 200);
}

#[test]
fn a_page_of_another_site_cannot_use_up_the_attempts() {
    let tracker = Tracker::start();
    let guess = "/api/v2/keys?token=guess";
    for site in ["cross-site", "same-site"] {
        let header = format!("Sec-Fetch-Site: {site}");
        for (method, target) in [
            ("GET", guess),
            ("POST", "/stats"),
            ("GET", "/stats?token=guess"),
            ("POST", "/api/v2/allow?token=write-token"),
        ] {
            for _ in 0..11 {
                let reply = tracker.over_tcp(method, target, &[&header]);
                assert_eq!(reply.status, 403, "{method} {target}: {reply:?}");
            }
        }
        // A link leads to the page.
        assert_eq!(tracker.over_tcp("GET", "/stats", &[&header]).status, 200);
    }
    for site in ["same-origin", "none"] {
        let header = format!("Sec-Fetch-Site: {site}");
        let reply = tracker.over_tcp("GET", "/api/v2/keys?token=read-token", &[&header]);
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

#[test]
fn strangers_are_not_told_folders() {
    let tracker = Tracker::start_with(|config| {
        config.admin.read_token = "read-token".parse().ok();
        config.snapshot.enabled = true;
    });
    let folder = tracker.directory.path().to_str().unwrap();
    let shown = |target: &str, headers: &[&str]| {
        let reply = tracker.over_tcp("GET", target, headers);
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.body.contains("swarms.snapshot"), "{reply:?}");
        reply.body.contains(folder)
    };
    let proxied = "X-Forwarded-For: 192.0.2.1";
    assert!(!shown("/health/ready", &[proxied]));
    assert!(!shown("/health/ready", &["Host: evil.example"]));
    assert!(shown("/health/ready?token=read-token", &[proxied]));
    assert!(shown("/health/ready", &[]));
}

#[test]
fn tokens_are_in_no_line_of_the_log() {
    let home = home();
    let flags = [
        "--http",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--admin-token",
        "secret-token",
        "--log",
        "trace",
    ];
    let mut tracker = crate::cli::Tracker::start(&mut program(home.path(), &flags));
    tracker.line();
    let socket = home.path().join(".local/state/scion-tracker/admin.sock");
    for (target, headers) in [
        ("/api/v2/keys?token=secret-token", &[][..]),
        ("/api/v2/keys", &["Authorization: Bearer secret-token"]),
        ("/api/v2/keys?token=secret-guess", &[]),
    ] {
        let stream = UnixStream::connect(&socket).unwrap();
        let reply = exchange(stream, &request("GET", target, headers, ""));
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    let (_, log) = tracker.stop(rustix::process::Signal::TERM);
    assert!(log.contains("admin API on unix socket"), "{log}");
    assert!(!log.contains("secret-"), "{log}");
}

#[test]
fn a_token_that_may_only_read_sees_no_passkeys() {
    let tracker = Tracker::start();
    assert_eq!(tracker.ask("PUT", "/api/v2/keys/topsecret").status, 415);
    let added = tracker.send("PUT", "/api/v2/keys/topsecret", &serde_json::json!({}));
    assert_eq!(added.status, 200, "{added:?}");
    let seen = |token: &str| {
        let target = format!("/api/v2/keys?token={token}");
        let reply = tracker.over_tcp("GET", &target, &[]);
        reply.json()["entries"][0]["key"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(seen("write-token"), "topsecret");
    assert_eq!(seen("read-token"), "to…");
}

#[test]
fn tokens_in_a_file_are_read_again() {
    let tokens = tempfile::NamedTempFile::new().unwrap();
    fs::write(&tokens, "first-token\n").unwrap();
    let tracker = Tracker::start_with(|config| {
        config.admin.token_file = Some(tokens.path().into());
    });
    let status = |token: &str| {
        let target = format!("/api/v2/keys?token={token}");
        tracker.over_tcp("GET", &target, &[]).status
    };
    assert_eq!((status("first-token"), status("second-token")), (200, 401));
    fs::write(&tokens, "second-token\n").unwrap();
    let reloaded = tracker.over_tcp("GET", "/api/v1/keys/reload?token=first-token", &[]);
    assert_eq!(reloaded.status, 200, "{reloaded:?}");
    assert_eq!((status("first-token"), status("second-token")), (401, 200));
    fs::write(&tokens, "bad token\n").unwrap();
    let reloaded = tracker.over_tcp("GET", "/api/v1/keys/reload?token=second-token", &[]);
    assert_eq!(reloaded.status, 500, "{reloaded:?}");
    assert_eq!(status("second-token"), 200);
}

#[test]
fn the_unix_socket_belongs_to_its_owner_and_to_one_tracker() {
    let tracker = Tracker::start();
    let socket = tracker.socket();
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // Another tracker with the same directory runs without it, and does not take it away.
    let other = common::start(config(tracker.directory.path()));
    other.stop();
    assert_eq!(tracker.ask("GET", "/api/health_check").status, 200);
    let Tracker {
        running, directory, ..
    } = tracker;
    running.stop();
    assert!(!socket.exists());
    // What a tracker leaves behind that was killed is replaced.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(UnixStream::connect(&socket).is_err());
    let again = common::start(config(directory.path()));
    assert!(UnixStream::connect(&socket).is_ok());
    again.stop();
}

#[test]
fn an_address_that_is_taken_is_an_error_if_it_was_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    let mut listener = AdminListener::from(address);
    config.listen.admin = vec![listener];
    let error = Server::bind(config.clone()).unwrap_err().to_string();
    let expected = format!("cannot listen on {address} for admin (another program uses this port");
    assert!(error.starts_with(&expected), "{error}");
    listener.optional = true;
    config.listen.admin = vec![listener];
    let server = Server::bind(config).unwrap();
    assert!(server.listeners().all(|it| it.kind != Kind::Admin));
}

fn check_refused(command: &mut Command, expected: &str) {
    let output = command.output().unwrap();
    let stderr = stderr(&output);
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    assert!(stderr.contains(expected), "{stderr}");
    assert!(!stderr.contains("secret-token"), "{stderr}");
}

#[test]
fn beyond_loopback_it_needs_a_token_and_tls_or_a_word() {
    let home = home();
    let admin = [
        "--admin",
        "0.0.0.0:0",
        "config",
        "check",
        "--admin",
        "0.0.0.0:0",
    ];
    let check = |further: &[&str]| {
        let mut command = program(home.path(), &admin[2..]);
        command.args(further);
        command
    };
    check_refused(&mut check(&[]), "no token is set");
    let token = ["--admin-token", "secret-token"];
    check_refused(
        &mut check(&token),
        "would send tokens in the clear: set admin.tls = true",
    );
    check_refused(
        check(&[]).env("SCION_TRACKER_ADMIN_TOKEN_FILE", "/nonexistent"),
        "would send tokens",
    );
    for variable in ["SCION_TRACKER_ADMIN_TLS", "SCION_TRACKER_ADMIN_ALLOW_PLAIN"] {
        let output = check(&token).env(variable, "true").output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let mut command = program(home.path(), &["config", "print", "--effective"]);
    let output = command.args(token).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("#token =  # set, not shown\n"), "{shown}");
    assert!(!shown.contains("secret-token"), "{shown}");
}

#[test]
fn it_speaks_tls_with_the_certificate_of_the_tracker() {
    let tracker = Tracker::start_with(|config| {
        config.admin.tls = true;
        config.admin.token = "write-token".parse().ok();
    });
    let pem = tracker.directory.path().join("self-signed.pem");
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(pem).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = StreamOwned::new(tls, TcpStream::connect(tracker.admin).unwrap());
    let reply = exchange(
        stream,
        &request("GET", "/api/v2/certificate?token=write-token", &[], ""),
    );
    let certificate = reply.json();
    assert_eq!(certificate["self_signed"], true);
    let fingerprint = tracker.running.handle.certificates().unwrap().fingerprint();
    assert_eq!(certificate["sha256"], fingerprint);
    assert!(certificate["expires"].as_u64().unwrap() > 1_700_000_000);
    // Without TLS there is no answer.
    let mut plain = tracker.tcp();
    io::Write::write_all(&mut plain, b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = io::Read::read_to_end(&mut plain, &mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[test]
fn requests_are_bounded() {
    let tracker = Tracker::start();
    let long = "x".repeat(20_000);
    let reply = tracker.over_tcp("GET", &format!("/api/v2/keys?{long}"), &[]);
    assert!(matches!(reply.status, 414 | 431), "{reply:?}");
    let text = ["Content-Type: text/plain"];
    let body = "#".repeat((1 << 20) + 1);
    let reply = exchange(
        tracker.unix(),
        &request("POST", "/api/v2/allow", &text, &body),
    );
    assert_eq!(reply.status, 413, "{reply:?}");
    let body = "#".repeat(1 << 20);
    let reply = exchange(
        tracker.unix(),
        &request("POST", "/api/v2/allow", &text, &body),
    );
    assert_eq!(reply.status, 200, "{reply:?}");
    // A form of a browser is not taken.
    let form = ["Content-Type: application/x-www-form-urlencoded"];
    let body = r#"{"target":"192.0.2.1"}"#;
    let reply = exchange(
        tracker.unix(),
        &request("POST", "/api/v2/bans", &form, body),
    );
    assert_eq!(reply.status, 415, "{reply:?}");
}

#[test]
fn a_refused_client_that_goes_on_sending_before_it_reads_gets_its_answer() {
    let tracker = Tracker::start();
    let body = "#".repeat(1 << 20);
    let longer = "#".repeat(2 << 20);
    let allow = "/api/v2/allow";
    let (none, write) = ("X: y", "Authorization: Bearer write-token");
    let (read, wrong) = (
        "Authorization: Bearer read-token",
        "Authorization: Bearer wrong-token",
    );
    let cases = [
        ("POST", allow, none, &body, 401),
        ("POST", allow, read, &body, 403),
        ("POST", "/nothing", write, &body, 404),
        ("PATCH", allow, write, &body, 405),
        ("POST", allow, write, &longer, 413),
        ("POST", "/api/v2/bans", write, &body, 415),
    ];
    // After ten wrong tokens the address has to wait.
    let guesses = [("POST", allow, wrong, &body, 401); 10];
    let waits = [("POST", allow, wrong, &body, 429)];
    for (method, target, token, body, status) in cases.into_iter().chain(guesses).chain(waits) {
        let headers = [token, "Content-Type: text/plain"];
        let request = request(method, target, &headers, body);
        let (head, body) = request.split_at(request.len() - body.len());
        let mut stream = tracker.tcp();
        io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
        if status != 413 {
            // The answer is there, and the client does not look.
            assert_ne!(stream.peek(&mut [0]).unwrap(), 0);
        }
        let reply = exchange(stream, body);
        assert_eq!(reply.status, status, "{method} {target} {token}: {reply:?}");
    }
}
