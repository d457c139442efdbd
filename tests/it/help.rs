//! The help of the program and of each subcommand, byte for byte.

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

use clap::{Command, CommandFactory as _};
use scion_tracker::cli::Cli;

use crate::cli::{home, program};

/// Set in the environment, it has the test record the help instead of comparing it.
const RECORD: &str = "RECORD_HELP";

/// The program's arguments up to each subcommand.
fn subcommands(command: &Command, path: &[String], found: &mut Vec<Vec<String>>) {
    found.push(path.to_vec());
    for subcommand in command.get_subcommands() {
        let path = [path, &[subcommand.get_name().to_owned()]].concat();
        subcommands(subcommand, &path, found);
    }
}

/// The help that the program prints, by the name of its file.
fn printed() -> BTreeMap<String, String> {
    let mut found = Vec::new();
    subcommands(&Cli::command(), &[], &mut found);
    let home = home();
    let mut printed = BTreeMap::new();
    for path in found {
        for flag in ["--help", "-h"] {
            let mut program = program(home.path(), &[]);
            let output = program.args(&path).arg(flag).output().unwrap();
            assert!(output.status.success(), "{path:?} {flag}");
            let name = ["scion-tracker"]
                .into_iter()
                .chain(path.iter().map(String::as_str));
            let name = name.collect::<Vec<_>>().join(" ");
            let text = String::from_utf8(output.stdout).unwrap();
            printed.insert(format!("{name} {flag}.txt"), text);
        }
    }
    printed
}

#[test]
fn the_help_is_as_recorded_and_fits_80_columns() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    let printed = printed();
    for (name, text) in &printed {
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{name}: {line}");
        }
    }
    if env::var_os(RECORD).is_some() {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in &printed {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    let how = format!("record it with {RECORD}=1 cargo test --test it help");
    let recorded = fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let recorded = recorded
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect::<BTreeMap<_, _>>();
    let names = |texts: &BTreeMap<String, String>| texts.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&printed), names(&recorded), "{how}");
    for (name, text) in &printed {
        assert_eq!(text, &recorded[name], "{name} has changed: {how}");
    }
}
