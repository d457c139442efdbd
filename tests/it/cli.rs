//! The program as a black box: what it prints, how it exits, what beats what.

mod config;

use std::fs;
use std::io::{BufRead, BufReader, Read as _};
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The program with nothing of our environment but a home of its own.
pub(crate) fn program(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scion-tracker"));
    command.env_clear().env("HOME", home).args(args);
    command
}

pub(crate) fn home() -> TempDir {
    TempDir::new().unwrap()
}

/// A tracker in a process of its own, killed if it is not stopped.
pub(crate) struct Tracker {
    pub(crate) child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Tracker {
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self::of(child)
    }

    /// A process that was started with a pipe for its output.
    pub(crate) fn of(mut child: Child) -> Self {
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Sends the signal; expects a clean end within five seconds. Returns the rest of both outputs.
    pub(crate) fn stop(mut self, signal: Signal) -> (String, String) {
        let started = Instant::now();
        self.signal(signal);
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stdout.read_to_string(&mut stdout).unwrap();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        assert!(self.child.wait().unwrap().success(), "{stderr}");
        assert!(started.elapsed() < Duration::from_secs(5));
        (stdout, stderr)
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn each_listener_is_one_line_on_stdout() {
    let home = home();
    let flags = [
        "--udp",
        "127.0.0.1:0",
        "--http",
        "[::]:0",
        "--https",
        "0",
        "--http3",
        "[::1]:0",
    ];
    let mut tracker = Tracker::start(&mut program(home.path(), &flags));
    for start in [
        "udp://127.0.0.1:",
        "http://127.0.0.1:",
        "https://127.0.0.1:",
        "h3://[::1]:",
    ] {
        let line = tracker.line();
        let port = line
            .strip_prefix(start)
            .and_then(|rest| rest.strip_suffix("/announce"));
        assert_ne!(port.unwrap_or_else(|| panic!("{line}")).parse(), Ok(0u16));
    }
    let (stdout, stderr) = tracker.stop(Signal::TERM);
    assert_eq!(stdout, "");
    assert!(
        stderr.contains("self-signed certificate, SHA-256"),
        "{stderr}"
    );
}

/// Runs the program until it has named its only listener. Returns the log.
pub(crate) fn check_serves(command: &mut Command, expected: &str) -> String {
    let mut tracker = Tracker::start(command);
    let line = tracker.line();
    assert!(line.starts_with(expected), "{command:?}: {line}");
    let (stdout, stderr) = tracker.stop(Signal::INT);
    assert_eq!(stdout, "");
    stderr
}

#[test]
fn flags_stand_before_or_after_serve_or_without_it() {
    let home = home();
    for flags in [
        &["--udp", "127.0.0.1:0"][..],
        &["serve", "--udp", "127.0.0.1:0"],
        &["--udp", "127.0.0.1:0", "serve"],
        &["--http", "127.0.0.1:0", "serve", "--udp", "127.0.0.1:0"],
    ] {
        check_serves(&mut program(home.path(), flags), "udp://127.0.0.1:");
    }
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let home = home();
    let file = home.path().join("tracker.toml");
    fs::write(
        &file,
        "listen.udp = ['127.0.0.1:0']\nlisten.admin = []\nlog.level = 'error'\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let mut command = program(home.path(), &[]);

    command.args(["--config", file]);
    let log = check_serves(&mut command, "udp://127.0.0.1:");
    assert_eq!(log, "", "only errors are logged");

    command
        .env("SCION_TRACKER_HTTP", "127.0.0.1:0")
        .env("SCION_TRACKER_LOG", "info");
    let log = check_serves(&mut command, "http://127.0.0.1:");
    assert!(log.contains("listening on http 127.0.0.1:"), "{log}");

    command.args(["--udp", "127.0.0.1:0", "--log", "warn"]);
    let log = check_serves(&mut command, "udp://127.0.0.1:");
    assert_eq!(log, "");
}

/// A host may name its SCION daemon for all its programs.
#[test]
fn a_daemon_that_only_the_host_names_may_be_away() {
    let flags = ["--udp", "127.0.0.1:0"];
    let nobody = "127.0.0.1:1";
    let unreachable = "cannot reach the SCION daemon at 127.0.0.1:1";
    for variable in ["SCION_DAEMON", "SCION_DAEMON_ADDRESS"] {
        let home = home();
        let mut command = program(home.path(), &flags);
        let log = check_serves(command.env(variable, nobody), "udp://127.0.0.1:");
        assert_eq!(log.matches("not listening over SCION").count(), 1, "{log}");
        assert!(log.contains(unreachable), "{log}");
        let log = check_serves(command.env(variable, "sciond"), "udp://127.0.0.1:");
        assert!(log.contains("the SCION daemon at sciond"), "{log}");
        let log = check_serves(command.env(variable, ""), "udp://127.0.0.1:");
        assert!(!log.contains("SCION"), "{log}");

        let asked = [&flags[..], &["--scion", "1-ff00:0:110,[127.0.0.1]:0"]].concat();
        check_fails(&asked, &[(variable, nobody)], 1, unreachable);
    }
    let dir = home();
    let file = dir.path().join("tracker.toml");
    fs::write(&file, format!("scion.daemon = '{nobody}'\n")).unwrap();
    let by_file = ["--udp", "127.0.0.1:0", "--config", file.to_str().unwrap()];
    let others = [("SCION_DAEMON", "127.0.0.1:2")];
    check_fails(&by_file, &others, 1, unreachable);
    let by_flag = ["--udp", "127.0.0.1:0", "--scion-daemon", nobody];
    check_fails(&by_flag, &others, 1, unreachable);
    let by_variable = [others[0], ("SCION_TRACKER_SCION_DAEMON", nobody)];
    check_fails(&flags, &by_variable, 1, unreachable);
}

/// Runs the program to its end: exit code, and what the error says.
pub(crate) fn check_fails(args: &[&str], env: &[(&str, &str)], code: i32, expected: &str) {
    let home = home();
    let mut tracker = Tracker::start(program(home.path(), args).envs(env.iter().copied()));
    // Ends with the program; a line would mean that it serves.
    assert_eq!(tracker.line(), "", "{args:?} {env:?}");
    let mut error = String::new();
    tracker
        .child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut error)
        .unwrap();
    let status = tracker.child.wait().unwrap();
    assert_eq!(status.code(), Some(code), "{args:?} {env:?}: {error}");
    assert!(error.contains(expected), "{args:?} {env:?}: {error}");
}

#[test]
fn wrong_usage_exits_with_2() {
    check_fails(&["--nonsense"], &[], 2, "--nonsense");
    check_fails(&["nonsense"], &[], 2, "nonsense");
    check_fails(&["--udp", "localhost:1"], &[], 2, "an address with a port");
    check_fails(&["--interval", "never"], &[], 2, "a duration");
    check_fails(
        &["--udp", "0", "config", "print"],
        &[],
        2,
        "flags before the subcommand",
    );
}

#[test]
fn wrong_configuration_exits_with_78() {
    let dir = home();
    let file = dir.path().join("tracker.toml");
    fs::write(&file, "# A comment.\n[announce]\nintervall = 1800\n").unwrap();
    let file = file.to_str().unwrap();
    let place = format!("{file}:3:1: unknown field `intervall`");
    check_fails(&["--config", file], &[], 78, &place);
    check_fails(
        &["config", "check", file],
        &[],
        78,
        "did you mean `interval`?",
    );
    check_fails(&[], &[("SCION_TRACKER_CONFIG", file)], 78, &place);
    check_fails(&["--config", "/nowhere"], &[], 78, "/nowhere");
    check_fails(
        &[],
        &[("SCION_TRACKER_INTERVAL", "x")],
        78,
        "SCION_TRACKER_INTERVAL",
    );
    check_fails(&[], &[("SCION_TRACKER_UDP", "x")], 78, "SCION_TRACKER_UDP");
    check_fails(&[], &[("SCION_TRACKER_TLS_NAMES", "a/b")], 78, "host names");
    let lifetime = [("SCION_TRACKER_PEER_LIFETIME", "1h")];
    check_fails(&["--interval", "2h"], &lifetime, 78, "peer_lifetime");
    fs::write(file, "[tls]\ncert = '/nowhere.pem'\nkey = '/nowhere.key'\n").unwrap();
    check_fails(
        &["config", "check", file],
        &[],
        78,
        "a certificate from /nowhere.pem",
    );
    check_fails(&["--log", "a=b=c"], &[], 78, "log.level");
    // Another start would end the same way.
    let list = dir.path().join("allow");
    fs::write(&list, "# A comment.\nxyz\n").unwrap();
    let list = list.to_str().unwrap();
    fs::write(file, format!("[access]\nlisted = true\nallow = '{list}'\n")).unwrap();
    let place = format!("{list}:2: ");
    check_fails(&["config", "check", file], &[], 78, &place);
    check_fails(&["--config", file], &[], 78, &place);
}

#[test]
fn a_taken_port_exits_with_1_and_says_what_to_do() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap().to_string();
    check_fails(
        &["--udp", &address],
        &[],
        1,
        &format!("cannot listen on {address} for udp"),
    );
    check_fails(&["--http3", &address], &[], 1, "--http3 or listen.http3");
    let tcp = TcpListener::bind("[::]:0").unwrap();
    let port = tcp.local_addr().unwrap().port().to_string();
    check_fails(&["--http", &port], &[], 1, "another program uses this port");
}

#[test]
fn a_second_tracker_does_not_share_the_port() {
    let home = home();
    let flags = ["--udp", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    let mut command = program(home.path(), &flags);
    let mut tracker = Tracker::start(command.env("SCION_TRACKER_WORKERS", "2"));
    for flag in ["--udp", "--http"] {
        let line = tracker.line();
        let address = line.split('/').nth(2).unwrap();
        check_fails(
            &[flag, address],
            &[("SCION_TRACKER_WORKERS", "2")],
            1,
            "cannot listen",
        );
    }
    tracker.stop(Signal::TERM);
}

#[test]
fn the_log_can_be_json() {
    let home = home();
    let flags = ["--udp", "127.0.0.1:0", "--log-format", "json"];
    let mut tracker = Tracker::start(&mut program(home.path(), &flags));
    tracker.line();
    let (_, stderr) = tracker.stop(Signal::TERM);
    assert!(stderr.lines().count() > 1);
    for line in stderr.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

#[test]
fn the_service_manager_is_told() {
    let home = home();
    let path = home.path().join("notify");
    let of_path = UnixDatagram::bind(&path).unwrap();
    check_is_told(&home, &of_path, path.to_str().unwrap());
    let name = format!("scion-tracker-it-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let of_name = UnixDatagram::bind_addr(&address).unwrap();
    check_is_told(&home, &of_name, &format!("@{name}"));
}

fn check_is_told(home: &TempDir, socket: &UnixDatagram, name: &str) {
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let told = || {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut command = program(home.path(), &["--https", "127.0.0.1:0"]);
    let mut tracker = Tracker::start(command.env("NOTIFY_SOCKET", name));
    tracker.line();
    assert_eq!(told(), "READY=1\n");
    tracker.signal(Signal::HUP);
    assert!(told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(told(), "READY=1\n");
    tracker.stop(Signal::TERM);
    assert_eq!(told(), "STOPPING=1\n");
}

#[test]
fn the_self_signed_certificate_is_kept() {
    let home = home();
    let run = |names: &str| {
        let mut command = program(home.path(), &["--https", "127.0.0.1:0"]);
        let mut tracker = Tracker::start(command.env("SCION_TRACKER_TLS_NAMES", names));
        tracker.line();
        let (_, stderr) = tracker.stop(Signal::TERM);
        let line = stderr
            .lines()
            .find(|line| line.contains("SHA-256"))
            .unwrap();
        line.split_whitespace().last().unwrap().to_owned()
    };
    let fingerprint = run("tracker.example");
    assert_eq!(fingerprint.len(), 32 * 3 - 1);
    assert_eq!(run("tracker.example"), fingerprint);
    assert_eq!(run(""), fingerprint, "it has more names than it needs");
    assert_ne!(
        run("tracker.example,10.0.0.1"),
        fingerprint,
        "it lacks a name"
    );
    let key = home
        .path()
        .join(".local/state/scion-tracker/self-signed.key");
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_state_directory_of_systemd_comes_before_the_home() {
    let home = home();
    let state = home.path().join("state");
    let mut command = program(home.path(), &["--https", "127.0.0.1:0"]);
    let mut tracker = Tracker::start(command.env("STATE_DIRECTORY", &state));
    tracker.line();
    tracker.stop(Signal::TERM);
    assert!(state.join("self-signed.pem").exists());
}

#[test]
fn without_a_place_to_keep_it_the_certificate_is_in_memory() {
    // Not even root can make a directory there.
    let nowhere = Path::new("/proc/nowhere");
    let mut homeless = program(nowhere, &["--https", "127.0.0.1:0"]);
    homeless.env_remove("HOME");
    for mut command in [program(nowhere, &["--https", "127.0.0.1:0"]), homeless] {
        let log = check_serves(&mut command, "https://");
        assert!(log.contains("another one after a restart"), "{log}");
    }
    let named = ["--https", "127.0.0.1:0", "--data-dir", "/proc/nowhere"];
    check_fails(&named, &[], 1, "/proc/nowhere");
}

#[test]
fn a_peer_that_repeats_stays_until_it_is_stopped() {
    let home = home();
    let flags = [
        "--http",
        "127.0.0.1:0",
        "--interval",
        "1s",
        "--min-interval",
        "1s",
    ];
    let mut command = program(home.path(), &flags);
    let mut tracker = Tracker::start(command.env("SCION_TRACKER_PEER_LIFETIME", "1h"));
    let url = tracker.line();
    let hash = ["--info-hash", "0123456789abcdef0123456789abcdef01234567"];
    let leechers = || {
        let args = ["scrape", &url, hash[0], hash[1], "--json"];
        let output = program(home.path(), &args).output().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        json[0]["incomplete"].as_u64()
    };
    let args = ["announce", &url, hash[0], hash[1], "--repeat", "--json"];
    let mut peer = Tracker::start(&mut program(home.path(), &args));
    for _ in 0..2 {
        let answer: serde_json::Value = serde_json::from_str(&peer.line()).unwrap();
        assert_eq!(answer["incomplete"], 1);
    }
    assert_eq!(leechers(), Some(1));
    peer.stop(Signal::TERM);
    assert_eq!(leechers(), Some(0));
    tracker.stop(Signal::TERM);
}

/// Reads the log up to a line that contains this text.
pub(crate) fn await_log(log: &mut impl BufRead, text: &str) -> String {
    let mut read = String::new();
    loop {
        let start = read.len();
        assert_ne!(
            log.read_line(&mut read).unwrap(),
            0,
            "no {text:?} in {read}"
        );
        if read[start..].contains(text) {
            return read;
        }
    }
}

#[test]
fn signals_reload_the_configuration() {
    let home = home();
    let file = home.path().join("config.toml");
    let write = |min_interval: &str, more: &str| {
        let text = format!("[announce]\nmin_interval = {min_interval}\n{more}");
        fs::write(&file, text).unwrap();
    };
    write("100", "");
    let flags = ["--http", "127.0.0.1:0", "--config", file.to_str().unwrap()];
    let mut tracker = Tracker::start(&mut program(home.path(), &flags));
    let url = tracker.line();
    let mut log = BufReader::new(tracker.child.stderr.take().unwrap());
    let address = url
        .strip_prefix("http://")
        .unwrap()
        .strip_suffix("/announce");
    let address = address.unwrap().parse().unwrap();
    let min_interval = |seconds: u32| {
        let target = format!("/announce?{}", crate::http::announce(1));
        let body = crate::http::Client::connect(address).get(&target).body;
        let text = String::from_utf8_lossy(&body);
        let expected = format!("12:min intervali{seconds}e");
        assert!(text.contains(&expected), "{text}");
    };
    min_interval(100);

    write("200", "");
    tracker.signal(Signal::HUP);
    let line = await_log(&mut log, "reloaded");
    assert!(line.contains("announce.min_interval"), "{line}");
    min_interval(200);

    write(
        "300",
        "[udp]\nreceive_buffer = \"1MiB\"\n[log]\nlevel = \"debug\"",
    );
    tracker.signal(Signal::USR1);
    let line = await_log(&mut log, "need a restart");
    assert!(line.contains("udp.receive_buffer"), "{line}");
    min_interval(300);

    write("'soon'", "");
    tracker.signal(Signal::HUP);
    let line = await_log(&mut log, "all old settings stay in force");
    assert!(line.contains("config.toml:2:16"), "{line}");
    min_interval(300);

    tracker.signal(Signal::USR2);
    await_log(&mut log, "SIGUSR2 is ignored");
    tracker.child.stderr = Some(log.into_inner());
    tracker.stop(Signal::TERM);
}
