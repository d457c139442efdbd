//! docs/configuration.md: every setting, from the comments of the configuration itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use confique::Config as _;
use confique::meta::{Field, FieldKind, Meta};
use scion_tracker::config::{Config, template};

/// Set in the environment, it has the test write the page instead of comparing it.
const RECORD: &str = "RECORD_CONFIGURATION";
const HEAD: &str = "# Configuration

<!-- Written by: RECORD_CONFIGURATION=1 cargo test --test it configuration -->

Every setting with its default, from the comments in the program. `scion-tracker config print` prints the same as a file to edit, `scion-tracker config print --effective` what is in force and where it comes from, and `scion-tracker config check FILE` checks a file.
";

/// The defaults as the template writes them, by key.
fn defaults() -> BTreeMap<String, String> {
    let mut section = String::new();
    let mut defaults = BTreeMap::new();
    for line in template().lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            section = format!("{name}.");
        } else if let Some((key, value)) = line
            .strip_prefix('#')
            .and_then(|line| line.split_once(" ="))
            && !key.is_empty()
            && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            defaults.insert(format!("{section}{key}"), value.trim().to_owned());
        }
    }
    defaults
}

/// Doc comments in Markdown: without their indentation, and with links to the pages that they name.
fn text(doc: &[&str]) -> String {
    let lines = doc
        .iter()
        .map(|line| line.strip_prefix(' ').unwrap_or(line));
    let mut is_code = false;
    let mut text = String::new();
    for line in lines {
        is_code ^= line.starts_with("```");
        let line = match is_code {
            // A part of a file is checked by nobody.
            true => line.replace("```toml", "```toml,norun"),
            false => with_links(line),
        };
        let _ = writeln!(text, "{line}");
    }
    text
}

/// `docs/access.md` becomes a link.
fn with_links(line: &str) -> String {
    let mut words = Vec::new();
    for word in line.split(' ') {
        let page = word
            .strip_prefix("docs/")
            .and_then(|rest| rest.split_once(".md"));
        words.push(match page {
            Some((page, rest)) => format!("[{page}]({page}.md){rest}"),
            None => word.to_owned(),
        });
    }
    words.join(" ")
}

fn setting(field: &Field, section: &str, defaults: &BTreeMap<String, String>, page: &mut String) {
    let FieldKind::Leaf { env, .. } = field.kind else {
        return;
    };
    let key = format!("{section}{}", field.name);
    let default = match defaults.get(&key).map(String::as_str) {
        None | Some("") => "Not set by default.".to_owned(),
        Some(default) => format!("Default: `{default}`."),
    };
    let variable = env
        .map(|name| format!(" Variable: `{name}`."))
        .unwrap_or_default();
    let _ = write!(
        page,
        "\n### `{key}`\n\n{}\n{default}{variable}\n",
        text(field.doc)
    );
}

fn sections(meta: &Meta, defaults: &BTreeMap<String, String>, page: &mut String) {
    for field in meta.fields {
        if let FieldKind::Nested { meta } = field.kind {
            let _ = write!(page, "\n## `[{}]`\n\n{}", field.name, text(field.doc));
            for field_of_it in meta.fields {
                setting(field_of_it, &format!("{}.", field.name), defaults, page);
            }
        }
    }
}

#[test]
fn the_reference_is_what_the_program_says() {
    let defaults = defaults();
    let mut page = HEAD.to_owned();
    let meta = &Config::META;
    // The first paragraph is a title.
    let _ = write!(page, "\n{}", text(&meta.doc[1..]).trim_start());
    page += "\n## Without a section\n";
    for field in meta.fields {
        setting(field, "", &defaults, &mut page);
    }
    sections(meta, &defaults, &mut page);

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    if env::var_os(RECORD).is_some() {
        fs::write(&file, &page).unwrap();
    }
    let how = format!("write it with {RECORD}=1 cargo test --test it configuration");
    assert_eq!(fs::read_to_string(&file).unwrap_or_default(), page, "{how}");
    // Nothing of the template is missing.
    for key in defaults.keys() {
        assert!(page.contains(&format!("### `{key}`")), "{key}");
    }
    assert!(defaults.len() > 60);
}
