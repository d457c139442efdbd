//! The commands that ask a running tracker, against a tracker in a process of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cli::{self, home, program, stderr};

/// A tracker with a home and a configuration of its own.
struct Program {
    tracker: cli::Tracker,
    home: TempDir,
    http: String,
}

impl Program {
    fn start() -> Self {
        let home = home();
        let config = home.path().join("config.toml");
        fs::write(&config, "listen.admin = []\n").unwrap();
        let mut command = program(home.path(), &["--http", "127.0.0.1:0", "--config"]);
        let mut tracker = cli::Tracker::start(command.arg(&config));
        let http = tracker.line();
        Self {
            tracker,
            home,
            http,
        }
    }

    fn run(&self, args: &[&str]) -> Output {
        program(self.home.path(), args).output().unwrap()
    }

    /// Runs a command that succeeds. Returns what it prints.
    fn prints(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{args:?}: {line}");
        }
        text
    }

    /// Runs a command that fails with 1. Returns what it says.
    fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        stderr(&output)
    }
}

#[test]
fn commands_show_and_change_a_running_tracker() {
    let tracker = Program::start();
    let hash = "01".repeat(20);
    for (args, expected) in [
        (&["keys"][..], "no passkeys\n"),
        (
            &["keys", "add", "abc", "--owner", "al\x1bice", "--note", "n"],
            "abc\n",
        ),
        (
            &["keys", "list"],
            "passkey  expires  owner           note\nabc      never    al\\u{1b}ice     n\n",
        ),
        (&["keys", "remove", "abc"], ""),
        (&["allow"], "no torrents\n"),
        (
            &["allow", "add", &hash, &"02".repeat(20)],
            "2 added, 0 known\n",
        ),
        (
            &["allow", "list", "--limit", "1"],
            &format!("{hash}\n1 of 2 torrents; more with --offset 1\n"),
        ),
        (&["allow", "remove", &hash], ""),
        (&["deny", "add", &hash], "1 added, 0 known\n"),
        (&["deny", "remove", &hash], ""),
        (
            &["ban", "add", "192.0.2.1", "--reason", "why"],
            "192.0.2.1/32\n",
        ),
        (
            &["ban", "list"],
            "target        ends   reason\n192.0.2.1/32  never  why\n",
        ),
        (&["ban", "remove", "192.0.2.1/32"], ""),
        (&["ban", "hosts"], "no host announces much\n"),
        (
            &["isolate", "add", &hash, "--isds", "64,65"],
            "isolated, 0 peers removed\n",
        ),
        (
            &["isolate"],
            &format!(
                "torrent{}  proven  ISDs\n{hash}  no      64 65\n",
                " ".repeat(33)
            ),
        ),
        (&["isolate", "remove", &hash], ""),
        (
            &["rules"],
            "all torrents\n  none are set here; those of the configuration are in force\n\nno torrents with rules of their own\n",
        ),
        (
            &[
                "rules",
                "set",
                "--deny-networks",
                "198.51.100.0/24,192.0.2.1",
                "--isd-as",
                "- 1-ff00:0:110, +",
            ],
            "deny networks     198.51.100.0/24, 192.0.2.1/32\nISD-AS            - 1-ff00:0:110, +\n",
        ),
        (
            &[
                "rules",
                "add",
                "--deny-networks",
                "2001:db8::/32,192.0.2.1/32",
                "--deny-clients",
                "-XL",
            ],
            "deny networks     198.51.100.0/24, 192.0.2.1/32, 2001:db8::/32\ndeny clients      -XL\nISD-AS            - 1-ff00:0:110, +\n",
        ),
        (
            &[
                "rules",
                "remove",
                "--deny-networks",
                "192.0.2.1,198.51.100.0/24",
                "--deny-clients",
                "-XL",
            ],
            "deny networks     2001:db8::/32\nISD-AS            - 1-ff00:0:110, +\n",
        ),
        (
            &["rules", "set", "--isd-as", "", "--proven"],
            "deny networks     2001:db8::/32\nproven            only a proven ISD-AS counts\n",
        ),
        (
            &[
                "rules",
                "set",
                "--torrent",
                &hash,
                "--allow-clients",
                "-qB,-TR",
            ],
            "allow clients     -qB, -TR\n",
        ),
        (
            &["rules", "list", "--torrent", &hash],
            "allow clients     -qB, -TR\n",
        ),
        (
            &["rules", "list"],
            &format!(
                "all torrents\n  deny networks     2001:db8::/32\n  proven            only a proven ISD-AS counts\n\n{hash}\n  allow clients     -qB, -TR\n\n"
            ),
        ),
        (&["rules", "remove", "--torrent", &hash, "--all"], ""),
        (&["rules", "remove", "--all"], ""),
        (&["torrents"], "no torrents\n"),
        (&["reload"], "reloaded, no setting has changed\n"),
        (&["drain"], "draining until it is stopped\n"),
        (&["drain", "--end"], "not draining\n"),
    ] {
        let printed = tracker.prints(args);
        let expected = expected.replace("al\\u{1b}ice     n", "al\\u{1b}ice  n");
        let expected = expected.replace("owner           note", "owner        note");
        assert_eq!(printed, expected, "{args:?}");
    }
    let stats = tracker.prints(&["stats"]);
    assert!(stats.starts_with("scion-tracker "), "{stats}");
    assert!(stats.contains("\ntorrents"), "{stats}");
    for (args, expected) in [
        (
            &["keys", "remove", "abc"][..],
            "this passkey is not known (404)",
        ),
        (&["allow", "remove", "XX"], "cannot remove XX: "),
        (
            &["ban", "add", "nonsense"],
            "is not an address, a network or a SCION host",
        ),
        (
            &["torrents", &hash],
            "this torrent has no peers and is in no list (404)",
        ),
        (
            &["rules", "add", "--deny-networks", "192.0.2.1"],
            "no rules are set here; those of the configuration are in force: set all of them",
        ),
        (
            &["rules", "remove", "--all"],
            "no rules are set here; those of the configuration are in force (404)",
        ),
        (&["rules", "set"], "name the parts to set"),
        (&["rules", "remove"], "name the entries"),
        (
            &["rules", "set", "--deny-networks", "192.0.2.1/24"],
            "deny_networks: 192.0.2.1/24 has bits set beyond its prefix: write 192.0.2.0/24 (400)",
        ),
        (&["events", "--torrent", "XX"], "(400)"),
        (&["certificate"], "no listener uses a certificate (404)"),
    ] {
        let said = tracker.fails(args);
        assert!(said.contains(expected), "{args:?}: {said}");
    }
    tracker.tracker.stop(Signal::TERM);
}

#[test]
fn torrents_are_shown_with_their_peers() {
    let tracker = Program::start();
    let hash = "01".repeat(20);
    let announced = tracker.run(&[
        "announce",
        &tracker.http,
        "--info-hash",
        &hash,
        "--port",
        "6881",
        "--left",
        "0",
    ]);
    assert!(announced.status.success(), "{}", stderr(&announced));
    let listed = tracker.prints(&["torrents", "--sort", "peers"]);
    let row = format!("{hash}        1         0          0\n");
    assert!(listed.ends_with(&row), "{listed}");
    let shown = tracker.prints(&["torrents", &hash]);
    assert!(shown.starts_with("seeders    1\nleechers   0\n"), "{shown}");
    assert!(shown.contains("127.0.0.1:6881  yes"), "{shown}");
    let places = tracker.prints(&["torrents", "--places"]);
    assert!(
        places.contains("\n-             1         0       0\n"),
        "{places}"
    );
    let json = tracker.prints(&["torrents", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["entries"][0]["info_hash"], hash);
}

#[test]
fn a_list_comes_from_a_file_or_standard_input() {
    let tracker = Program::start();
    let file = tracker.home.path().join("list");
    let lines: String = (0..60_000u32).map(|at| format!("{at:040x}\n")).collect();
    fs::write(&file, lines).unwrap();
    let printed = tracker.prints(&["allow", "add", "--file", file.to_str().unwrap()]);
    let added: Vec<_> = printed.lines().collect();
    assert_eq!(added.len(), 3, "{printed}");
    let stats = tracker.prints(&["stats"]);
    let mut rows = stats.lines().map(|line| line.split_whitespace());
    assert!(rows.any(|row| row.eq(["allowed", "60000"])), "{stats}");
    fs::remove_file(&file).unwrap();
    let missing = tracker.fails(&["allow", "add", "--file", file.to_str().unwrap()]);
    assert!(missing.contains("/list: No such file"), "{missing}");
}

#[test]
fn reload_reads_the_configuration_again() {
    let tracker = Program::start();
    let config = tracker.home.path().join("config.toml");
    fs::write(
        &config,
        "listen.admin = []\nannounce.numwant = 7\nworkers = 3\n",
    )
    .unwrap();
    assert_eq!(
        tracker.prints(&["reload"]),
        "reloaded, changed: announce.numwant\nchanged and need a restart: workers\n"
    );
    fs::write(&config, "listen.admin = []\nannounce.numwant = 'x'\n").unwrap();
    let said = tracker.fails(&["reload"]);
    assert!(
        said.contains("config.toml:2:20: ") && said.contains("(409)"),
        "{said}"
    );
    let (_, log) = tracker.tracker.stop(Signal::TERM);
    assert!(
        log.contains("reload failed, all old settings stay in force"),
        "{log}"
    );
}

#[test]
fn drain_stops_the_program() {
    let mut tracker = Program::start();
    let printed = tracker.prints(&["drain", "--stop-after", "1s"]);
    assert!(printed.starts_with("draining, stops in "), "{printed}");
    assert!(tracker.tracker.child.wait().unwrap().success());
}

#[test]
fn a_snapshot_is_written_on_request() {
    let tracker = Program::start();
    let announced = tracker.run(&[
        "announce",
        &tracker.http,
        "--info-hash",
        &"01".repeat(20),
        "--port",
        "6881",
    ]);
    assert!(announced.status.success(), "{}", stderr(&announced));
    let shown = tracker.prints(&["snapshot", "--show"]);
    assert!(
        shown.contains("swarms.snapshot\nlast      none since the start\n"),
        "{shown}"
    );
    let written = tracker.prints(&["snapshot"]);
    assert!(written.starts_with("1 peers of 1 torrents, "), "{written}");
    assert!(written.ends_with(" s\n"), "{written}");
    let shown = tracker.prints(&["snapshot", "--show"]);
    assert!(
        shown.contains("\ncontents  1 peers of 1 torrents, "),
        "{shown}"
    );
    let json = tracker.prints(&["snapshot", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["peers"], 1);
    let file = tracker
        .home
        .path()
        .join(".local/state/scion-tracker/swarms.snapshot");
    assert!(file.exists());
}

/// A process that follows events.
struct Following {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    /// Starts it. [`Program::is_read_by`] waits until it follows.
    fn start(tracker: &Program, args: &[&str]) -> Self {
        let mut command = program(tracker.home.path(), &["events"]);
        let command = command
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    /// The exit code, and what it said.
    fn end(self) -> (Option<i32>, String) {
        let output = self.child.wait_with_output().unwrap();
        (output.status.code(), stderr(&output))
    }
}

impl Program {
    fn announce(&self, hash: u8) {
        let hash = format!("{hash:02x}").repeat(20);
        let args = [
            "announce",
            &self.http,
            "--info-hash",
            &hash,
            "--port",
            "6881",
        ];
        let announced = self.run(&args);
        assert!(announced.status.success(), "{}", stderr(&announced));
    }

    /// Waits until events have so many readers.
    fn is_read_by(&self, readers: usize) {
        let socket = ".local/state/scion-tracker/admin.sock";
        let socket = self.home.path().join(socket);
        let expected = format!("\nscion_tracker_event_readers {readers}.0\n");
        let start = Instant::now();
        loop {
            let mut stream = UnixStream::connect(&socket).unwrap();
            let request = super::request("GET", "/metrics", &[], "");
            stream.write_all(request.as_bytes()).unwrap();
            let mut metrics = String::new();
            stream.read_to_string(&mut metrics).unwrap();
            if metrics.contains(&expected) {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "{metrics}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn events_are_followed_until_the_end() {
    let tracker = Program::start();
    let mut json = Following::start(&tracker, &["--json"]);
    let mut text = Following::start(&tracker, &["--kinds", "announced"]);
    let interrupted = Following::start(&tracker, &["--kinds", "refused"]);
    tracker.is_read_by(3);
    tracker.announce(1);
    assert_eq!(
        text.line(),
        "announced  010101010101  127.0.0.1:6881  leecher new  0/1"
    );
    let event: serde_json::Value = serde_json::from_str(&json.line()).unwrap();
    assert_eq!(
        (&event["event"], &event["change"]),
        (&"announced".into(), &"joined".into())
    );
    assert_eq!(event["info_hash"], "01".repeat(20));
    kill_process(Pid::from_child(&interrupted.child), Signal::INT).unwrap();
    assert_eq!(interrupted.end(), (Some(0), String::new()));
    tracker.tracker.stop(Signal::TERM);
    for following in [json, text] {
        let said = "scion-tracker: the tracker stops\n";
        assert_eq!(following.end(), (Some(0), said.into()));
    }
}

#[test]
fn events_of_a_tracker_that_is_killed_end_with_an_error() {
    let mut tracker = Program::start();
    let following = Following::start(&tracker, &[]);
    tracker.is_read_by(1);
    tracker.tracker.child.kill().unwrap();
    let (code, said) = following.end();
    assert_eq!(code, Some(1));
    assert!(
        said.contains("the tracker has ended the connection"),
        "{said}"
    );
}

#[test]
fn errors_say_what_to_do() {
    let home = home();
    let run = |args: &[&str]| {
        let output = program(home.path(), args).output().unwrap();
        (output.status.code(), stderr(&output))
    };
    let (code, said) = run(&["stats"]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("no tracker runs here: nothing listens on "),
        "{said}"
    );
    assert!(
        said.contains(".local/state/scion-tracker/admin.sock"),
        "{said}"
    );
    let (code, said) = run(&["stats", "--url", "localhost"]);
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = run(&["--interval", "1m", "stats"]);
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = run(&["stats", "--config", "/nonexistent"]);
    assert_eq!(code, Some(78), "{said}");
    // A socket that is there and not ours.
    if !rustix::process::geteuid().is_root() {
        let directory = home.path().join("other");
        fs::create_dir(&directory).unwrap();
        let socket = directory.join("admin.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o000)).unwrap();
        let (code, said) = run(&["stats", "--data-dir", directory.to_str().unwrap()]);
        assert_eq!(code, Some(1));
        assert!(said.contains("permission denied on "), "{said}");
    }
}

#[test]
fn a_remote_tracker_is_asked_with_a_token() {
    let tracker = super::Tracker::start();
    let home = home();
    let url = format!("http://{}", tracker.admin);
    let token = home.path().join("token");
    fs::write(&token, "# mine\nwrite-token\n").unwrap();
    let run = |args: &[&str]| {
        let mut command = program(home.path(), &["keys", "--url", &url]);
        let output = command.args(args).output().unwrap();
        (output.status.success(), stderr(&output))
    };
    let file = ["--token-file", token.to_str().unwrap()];
    assert!(run(&file).0);
    assert!(run(&["--token", "read-token"]).0);
    let said = run(&[]).1;
    assert!(
        said.contains("wants a token: name it with --token-file"),
        "{said}"
    );
    let said = run(&["--token", "wrong-token"]).1;
    assert!(said.contains("does not accept the token"), "{said}");
    let mut command = program(home.path(), &["keys", "--url", &url]);
    command.env("SCION_TRACKER_ADMIN_TOKEN", "read-token");
    assert!(command.output().unwrap().status.success());
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let output = program(home.path(), &["stats", "--url", &url]).output();
    let said = stderr(&output.unwrap());
    assert!(
        said.contains("cannot connect to http://127.0.0.1:"),
        "{said}"
    );
}
