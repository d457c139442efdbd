//! Accepts the flags of the first SCION tracker, which begin with one dash, and says what they are called
//! here.

use std::ffi::OsString;

use scion_tracker_core::address::ScionAddr;

/// Arguments for this program, and what to tell the operator about those that were translated.
pub(super) struct Translated {
    pub(super) args: Vec<OsString>,
    pub(super) notes: Vec<String>,
}

/// Translates the flags of the first SCION tracker: `-addr`, `-debug`, `-interval`, `-min-interval`,
/// `-redis-addr`, `-redis-pass`. Only before any subcommand: that program had none. The first argument is
/// the name of the program.
pub(super) fn translate(args: impl IntoIterator<Item = OsString>) -> Translated {
    let mut args = args.into_iter();
    let mut translated = Translated {
        args: args.next().into_iter().collect(),
        notes: Vec::new(),
    };
    while let Some(arg) = args.next() {
        let Some((name, value)) = arg.to_str().and_then(old_flag) else {
            let is_subcommand = !arg.as_encoded_bytes().starts_with(b"-");
            translated.args.push(arg);
            if is_subcommand {
                break;
            }
            // The value of a flag of ours, which stands where a subcommand could, also ends the search:
            // old and new flags are not mixed.
            continue;
        };
        if name == "debug" {
            // The flag package of Go reads a truth value only after an equals sign.
            if value.is_none_or(|value| matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"))
            {
                translated.put("-debug", "--log", Some("debug".into()));
            }
            continue;
        }
        let value = match value {
            Some(value) => Some(value.into()),
            None => args.next(),
        };
        match name {
            "addr" => {
                let is_scion = value
                    .as_ref()
                    .and_then(|value| value.to_str())
                    .is_some_and(|value| value.parse::<ScionAddr>().is_ok());
                let flag = if is_scion { "--scion" } else { "--http" };
                // Go writes a port on all addresses as ":PORT".
                let value = value.map(|value| match value.to_str() {
                    Some(text) if text.starts_with(':') => text[1..].into(),
                    _ => value,
                });
                translated.put("-addr", flag, value);
            }
            "interval" => translated.put("-interval", "--interval", value),
            "min-interval" => translated.put("-min-interval", "--min-interval", value),
            _ => translated.notes.push(format!(
                "-{name} is ignored: this tracker keeps peers in its own memory and needs no Redis"
            )),
        }
    }
    translated.args.extend(args);
    translated
}

/// The name and the value after `=` of an old flag.
fn old_flag(arg: &str) -> Option<(&str, Option<&str>)> {
    let flag = arg
        .strip_prefix('-')
        .filter(|rest| !rest.starts_with('-'))?;
    let (name, value) = match flag.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (flag, None),
    };
    [
        "addr",
        "debug",
        "interval",
        "min-interval",
        "redis-addr",
        "redis-pass",
    ]
    .contains(&name)
    .then_some((name, value))
}

impl Translated {
    fn put(&mut self, old: &str, new: &str, value: Option<OsString>) {
        self.args.push(new.into());
        self.notes.push(match &value {
            Some(value) => format!(
                "{old} is called {new} {} here",
                super::visible::visible(&value.to_string_lossy())
            ),
            None => format!("{old} is called {new} here"),
        });
        self.args.extend(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(old: &[&str], new: &[&str], notes: usize) {
        let args = ["tracker"].iter().chain(old).map(OsString::from);
        let translated = translate(args);
        let expected: Vec<_> = ["tracker"].iter().chain(new).map(OsString::from).collect();
        assert_eq!(translated.args, expected);
        assert_eq!(translated.notes.len(), notes, "{:?}", translated.notes);
    }

    #[test]
    fn flags_of_the_first_scion_tracker_keep_their_meaning() {
        check(
            &[
                "-addr",
                ":8080",
                "-interval",
                "60",
                "-min-interval=30",
                "-debug",
            ],
            &[
                "--http",
                "8080",
                "--interval",
                "60",
                "--min-interval",
                "30",
                "--log",
                "debug",
            ],
            4,
        );
        let address = "1-ff00:0:110,[10.0.0.1]:31969";
        check(&["-addr", address], &["--scion", address], 1);
        check(&["-debug=false"], &[], 0);
        check(
            &["-debug", "--private"],
            &["--log", "debug", "--private"],
            1,
        );
        check(&["-redis-addr", "localhost:6379", "-redis-pass=x"], &[], 2);
        check(&["-addr"], &["--http"], 1);
    }

    #[test]
    fn other_arguments_stay_as_they_are() {
        for args in [
            &["--interval", "60"][..],
            &["announce", "-addr", "x"],
            &["-h"],
            &["-V"],
            &["--http", "6969", "-x"],
            &["-"],
        ] {
            check(args, args, 0);
        }
    }
}
