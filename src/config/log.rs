//! The section `log`: what is logged, where it goes, and the access log.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::value;

/// See [`Config::log`](super::Config::log).
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
#[non_exhaustive]
pub struct Log {
    /// Log level: error, warn, info, debug, trace or off, or by module as in
    /// "info,scion_tracker::tls=debug". At debug, each refused or malformed request is a line, at trace
    /// each request. A level alone is that of the tracker: the libraries that it uses log errors, unless a
    /// level names them, as in "info,h2=debug".
    #[config(env = "SCION_TRACKER_LOG", parse_env = value::non_empty, default = "info")]
    pub level: String,

    /// "text" or "json", on standard error and in files. The journal and syslog have formats of their own.
    #[config(
        env = "SCION_TRACKER_LOG_FORMAT",
        default = "text",
        deserialize_with = value::text
    )]
    pub format: LogFormat,

    /// Where the log goes: "stderr", "journald" (with priorities and fields), "syslog" (RFC 5424, by
    /// /dev/log), or a file, named with a slash as in "/var/log/scion-tracker/log". A file is opened again
    /// on SIGHUP, after logrotate has renamed it.
    ///
    /// Without it: to journald if standard error leads there and log.format is text, else to standard
    /// error. Nobody waits for the log: lines that cannot be written are lost, and counted.
    #[config(env = "SCION_TRACKER_LOG_TO", deserialize_with = value::text)]
    pub to: Option<LogTarget>,

    /// Facility of syslog: "daemon", "user" or "local0" to "local7".
    #[config(
        env = "SCION_TRACKER_LOG_FACILITY",
        default = "daemon",
        deserialize_with = value::text
    )]
    pub facility: Facility,

    /// Time between two lines that say what was served. A time in which nothing happened has no line.
    #[config(
        env = "SCION_TRACKER_LOG_SUMMARY",
        default = "5m",
        deserialize_with = value::duration
    )]
    pub summary: Duration,

    /// File for the access log: a line of JSON for each announce, and for each announce or scrape that is
    /// refused. Passkeys are masked. The file is opened again on SIGHUP. If the disk is slow or full, lines
    /// are lost and counted (`access_log_lost`). Without it there is no access log.
    #[config(env = "SCION_TRACKER_LOG_ACCESS", parse_env = value::path)]
    pub access: Option<PathBuf>,

    /// How the access log names clients: "whole", or "truncated" to their /24 (IPv4) or /48 (IPv6), without
    /// port, and of the peer id only the part that names the client program.
    #[config(
        env = "SCION_TRACKER_LOG_ACCESS_ADDRESSES",
        default = "whole",
        deserialize_with = value::text
    )]
    pub access_addresses: AccessAddresses,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// A JSON object per line.
    Json,
}

/// Not the name of a log format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a log format is text or json")]
pub struct LogFormatError;

impl FromStr for LogFormat {
    type Err = LogFormatError;

    fn from_str(s: &str) -> Result<Self, LogFormatError> {
        match s {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LogFormatError),
        }
    }
}

impl LogFormat {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogTarget {
    /// Standard error.
    Stderr,
    /// The journal of systemd, by its native protocol.
    Journald,
    /// Syslog, RFC 5424, by /dev/log.
    Syslog,
    /// A file that lines are appended to.
    File(PathBuf),
}

/// Not a place where the log can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the log goes to stderr, journald, syslog, or a file with a slash in its name, as in ./log"
)]
pub struct LogTargetError;

impl FromStr for LogTarget {
    type Err = LogTargetError;

    fn from_str(s: &str) -> Result<Self, LogTargetError> {
        match s {
            "stderr" => Ok(Self::Stderr),
            "journald" => Ok(Self::Journald),
            "syslog" => Ok(Self::Syslog),
            // A misspelt word is no file.
            file if file.contains('/') => Ok(Self::File(file.into())),
            _ => Err(LogTargetError),
        }
    }
}

impl LogTarget {
    pub(super) fn name(&self) -> &Path {
        match self {
            Self::Stderr => Path::new("stderr"),
            Self::Journald => Path::new("journald"),
            Self::Syslog => Path::new("syslog"),
            Self::File(file) => file,
        }
    }
}

/// A facility of syslog (RFC 5424, section 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facility(u8);

/// Not a facility that a daemon may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a facility is daemon, user or local0 to local7")]
pub struct FacilityError;

/// The facilities, by their numbers.
const FACILITIES: [(u8, &str); 10] = [
    (1, "user"),
    (3, "daemon"),
    (16, "local0"),
    (17, "local1"),
    (18, "local2"),
    (19, "local3"),
    (20, "local4"),
    (21, "local5"),
    (22, "local6"),
    (23, "local7"),
];

impl Facility {
    /// The number in RFC 5424.
    pub const fn number(self) -> u8 {
        self.0
    }

    pub(super) fn name(self) -> &'static str {
        let known = FACILITIES.iter().find(|(number, _)| *number == self.0);
        known.map_or("daemon", |(_, name)| name)
    }
}

impl FromStr for Facility {
    type Err = FacilityError;

    fn from_str(s: &str) -> Result<Self, FacilityError> {
        let known = FACILITIES.iter().find(|(_, name)| *name == s);
        known.map(|(number, _)| Self(*number)).ok_or(FacilityError)
    }
}

/// How the access log names clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AccessAddresses {
    /// By their whole addresses.
    #[default]
    Whole,
    /// By their networks.
    Truncated,
}

/// Not a way to name clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("addresses are whole or truncated")]
pub struct AccessAddressesError;

impl FromStr for AccessAddresses {
    type Err = AccessAddressesError;

    fn from_str(s: &str) -> Result<Self, AccessAddressesError> {
        match s {
            "whole" => Ok(Self::Whole),
            "truncated" => Ok(Self::Truncated),
            _ => Err(AccessAddressesError),
        }
    }
}

impl AccessAddresses {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Truncated => "truncated",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_shown() {
        for name in ["stderr", "journald", "syslog", "/var/log/tracker", "./log"] {
            let target: LogTarget = name.parse().unwrap();
            assert_eq!(target.name(), Path::new(name));
        }
        for bad in ["", "stdout", "journal", "log.txt"] {
            assert_eq!(bad.parse::<LogTarget>(), Err(LogTargetError), "{bad}");
        }
        for (number, name) in FACILITIES {
            let facility: Facility = name.parse().unwrap();
            assert_eq!((facility.number(), facility.name()), (number, name));
        }
        assert!("kern".parse::<Facility>().is_err());
        for name in ["whole", "truncated"] {
            assert_eq!(name.parse::<AccessAddresses>().unwrap().name(), name);
        }
    }
}
