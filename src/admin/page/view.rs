//! What the page shows, as texts and shapes: the template only places them.

use std::time::Duration;

use askama::Template;

use super::picture::{Chart, Dots};

/// The page.
#[derive(Debug, Template)]
#[template(path = "page.html")]
pub(crate) struct View {
    /// Name of the tracker.
    pub(crate) name: String,
    pub(crate) version: &'static str,
    pub(crate) uptime: String,
    /// UTC, as in "2026-11-29 02:30:00".
    pub(crate) now: String,
    /// URLs that clients announce to.
    pub(crate) urls: Vec<String>,
    pub(crate) health: Health,
    pub(crate) tiles: Vec<Tile>,
    pub(crate) near: Near,
    pub(crate) hour: Hour,
    pub(crate) places: Places,
    pub(crate) traffic: Vec<Traffic>,
    pub(crate) clients: Vec<Bar>,
    pub(crate) refusals: Vec<Bar>,
    /// The limits, and how near they are.
    pub(crate) limits: Vec<Limit>,
    pub(crate) torrents: Option<Vec<Torrent>>,
    pub(crate) hosts: Option<Vec<Bar>>,
    pub(crate) events: Vec<Event>,
    pub(crate) operator: Operator,
    /// Whether everyone sees it: it then shows nothing about the health of the tracker.
    pub(crate) is_public: bool,
}

/// What visitors see who have to say who they are.
#[derive(Debug, Template)]
#[template(path = "sign-in.html")]
pub(crate) struct SignIn {
    /// What went wrong the last time.
    pub(crate) error: Option<String>,
}

/// How good something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Good,
    Note,
    Bad,
}

impl Level {
    /// The class in the style sheet.
    pub(crate) const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Bad => "bad",
        }
    }

    /// For readers who do not see colors.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Good => "OK",
            Self::Note => "Note",
            Self::Bad => "Problem",
        }
    }
}

/// Whether the tracker is well.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    pub(crate) checks: Vec<Check>,
}

impl Health {
    pub(crate) fn level(&self) -> Level {
        let levels = self.checks.iter().map(|check| check.level);
        levels.max().unwrap_or(Level::Good)
    }

    pub(crate) fn headline(&self) -> &'static str {
        match self.level() {
            Level::Good => "All is well",
            Level::Note => "Serving, with a note",
            Level::Bad => "Needs attention",
        }
    }
}

/// One thing that was checked.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) level: Level,
    pub(crate) text: String,
}

impl Check {
    pub(crate) fn new(name: impl Into<String>, level: Level, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            level,
            text: text.into(),
        }
    }
}

/// A number that stands for itself.
#[derive(Debug, Clone)]
pub(crate) struct Tile {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) note: String,
}

/// How near the peers were that were handed out.
#[derive(Debug, Clone)]
pub(crate) struct Near {
    /// `None`: nobody with an ISD-AS has asked yet.
    pub(crate) picture: Option<Dots>,
    pub(crate) parts: Vec<Part>,
    /// Percent of peers in the requester's own ISD.
    pub(crate) inside: String,
}

/// A part of a whole.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// The class in the style sheet.
    pub(crate) class: &'static str,
    pub(crate) name: &'static str,
    pub(crate) percent: String,
}

/// The last hour.
#[derive(Debug, Clone)]
pub(crate) struct Hour {
    pub(crate) announces: Chart,
    pub(crate) peers: Chart,
    /// Time ago, announces per second and peers.
    pub(crate) rows: Vec<[String; 3]>,
    /// How long ago the charts begin.
    pub(crate) begin: String,
}

/// Who is in which ISD and AS.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    pub(crate) isds: Vec<Isd>,
    /// ISDs that are not shown.
    pub(crate) more: usize,
    /// Peers without an ISD-AS, with their share as the name. `None`: there are none.
    pub(crate) without: Option<Bar>,
}

/// An ISD and its largest ASes.
#[derive(Debug, Clone)]
pub(crate) struct Isd {
    pub(crate) number: u16,
    pub(crate) peers: String,
    pub(crate) ases: Vec<Bar>,
    /// ASes that are not shown.
    pub(crate) more: usize,
}

/// A name with a number and a bar.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: String,
    /// Length in percent of the longest.
    pub(crate) width: f32,
}

/// Requests over one transport, by network.
#[derive(Debug, Clone)]
pub(crate) struct Traffic {
    pub(crate) name: &'static str,
    /// IPv4, IPv6, SCION, all, and failures.
    pub(crate) cells: [String; 5],
}

/// A number with a limit.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    pub(crate) name: &'static str,
    pub(crate) now: String,
    pub(crate) limit: String,
    /// How near the limit is.
    pub(crate) width: f32,
    pub(crate) level: Level,
}

/// A torrent of the list.
#[derive(Debug, Clone)]
pub(crate) struct Torrent {
    pub(crate) info_hash: String,
    pub(crate) peers: String,
    pub(crate) seeds: String,
    pub(crate) completed: String,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) ago: String,
    pub(crate) level: Level,
    pub(crate) text: String,
}

/// What the operator may do on the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operator {
    /// The page is for everybody.
    Nobody,
    /// May sign in. What went wrong the last time.
    SignIn(Option<String>),
    /// Has signed in.
    Signed {
        /// Goes back with each form.
        token: String,
        write: bool,
        /// What was done with the last form.
        notice: Option<Notice>,
    },
}

/// The result of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) is_error: bool,
    pub(crate) text: String,
    /// Details, each a name and a value.
    pub(crate) facts: Vec<(String, String)>,
}

/// Digits in groups of three.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things, as in "1 peer" and "1,200 peers".
pub(crate) fn some(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", count(number))
}

/// A number, such as a rate, with as many digits as matter. Whole numbers have no decimals.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        x if x >= 99.5 => count(x.round() as u64),
        x if x >= 9.95 || x.fract() == 0.0 => format!("{x:.0}"),
        x if x >= 0.05 => format!("{x:.1}"),
        x if x > 0.0 => format!("{x:.2}"),
        _ => "0".into(),
    }
}

/// A share as percent.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if part == 0 || whole == 0 {
        return "0 %".into();
    }
    match part as f64 * 100.0 / whole as f64 {
        x if x < 1.0 => "<1 %".into(),
        x if x > 99.0 && part < whole => ">99 %".into(),
        x => format!("{x:.0} %"),
    }
}

/// A number of bytes with a unit.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{number} B"),
        _ if value < 9.95 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// A time span in its largest two units.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {minutes} min"),
        (1, ..) => format!("1 day {hours} h"),
        _ => format!("{} days {hours} h", count(days)),
    }
}

/// Bars for the largest of some numbers.
pub(crate) fn bars(entries: impl IntoIterator<Item = (String, u64)>, most: usize) -> Vec<Bar> {
    let mut entries: Vec<_> = entries
        .into_iter()
        .filter(|(_, value)| *value > 0)
        .collect();
    entries.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
    let longest = entries.first().map_or(1, |(_, value)| *value);
    let bar = |(name, value)| Bar {
        name,
        value: count(value),
        width: width(value, longest),
    };
    entries.into_iter().take(most).map(bar).collect()
}

/// Percent, with a tenth at the least so that it can be seen.
pub(crate) fn width(part: u64, whole: u64) -> f32 {
    match part {
        0 => 0.0,
        _ => ((part as f64 * 1000.0 / whole.max(1) as f64).round() as f32 / 10.0).clamp(0.5, 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (12_345_678, "12,345,678"),
        ] {
            assert_eq!(count(number), text);
        }
        assert_eq!(some(1, "peer"), "1 peer");
        assert_eq!(some(1200, "peer"), "1,200 peers");
        for (number, text) in [
            (0.0, "0"),
            (0.01, "0.01"),
            (0.25, "0.2"),
            (1.0, "1"),
            (1.26, "1.3"),
            (42.4, "42"),
            (1234.5, "1,235"),
        ] {
            assert_eq!(rate(number), text);
        }
        for (part, whole, text) in [
            (0, 0, "0 %"),
            (0, 5, "0 %"),
            (1, 1000, "<1 %"),
            (999, 1000, ">99 %"),
            (1000, 1000, "100 %"),
            (2, 3, "67 %"),
        ] {
            assert_eq!(percent(part, whole), text);
        }
        for (number, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (200 << 20, "200 MiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
        for (seconds, text) in [
            (5, "5 s"),
            (61, "1 min"),
            (3660, "1 h 1 min"),
            (90_000, "1 day 1 h"),
            (200_000, "2 days 7 h"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn the_largest_have_bars() {
        let entries = [("a", 1), ("b", 200), ("c", 0), ("d", 100)];
        let bars = bars(entries.map(|(name, value)| (name.into(), value)), 2);
        let shown: Vec<_> = bars.iter().map(|it| (it.name.as_str(), it.width)).collect();
        assert_eq!(shown, [("b", 100.0), ("d", 50.0)]);
    }
}
