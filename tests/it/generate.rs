//! Man pages and completions: each command and flag is in them.

use std::fs;

use clap::{Command, CommandFactory as _};
use scion_tracker::cli::Cli;

use crate::cli::{home, program};

/// A command, its subcommands and so on, with the name of its man page.
fn commands<'a>(command: &'a Command, name: &str, found: &mut Vec<(String, &'a Command)>) {
    found.push((name.to_owned(), command));
    for subcommand in command.get_subcommands() {
        let name = format!("{name}-{}", subcommand.get_name());
        commands(subcommand, &name, found);
    }
}

fn long_flags(command: &Command) -> impl Iterator<Item = &str> {
    let arguments = command.get_arguments().filter(|it| !it.is_hide_set());
    arguments.filter_map(|argument| argument.get_long())
}

#[test]
fn each_command_has_a_man_page_with_its_flags() {
    let home = home();
    let dir = home.path().join("man/man1");
    let output = program(home.path(), &["man", dir.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let program = Cli::command();
    let mut found = Vec::new();
    commands(&program, "scion-tracker", &mut found);
    assert!(found.len() > 10);
    for (name, command) in found {
        let page = fs::read_to_string(dir.join(format!("{name}.1"))).unwrap();
        assert!(page.contains(".TH "), "{name}");
        for flag in long_flags(command) {
            // roff writes a hyphen that is no line break with a backslash.
            let flag = flag.replace('-', "\\-");
            assert!(page.contains(&format!("\\-\\-{flag}")), "{name} {flag}");
        }
    }
}

#[test]
fn completions_know_each_command_and_flag() {
    let home = home();
    let command = Cli::command();
    let mut found = Vec::new();
    commands(&command, "scion-tracker", &mut found);
    for shell in ["bash", "zsh", "fish"] {
        let output = program(home.path(), &["completions", shell])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let script = String::from_utf8(output.stdout).unwrap();
        for (name, command) in &found {
            let word = name.rsplit('-').next().unwrap();
            assert!(script.contains(word), "{shell} {name}");
            for flag in long_flags(command) {
                let written = match shell {
                    "fish" => format!("-l {flag}"),
                    _ => format!("--{flag}"),
                };
                assert!(script.contains(&written), "{shell} {name} {flag}");
            }
        }
    }
    let output = program(home.path(), &["completions", "dos"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}
