//! Tests `scion-tracker health`: its exit code says whether a tracker answers.

use std::fs;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cli::{Tracker, home, program, stderr};

/// Checks the health of the tracker with these flags. Checks exit code, standard output and error.
fn check_health(args: &[&str], env: &[(&str, &str)], code: i32, expected: &str) {
    let home = home();
    let started = Instant::now();
    let output = program(home.path(), args)
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?} {env:?}: {said}");
    assert!(said.starts_with(expected), "{args:?} {env:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{args:?} {env:?}: {said}");
    // No test waits for longer than a second if nothing answers.
    assert!(code == 0 || started.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_tracker_that_runs_is_healthy_over_every_transport() {
    let home = home();
    for (flag, variable) in [
        ("--udp", "SCION_TRACKER_UDP"),
        ("--http", "SCION_TRACKER_HTTP"),
        ("--https", "SCION_TRACKER_HTTPS"),
        ("--http3", "SCION_TRACKER_HTTP3"),
    ] {
        let mut tracker = Tracker::start(&mut program(home.path(), &[flag, "127.0.0.1:0"]));
        let url = tracker.line();
        let (_, rest) = url.split_once("://").unwrap();
        let address = rest.strip_suffix("/announce").unwrap();
        let answers = format!("{url} answers\n");
        // On a busy machine the reply may take longer than the default timeout.
        let patient = ["health", "--timeout", "60s"];
        check_health(&[&patient[..], &[flag, address]].concat(), &[], 0, &answers);
        check_health(&[&[flag, address], &patient[..]].concat(), &[], 0, &answers);
        check_health(&patient, &[(variable, address)], 0, &answers);
        check_health(&[&patient[..], &[&url]].concat(), &[], 0, &answers);
        tracker.stop(Signal::TERM);
        let gone = format!("scion-tracker: {url} is not healthy: ");
        let quickly = ["health", flag, address, "--timeout", "300ms"];
        check_health(&quickly, &[], 1, &gone);
    }
}

/// It refuses the request of the check, which has no passkey.
#[test]
fn a_private_tracker_is_healthy() {
    let home = home();
    for flag in ["--udp", "--http", "--https", "--http3"] {
        let flags = [flag, "127.0.0.1:0", "--private", "--listed"];
        let mut tracker = Tracker::start(&mut program(home.path(), &flags));
        let url = tracker.line();
        let answers = format!("{url} answers\n");
        check_health(&["health", "--timeout", "60s", &url], &[], 0, &answers);
        tracker.stop(Signal::TERM);
    }
}

#[test]
fn a_scion_only_tracker_is_checked_over_scion() {
    let home = home();
    let file = home.path().join("tracker.toml");
    fs::write(
        &file,
        "listen = { udp = [], http = [], https = [], http3 = [] }\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let flags = ["--config", file, "--scion", "1-ff00:0:110,[127.0.0.1]:0"];
    let mut tracker = Tracker::start(&mut program(home.path(), &flags));
    let https = tracker.line();
    let address = https.trim_start_matches("https://[").replacen("]:", ",", 1);
    let [ia, ip, port] = *address
        .trim_end_matches("/announce")
        .split(',')
        .collect::<Vec<_>>()
    else {
        panic!("{https}");
    };
    let listener = format!("{ia},[{ip}]:{port}");
    let udp = https.replacen("https", "udp", 1);
    let args = ["health", "--config", file, "--scion", &listener];
    let patient = ["--timeout", "60s"];
    let answers = format!("{udp} answers\n");
    check_health(&[&args[..], &patient].concat(), &[], 0, &answers);
    let answers = format!("{https} answers\n");
    check_health(
        &[&["health", &https][..], &patient].concat(),
        &[],
        0,
        &answers,
    );
    tracker.stop(Signal::TERM);
    let quickly = [&args[..], &["--timeout", "100ms"]].concat();
    check_health(&quickly, &[], 1, "scion-tracker: udp://[1-ff00:0:110,");
}

#[test]
fn a_silent_tracker_is_unhealthy() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap().to_string();
    let args = ["health", "--udp", &address, "--timeout", "50ms"];
    let silent =
        format!("scion-tracker: udp://{address}/announce is not healthy: no answer within 50ms\n");
    check_health(&args, &[], 1, &silent);
    let nothing = "scion-tracker: no listener of the configuration can be asked";
    check_health(&["health", "--udp", "127.0.0.1:0"], &[], 1, nothing);
}
