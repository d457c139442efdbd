//! Sockets that a service manager has bound (LISTEN_FDS): the tracker serves on them.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::cli::{Tracker, home, program, stderr};

const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

/// The tracker with two sockets as descriptors 3 and 4, as systemd starts it. The shell becomes the
/// tracker, so LISTEN_PID is right.
fn with_sockets(home: &std::path::Path, first: OwnedFd, second: OwnedFd, names: &str) -> Command {
    let script = r#"export LISTEN_PID=$$; exec "$0" "$@" 3<&0 4<&1 1>&2 0</dev/null"#;
    let mut command = Command::new("sh");
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_scion-tracker")])
        .env_clear()
        .env("HOME", home)
        .env("LISTEN_FDS", "2")
        .env("LISTEN_FDNAMES", names)
        .env("SCION_TRACKER_ADMIN_SOCKET", "false")
        .stdin(Stdio::from(first))
        .stdout(Stdio::from(second))
        .stderr(Stdio::piped());
    command
}

fn announces(url: &str) -> bool {
    let home = home();
    let args = ["announce", url, "--info-hash", HASH, "--port", "1"];
    program(home.path(), &args).status().unwrap().success()
}

#[test]
fn inherited_sockets_are_served_and_reloads_keep_them() {
    let home = home();
    let http = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at_http: SocketAddr = http.local_addr().unwrap();
    let at_udp = udp.local_addr().unwrap();
    let mut command = with_sockets(home.path(), http.into(), udp.into(), "http:udp");
    // The address of a configured listener is that of a socket: the listener uses it.
    let config = home.path().join("config.toml");
    let listen = format!("listen.http = ['{at_http}']\nlisten.admin = []\n");
    std::fs::write(&config, listen).unwrap();
    command.args(["--config", config.to_str().unwrap()]);
    let mut child = command.spawn().unwrap();
    let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
    crate::cli::await_log(&mut log, &format!("announce to http://{at_http}"));
    assert!(announces(&format!("http://{at_http}/announce")));
    assert!(announces(&format!("udp://{at_udp}/announce")));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::HUP).unwrap();
    let reloaded = crate::cli::await_log(&mut log, "configuration and certificate reloaded");
    assert!(reloaded.contains("changed=\"nothing\""), "{reloaded}");
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("need a restart"), "{rest}");
    assert!(child.wait().unwrap().success(), "{rest}");
}

#[test]
fn a_socket_that_no_listener_can_use_is_said() {
    for (names, code, expected) in [
        (
            "http:scion-tracker.socket",
            78,
            "the name \"scion-tracker.socket\": expected FileDescriptorName=",
        ),
        (
            "http:scion",
            78,
            "the name \"scion\": expected FileDescriptorName=",
        ),
        // A stream socket that is called udp.
        (
            "udp:udp",
            1,
            "no listener can use the socket of the service manager at 127.0.0.1:",
        ),
    ] {
        let home = home();
        let http = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut command = with_sockets(home.path(), http.into(), udp.into(), names);
        command.args(["--http", "127.0.0.1:0"]);
        let output = command.output().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let home = home();
    let mut command = program(home.path(), &["--http", "127.0.0.1:0"]);
    command.env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    let mut tracker = Tracker::start(&mut command);
    assert!(tracker.line().starts_with("http://127.0.0.1:"));
    tracker.stop(Signal::TERM);
}
