//! The commands `config print` and `config check`, and variables of the environment.

use super::*;

#[test]
fn the_printed_configuration_is_good() {
    let home = home();
    let printed = program(home.path(), &["config", "print"]).output().unwrap();
    assert!(printed.status.success());
    let file = home.path().join("tracker.toml");
    fs::write(&file, printed.stdout).unwrap();
    let check = program(home.path(), &["config", "check"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", stderr(&check));
    assert_eq!(
        String::from_utf8_lossy(&check.stdout),
        format!("{}: ok\n", file.display())
    );
}

#[test]
fn what_is_in_force_is_printed_with_its_source() {
    let home = home();
    let file = home.path().join("tracker.toml");
    fs::write(&file, "[announce]\ninterval = '20m'\nnumwant = 7\n").unwrap();
    let file = file.to_str().unwrap();
    let effective = |args: &[&str]| {
        let mut command = program(home.path(), &["config", "print", "--effective"]);
        let output = command
            .args(args)
            .env("SCION_TRACKER_NUMWANT", "9")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    for args in [&[file][..], &["--config", file]] {
        let text = effective(&[args, &["--min-interval", "60"]].concat());
        for line in [
            format!("interval = \"20m\"  # {file}:2"),
            "min_interval = \"1m\"  # a flag".into(),
            "numwant = 9  # SCION_TRACKER_NUMWANT".into(),
            "numwant_max = 200  # default".into(),
        ] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
        let again = home.path().join("again.toml");
        fs::write(&again, &text).unwrap();
        let check = ["config", "check", again.to_str().unwrap()];
        let check = program(home.path(), &check).output().unwrap();
        assert!(check.status.success(), "{}", stderr(&check));
    }
    check_fails(&["config", "print", file], &[], 2, "--effective");
    check_fails(&["config", "print", "--udp", "1"], &[], 2, "--effective");
    check_fails(
        &["config", "print", "--effective", "/nowhere"],
        &[],
        78,
        "/nowhere",
    );
}

#[test]
fn an_empty_variable_is_not_set() {
    let home = home();
    let printed = program(home.path(), &["config", "print"]).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    let word = |char: char| !(char.is_ascii_alphanumeric() || char == '_');
    let variables = printed
        .split(word)
        .filter(|word| word.starts_with("SCION_TRACKER_"))
        .chain([
            "SCION_TRACKER_CONFIG",
            "SCION_DAEMON",
            "SCION_DAEMON_ADDRESS",
        ])
        .collect::<Vec<_>>();
    assert!(variables.len() > 30, "{variables:?}");
    let mut command = program(home.path(), &["--udp", "127.0.0.1:0"]);
    command.envs(variables.iter().map(|name| (name, "")));
    let log = check_serves(&mut command, "udp://127.0.0.1:");
    assert!(log.contains("INFO"), "{log}");
    // Another tracker on this host may have the port of the admin API.
    let warnings = log.lines().filter(|line| line.contains("WARN"));
    let others = warnings.filter(|line| !line.contains("127.0.0.1:1212"));
    assert_eq!(others.count(), 0, "{log}");
    let check = program(home.path(), &["config", "check"])
        .envs(variables.iter().map(|name| (name, "")))
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&check.stdout),
        "configuration: ok\n"
    );
}

#[test]
fn config_check_fails_as_serve_does() {
    let dir = home();
    let missing = dir.path().join("missing");
    let missing = missing.to_str().unwrap();
    let topology = dir.path().join("topology.json");
    fs::write(&topology, "{}").unwrap();
    let topology = topology.to_str().unwrap();
    for (flags, env, expected) in [
        (
            &["--interval", "1m"][..],
            &[][..],
            "announce.min_interval = 5m (the default)",
        ),
        (&["--log", "verbose"], &[], "error, warn, info"),
        (
            &[],
            &[("SCION_TRACKER_REGISTRY_MEMORY", "0")],
            "memory is at least 1MiB",
        ),
        (&["--config", missing], &[], missing),
        (
            &[],
            &[
                ("SCION_TRACKER_TLS_CERT", missing),
                ("SCION_TRACKER_TLS_KEY", missing),
            ],
            missing,
        ),
        (&["--scion-topology", topology], &[], "isd_as"),
    ] {
        let udp = [flags, &["--udp", "127.0.0.1:0"]].concat();
        check_fails(&udp, env, 78, expected);
        check_fails(
            &[&["config", "check"], &udp[..]].concat(),
            env,
            78,
            expected,
        );
    }
}

#[test]
fn a_strange_variable_is_pointed_out() {
    let home = home();
    let mut command = program(home.path(), &["--udp", "127.0.0.1:0"]);
    let mut tracker = Tracker::start(command.env("SCION_TRACKER_INTERVALL", "1"));
    tracker.line();
    let (_, stderr) = tracker.stop(Signal::TERM);
    assert!(
        stderr.contains("SCION_TRACKER_INTERVALL is not a setting"),
        "{stderr}"
    );
    assert!(
        stderr.contains("did you mean SCION_TRACKER_INTERVAL?"),
        "{stderr}"
    );
}
