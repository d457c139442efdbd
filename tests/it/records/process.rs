//! A tracker in a process of its own that changes its records without end and says which changes are
//! committed, so that it can be killed at any time. The process is this test binary with one ignored test.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use scion_tracker::core::access::{Ban, BanTarget, Expiry, Isolation};
use scion_tracker::core::address::Host;
use scion_tracker::core::types::InfoHash;
use scion_tracker::records::{PasskeyRecord, RecordsError, RulesRecord};
use scion_tracker::server::{Handle, Kind};

use crate::common;

/// Tasks that change records at the same time.
const TASKS: usize = 8;

/// The changes, numbered. Each makes an entry of its own; every eighth takes one away that it has made.
const KINDS: usize = 8;

fn hash(number: usize) -> InfoHash {
    let mut hash = [0xcc; 20];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    InfoHash(hash)
}

fn host(number: usize) -> BanTarget {
    let number = u32::try_from(number).unwrap();
    BanTarget::host(Host::ip_only(IpAddr::V4(Ipv4Addr::from_bits(
        0x0a00_0000 | number,
    ))))
}

fn passkey(number: usize) -> PasskeyRecord {
    let key = format!("key-{number}").parse().unwrap();
    let mut record = PasskeyRecord::new(key, Expiry::Never);
    record.note = Some(format!("number {number}, ä"));
    record.owner = number.is_multiple_of(2).then(|| "somebody".into());
    record
}

fn rules(number: usize) -> RulesRecord {
    let mut rules = RulesRecord::default();
    rules.deny_clients = vec![format!("-X{number}").parse().unwrap()];
    rules.isd_as = "- 1-ff00:0:110, +".parse().unwrap();
    rules
}

/// Makes one change and waits for its commit.
async fn change(handle: &Handle, number: usize) -> Result<(), RecordsError> {
    match number % KINDS {
        0 => handle.add_passkey(passkey(number)).await.map(drop),
        1 => handle.allow_torrent(hash(number)).await.map(drop),
        2 => handle.deny_torrent(hash(number)).await.map(drop),
        3 => {
            let ban = Ban {
                until: None,
                reason: format!("number {number}"),
            };
            handle.ban(host(number), ban).await.map(drop)
        }
        4 => {
            let isolation = Isolation {
                isds: vec!["64".parse().unwrap(), "65".parse().unwrap()],
                proven_only: true,
            };
            handle
                .isolate_torrent(hash(number), isolation)
                .await
                .map(drop)
        }
        5 => handle
            .set_torrent_rules(hash(number), rules(number))
            .await
            .map(drop),
        6 => handle.set_global_rules(rules(number)).await.map(drop),
        _ => {
            handle.add_passkey(passkey(number)).await?;
            handle
                .remove_passkey(passkey(number).passkey)
                .await
                .map(drop)
        }
    }
}

/// Whether a change that was acknowledged is to be seen. `last`: the last acknowledged rules for all.
fn is_there(number: usize, seen: &BTreeSet<String>) -> bool {
    match number % KINDS {
        0 => seen.contains(&format!("passkey key-{number}")),
        1 => seen.contains(&format!("allowed {}", hash(number))),
        2 => seen.contains(&format!("denied {}", hash(number))),
        3 => seen.contains(&format!("ban {}", host(number))),
        4 => seen.contains(&format!("isolated {}", hash(number))),
        5 => seen.contains(&format!("rules {}", hash(number))),
        // Tasks overwrite each other's: some are there.
        6 => seen.contains("rules for all"),
        _ => !seen.contains(&format!("passkey key-{number}")),
    }
}

/// All records of a tracker.
fn records(handle: &Handle) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for it in handle.passkeys(0, usize::MAX).entries {
        assert!(it.note.is_some() && it.created > 0);
        let key = String::from_utf8_lossy(it.passkey.as_bytes()).into_owned();
        seen.insert(format!("passkey {key}"));
    }
    for it in handle.allowed(0, usize::MAX).entries {
        seen.insert(format!("allowed {it}"));
    }
    for it in handle.denied(0, usize::MAX).entries {
        seen.insert(format!("denied {it}"));
    }
    for (target, _) in handle.bans(0, usize::MAX).entries {
        seen.insert(format!("ban {target}"));
    }
    for (it, _) in handle.isolations(0, usize::MAX).entries {
        seen.insert(format!("isolated {it}"));
    }
    for (it, _) in handle.all_torrent_rules(0, usize::MAX).entries {
        seen.insert(format!("rules {it}"));
    }
    if handle.global_rules().is_some() {
        seen.insert("rules for all".into());
    }
    seen
}

/// The process: prints its URL, all its records, and then what it does.
#[test]
#[ignore = "other tests run it in a process of its own"]
fn tracker_that_changes_its_records() {
    let variable = |name| std::env::var(name).unwrap();
    let mut config = common::config();
    config.listen.http.clear();
    config.listen.https.clear();
    config.listen.http3.clear();
    config.records.database = variable("RECORDS_DATABASE").parse().ok();
    config.records.flush_interval = Duration::from_millis(200);
    let first: usize = variable("RECORDS_FIRST").parse().unwrap();
    let running = common::start(config);
    let print = |line: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n> {line}").unwrap();
        out.flush().unwrap();
    };
    print(format!("url {}", running.url(Kind::Udp)));
    for record in records(&running.handle) {
        print(format!("has {record}"));
    }
    print("ready".into());
    let next = AtomicUsize::new(first);
    thread::scope(|scope| {
        for _ in 0..TASKS {
            scope.spawn(|| {
                common::block_on(async {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        match change(&running.handle, number).await {
                            Ok(()) => print(format!("done {number}")),
                            Err(error) => {
                                print(format!("error {error}"));
                                tokio::time::sleep(Duration::from_millis(20)).await;
                            }
                        }
                    }
                });
            });
        }
    });
}

/// What the process has said.
#[derive(Debug, Default)]
struct Said {
    url: String,
    records: BTreeSet<String>,
    is_ready: bool,
    done: BTreeSet<usize>,
    errors: BTreeMap<String, usize>,
}

/// The process, killed when dropped.
pub(super) struct Changing {
    pub(super) child: Child,
    said: Arc<Mutex<Said>>,
    reader: Option<JoinHandle<()>>,
    first: usize,
}

impl Changing {
    /// Starts it. `limit`: the most KiB that it may write to a file.
    pub(super) fn start(url: &str, first: usize, limit: Option<u32>) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = match limit {
            None => Command::new(&program),
            Some(limit) => {
                // bash counts in KiB. The signal is ignored, so that the write fails instead.
                let mut command = Command::new("bash");
                let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"");
                command.args(["-c", &script]).arg(&program);
                command
            }
        };
        command
            .args(["--ignored", "--exact", "--nocapture", "--test-threads=1"])
            .arg("records::process::tracker_that_changes_its_records")
            .env("RECORDS_DATABASE", url)
            .env("RECORDS_FIRST", first.to_string())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let said = Arc::new(Mutex::new(Said::default()));
        let notes = Arc::clone(&said);
        let reader = thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let Some((word, rest)) = line
                    .strip_prefix("> ")
                    .map(|line| line.split_once(' ').unwrap_or((line, "")))
                else {
                    continue;
                };
                let mut said = notes.lock().unwrap();
                match word {
                    "url" => said.url = rest.into(),
                    "has" => drop(said.records.insert(rest.into())),
                    "ready" => said.is_ready = true,
                    "done" => drop(said.done.insert(rest.parse().unwrap())),
                    "error" => *said.errors.entry(rest.into()).or_default() += 1,
                    _ => panic!("{line}"),
                }
            }
        });
        let this = Self {
            child,
            said,
            reader: Some(reader),
            first,
        };
        super::until("it is ready", || this.said.lock().unwrap().is_ready);
        this
    }

    pub(super) fn url(&self) -> String {
        self.said.lock().unwrap().url.clone()
    }

    /// How many changes were acknowledged.
    pub(super) fn done(&self) -> usize {
        self.said.lock().unwrap().done.len()
    }

    /// Errors, and how often each was returned.
    pub(super) fn errors(&self) -> BTreeMap<String, usize> {
        self.said.lock().unwrap().errors.clone()
    }

    /// The number that no change has had.
    pub(super) fn next(&self) -> usize {
        // Each task is at most one change beyond those that are acknowledged, besides those that failed.
        let said = self.said.lock().unwrap();
        let failed: usize = said.errors.values().sum();
        let last = said.done.last().map_or(self.first, |last| last + 1);
        last + TASKS + failed
    }

    /// Checks that all these changes, which earlier processes acknowledged, are there.
    pub(super) fn check(&self, acknowledged: &BTreeSet<usize>) {
        let said = self.said.lock().unwrap();
        for number in acknowledged {
            assert!(is_there(*number, &said.records), "change {number} is lost");
        }
    }

    /// Kills it with SIGKILL. Returns the changes that it had acknowledged.
    pub(super) fn kill(mut self) -> BTreeSet<usize> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        std::mem::take(&mut self.said.lock().unwrap().done)
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The name of a SQLite file as a URL.
pub(super) fn sqlite(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}
