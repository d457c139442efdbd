//! `scion-tracker rules`: rules about networks, clients and ISD-ASes, for all torrents or for one.

use anyhow::bail;
use http::Method;
use scion_tracker_core::prefix::unmapped;
use serde_json::{Map, Value, json};

use super::api::{self, Api, Page, entries, escaped, text};

/// Columns of a terminal.
const WIDTH: usize = 80;
/// Columns before a value.
const INDENT: usize = 18;
/// Fields of rules that are lists, by their name in the API.
const LISTS: [&str; 4] = [
    "allow_networks",
    "deny_networks",
    "allow_clients",
    "deny_clients",
];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    api: api::Args,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the rules for all torrents, then the torrents that have rules of their own. Those of the
    /// configuration are not among them.
    List {
        /// Only the rules of this torrent.
        #[arg(long, value_name = "HASH")]
        torrent: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Set parts of the rules. The other parts stay. The first rules that are set replace those of the
    /// configuration.
    Set {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        lists: Lists,
        #[command(flatten)]
        places: Places,
    },
    /// Add networks and clients to rules that are set.
    Add {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        lists: Lists,
    },
    /// Remove networks and clients from rules that are set, or all rules.
    Remove {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        lists: Lists,
        /// Remove all of them. Those of the configuration are in force again.
        #[arg(long, conflicts_with = "lists")]
        all: bool,
    },
}

/// Whose rules.
#[derive(Debug, clap::Args)]
#[group(skip)]
struct Whose {
    /// The rules of this torrent, instead of those for all torrents.
    #[arg(long, value_name = "HASH")]
    torrent: Option<String>,
}

impl Whose {
    fn path(&self) -> String {
        path(self.torrent.as_deref())
    }
}

fn path(torrent: Option<&str>) -> String {
    match torrent {
        None => "/api/v2/rules".into(),
        Some(hash) => format!("/api/v2/rules/torrents/{}", escaped(hash)),
    }
}

/// Lists of networks and clients.
#[derive(Debug, clap::Args)]
#[group(id = "lists", multiple = true)]
struct Lists {
    /// Networks that are served, as in 192.0.2.0/24,2001:db8::/32. If there is one, clients at other
    /// addresses are refused.
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',')]
    allow_networks: Option<Vec<String>>,
    /// Networks that are refused.
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',')]
    deny_networks: Option<Vec<String>>,
    /// Clients that are served, by the beginning of their peer id, as in -qB,-TR40. If there is one,
    /// others are refused.
    #[arg(
        long,
        value_name = "PREFIXES",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    allow_clients: Option<Vec<String>>,
    /// Clients that are refused.
    #[arg(
        long,
        value_name = "PREFIXES",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    deny_clients: Option<Vec<String>>,
}

impl Lists {
    /// The lists that are named, by their name in the API. An empty text is an empty list.
    fn named(self) -> impl Iterator<Item = (&'static str, Vec<String>)> {
        let lists = [
            self.allow_networks,
            self.deny_networks,
            self.allow_clients,
            self.deny_clients,
        ];
        let named = LISTS.into_iter().zip(lists);
        named.filter_map(|(name, list)| {
            let mut list = list?;
            list.retain(|item| !item.is_empty());
            Some((name, list))
        })
    }
}

/// Rules about ISDs and ASes.
#[derive(Debug, clap::Args)]
#[group(skip)]
struct Places {
    /// Which ISDs and ASes are served, in SCION's syntax, as in "+ 64-0, -". The first entry that
    /// matches decides. An empty text serves all.
    #[arg(long, value_name = "ACL", allow_hyphen_values = true)]
    isd_as: Option<String>,
    /// Count an ISD-AS only if it is proven, by a SCION packet or by places.prefixes.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    proven: Option<bool>,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let api = self.api.open()?;
        let action = self.action.unwrap_or_else(|| Action::List {
            torrent: None,
            page: Page::default(),
        });
        match action {
            Action::List {
                torrent: Some(hash),
                ..
            } => api.show(&path(Some(&hash)), show),
            Action::List {
                torrent: None,
                page,
            } => list(&api, &page),
            Action::Set {
                whose,
                lists,
                places,
            } => {
                let mut rules = found(&api, &whose)?.unwrap_or_default();
                let mut parts: Vec<_> = lists
                    .named()
                    .map(|(name, list)| (name, json!(list)))
                    .collect();
                parts.extend(places.isd_as.map(|acl| ("isd_as", json!(acl))));
                parts.extend(places.proven.map(|proven| ("proven", json!(proven))));
                if parts.is_empty() {
                    bail!(
                        "name the parts to set, as in --deny-networks 192.0.2.0/24: see `scion-tracker rules set --help`"
                    );
                }
                rules.extend(parts.into_iter().map(|(name, part)| (name.into(), part)));
                put(&api, &whose, rules)
            }
            Action::Add { whose, lists } => edit(&api, &whose, lists, |all, items| {
                let is_new = |item: &String| !all.iter().any(|it| is_same(it, item));
                let new: Vec<_> = items.into_iter().filter(is_new).map(Value::from).collect();
                all.extend(new);
                Ok(())
            }),
            Action::Remove {
                whose, all: true, ..
            } => api.remove(&whose.path()),
            Action::Remove { whose, lists, .. } => edit(&api, &whose, lists, |all, items| {
                for item in items {
                    let before = all.len();
                    all.retain(|it| !is_same(it, &item));
                    if all.len() == before {
                        bail!("{item} is not among these rules: `scion-tracker rules` lists them");
                    }
                }
                Ok(())
            }),
        }
    }
}

/// Whether an entry of the tracker is this one. The tracker writes addresses as networks.
fn is_same(entry: &Value, text: &str) -> bool {
    let Some(entry) = entry.as_str() else {
        return false;
    };
    let network = |text: &str| {
        let net = text.parse::<ipnet::IpNet>();
        net.or_else(|_| text.parse().map(|ip: std::net::IpAddr| ip.into()))
            .map(unmapped)
    };
    entry == text || matches!((network(entry), network(text)), (Ok(one), Ok(other)) if one == other)
}

/// The rules that are set. `None`: there are none.
fn found(api: &Api, whose: &Whose) -> anyhow::Result<Option<Map<String, Value>>> {
    match api.find(&whose.path())? {
        Some(Value::Object(rules)) => Ok(Some(rules)),
        Some(_) => bail!("the tracker does not answer with rules"),
        None => Ok(None),
    }
}

/// Changes the lists that are named, and sets the rules.
fn edit(
    api: &Api,
    whose: &Whose,
    lists: Lists,
    change: impl Fn(&mut Vec<Value>, Vec<String>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let lists: Vec<_> = lists.named().collect();
    if lists.iter().all(|(_, items)| items.is_empty()) {
        bail!("name the entries, as in --deny-networks 192.0.2.0/24");
    }
    let Some(mut rules) = found(api, whose)? else {
        bail!(
            "no rules are set here; those of the configuration are in force: set all of them with `scion-tracker rules set`"
        );
    };
    for (name, items) in lists {
        match rules.get_mut(name) {
            Some(Value::Array(all)) => change(all, items)?,
            _ => bail!("the tracker does not answer with rules"),
        }
    }
    put(api, whose, rules)
}

fn put(api: &Api, whose: &Whose, rules: Map<String, Value>) -> anyhow::Result<()> {
    let answer = api.send(&Method::PUT, &whose.path(), &rules.into())?;
    api.print(&answer, show)
}

fn list(api: &Api, page: &Page) -> anyhow::Result<()> {
    let rules = api.find("/api/v2/rules")?;
    let torrents = api.get(&format!("/api/v2/rules/torrents?{}", page.query()))?;
    let answer = json!({ "rules": rules, "torrents": torrents });
    api.print(&answer, |answer| {
        let global = match &answer["rules"] {
            Value::Null => {
                "none are set here; those of the configuration are in force\n".to_owned()
            }
            rules => show(rules),
        };
        let mut shown = format!("all torrents\n{}", indented(&global));
        let torrents = &answer["torrents"];
        for torrent in entries(torrents) {
            let name = text(&torrent["info_hash"]);
            shown += &format!("\n{name}\n{}", indented(&show(&torrent["rules"])));
        }
        shown + "\n" + &page.footer(torrents, "torrents with rules of their own")
    })
}

fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("  {line}\n")).collect()
}

/// The parts of rules that restrict something, one per line.
fn show(rules: &Value) -> String {
    let mut shown = String::new();
    for name in LISTS {
        let list = rules[name].as_array().map_or(&[][..], Vec::as_slice);
        shown += &part(&name.replace('_', " "), list.iter().map(text));
    }
    let acl = text(&rules["isd_as"]);
    let acl = if rules["isd_as"].is_null() { "" } else { &acl };
    let acl = acl.split(", ").filter(|entry| !entry.is_empty());
    shown += &part("ISD-AS", acl.map(str::to_owned));
    if rules["proven"].as_bool() == Some(true) {
        shown += &part(
            "proven",
            ["only a proven ISD-AS counts".to_owned()].into_iter(),
        );
    }
    match shown.is_empty() {
        true => "everybody is served\n".into(),
        false => shown,
    }
}

/// A name and its values, on as many lines as they need.
fn part(name: &str, values: impl Iterator<Item = String>) -> String {
    // Two columns are for the indentation of lists.
    const ROOM: usize = WIDTH - INDENT - 2;
    let mut lines: Vec<String> = Vec::new();
    for value in values {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 2 + value.chars().count() < ROOM => {
                line.push_str(", ");
                line.push_str(&value);
            }
            Some(line) => {
                line.push(',');
                lines.push(value);
            }
            None => lines.push(value),
        }
    }
    let mut shown = String::new();
    for (at, line) in lines.iter().enumerate() {
        let name = if at == 0 { name } else { "" };
        shown += &format!("{name:<INDENT$}{line}\n");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_take_several_lines() {
        let networks: Vec<_> = (0..20).map(|at| format!("198.51.{at}.0/24")).collect();
        let rules = json!({
            "allow_networks": [], "deny_networks": networks, "allow_clients": [],
            "deny_clients": ["-X\u{1b}"], "isd_as": "- 1-ff00:0:110, +", "proven": true,
        });
        let shown = show(&rules);
        let lines: Vec<_> = shown.lines().collect();
        assert!(
            lines[0].starts_with("deny networks     198.51.0.0/24, "),
            "{shown}"
        );
        assert!(lines[1].starts_with("                  198.51."), "{shown}");
        assert!(lines.iter().all(|line| line.len() <= WIDTH - 2), "{shown}");
        assert!(shown.contains("\ndeny clients      -X\\u{1b}\n"), "{shown}");
        let places = "\nISD-AS            - 1-ff00:0:110, +\nproven            only a proven ISD-AS counts\n";
        assert!(shown.ends_with(places), "{shown}");
        assert_eq!(show(&json!({ "isd_as": "" })), "everybody is served\n");
    }

    #[test]
    fn an_address_is_a_network() {
        assert!(is_same(&json!("192.0.2.1/32"), "192.0.2.1"));
        assert!(is_same(&json!("2001:db8::/32"), "2001:DB8::/32"));
        assert!(is_same(&json!("192.0.2.0/24"), "::ffff:192.0.2.0/120"));
        assert!(is_same(&json!("-qB"), "-qB"));
        assert!(!is_same(&json!("192.0.2.1/32"), "192.0.2.2"));
        assert!(!is_same(&json!("-qB"), "-qb"));
    }
}
