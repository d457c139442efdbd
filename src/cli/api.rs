//! What the commands that ask a running tracker share: where its admin API is, one request, and how the answer
//! is shown.

mod request;
mod table;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::{Method, StatusCode};
use serde_json::Value;

use super::serve;
use super::visible::visible_json;
use crate::client::Trust;
use crate::config::{self, Config, Token};
use crate::server::listener::admin_socket;
pub(super) use request::Ended;
use request::{Address, Answer, Content, Url, Waits};
pub(super) use table::{Table, text, wrapped};

/// Where the tracker is, and how to print its answer.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    /// URL of the admin API of another host, http or https, with its port. Without it, the Unix socket in
    /// the data directory.
    #[arg(
        long,
        value_name = "URL",
        global = true,
        help_heading = "Which tracker"
    )]
    url: Option<Url>,
    /// Token for --url. Other users of this host can read flags: --token-file is safer [env:
    /// SCION_TRACKER_ADMIN_TOKEN].
    #[arg(
        long,
        value_name = "TEXT",
        global = true,
        help_heading = "Which tracker"
    )]
    token: Option<Token>,
    /// File with the token for --url.
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        conflicts_with = "token",
        help_heading = "Which tracker"
    )]
    token_file: Option<PathBuf>,
    /// Trust only the certificate authorities in this PEM file.
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        help_heading = "Which tracker"
    )]
    ca: Option<PathBuf>,
    /// Do not verify the certificate.
    #[arg(
        long,
        conflicts_with = "ca",
        global = true,
        help_heading = "Which tracker"
    )]
    insecure: bool,
    /// Data directory of the tracker, without --url.
    #[arg(
        id = "data_dir_of_tracker",
        long = "data-dir",
        value_name = "DIR",
        global = true,
        help_heading = "Which tracker"
    )]
    data_dir: Option<PathBuf>,
    /// Configuration file of the tracker, without --url [env: SCION_TRACKER_CONFIG].
    // The program has flags of these names, so the ids differ.
    #[arg(
        id = "config_of_tracker",
        long = "config",
        value_name = "FILE",
        global = true,
        help_heading = "Which tracker"
    )]
    config: Option<PathBuf>,
    /// Time to wait for the answer.
    #[arg(long, value_name = "TIME", global = true, default_value = "30s", value_parser = config::parse_duration, help_heading = "Which tracker")]
    timeout: Duration,
}

/// A tracker that can be asked.
#[derive(Debug)]
pub(super) struct Api {
    json: bool,
    address: Address,
    token: Option<String>,
    timeout: Duration,
}

impl Args {
    /// Finds the tracker.
    pub(super) fn open(self) -> anyhow::Result<Api> {
        let Self {
            json,
            url,
            token,
            token_file,
            ca,
            insecure,
            data_dir,
            config,
            timeout,
        } = self;
        let (address, token) = match url {
            Some(url) => {
                let trust = match (insecure, ca) {
                    (true, _) => Trust::Anyone,
                    (false, Some(ca)) => Trust::File(ca),
                    (false, None) => Trust::System,
                };
                (Address::url(url, &trust)?, secret(token, token_file)?)
            }
            None => {
                let config = serve::Args::of_data(config, data_dir).config()?;
                (Address::Unix(socket(&config)?), None)
            }
        };
        Ok(Api {
            json,
            address,
            token,
            timeout,
        })
    }
}

/// The Unix socket of the tracker with this configuration.
fn socket(config: &Config) -> anyhow::Result<PathBuf> {
    if !config.admin.socket {
        bail!("admin.socket is false in the configuration: name the tracker with --url");
    }
    admin_socket(config).context("there is no data directory: name one with --data-dir, or a --url")
}

/// The token of a flag, a file or the environment.
fn secret(token: Option<Token>, file: Option<PathBuf>) -> anyhow::Result<Option<String>> {
    if let Some(token) = token {
        return Ok(Some(token.secret().into()));
    }
    let Some(file) = file else {
        let variable = std::env::var("SCION_TRACKER_ADMIN_TOKEN").ok();
        return Ok(variable.filter(|token| !token.is_empty()));
    };
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read the token from {}", file.display()))?;
    let mut lines = text.lines().map(str::trim);
    let line = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    let line = line.with_context(|| format!("{} has no token", file.display()))?;
    let token: Token = line
        .parse()
        .with_context(|| format!("cannot use the token in {}", file.display()))?;
    Ok(Some(token.secret().into()))
}

impl Api {
    /// Asks for a resource.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(&Method::GET, path, Content::None)
    }

    /// Changes a resource, with a JSON body.
    pub(super) fn send(&self, method: &Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask(method, path, Content::Json(body.to_string()))
    }

    /// Sends lines.
    pub(super) fn send_text(&self, path: &str, text: String) -> anyhow::Result<Value> {
        self.ask(&Method::POST, path, Content::Text(text))
    }

    /// Changes a resource, without a body.
    pub(super) fn change(&self, method: &Method, path: &str) -> anyhow::Result<Value> {
        self.ask(method, path, Content::None)
    }

    /// Asks for a resource that may not exist.
    pub(super) fn find(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let answer = self.exchange(&Method::GET, path, Content::None)?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            _ => self.read(&answer).map(Some),
        }
    }

    /// Whether to print JSON.
    pub(super) const fn is_json(&self) -> bool {
        self.json
    }

    /// Asks for an answer without end. Hands its bytes to `take` until that returns false, `stop` ends, or
    /// nothing comes for the time of `silence`.
    pub(super) fn follow<S: Future<Output = ()>>(
        &self,
        path: &str,
        silence: Duration,
        stop: impl FnOnce() -> anyhow::Result<S>,
        take: impl FnMut(&[u8]) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Ended> {
        let waits = Waits {
            head: self.timeout,
            bytes: silence,
        };
        let token = self.token.as_deref();
        let followed = request::follow(&self.address, token, path, waits, stop, take);
        match followed.map_err(|error| self.explain(error))? {
            Ok(ended) => Ok(ended),
            Err(answer) => {
                self.read(&answer)?;
                bail!("{} does not answer with a stream", self.address)
            }
        }
    }

    fn ask(&self, method: &Method, path: &str, content: Content) -> anyhow::Result<Value> {
        self.read(&self.exchange(method, path, content)?)
    }

    fn exchange(&self, method: &Method, path: &str, content: Content) -> anyhow::Result<Answer> {
        let asked = request::ask(
            &self.address,
            self.token.as_deref(),
            (method, path),
            content,
            self.timeout,
        );
        asked.map_err(|error| self.explain(error))
    }

    /// The JSON of an answer, or its error.
    fn read(&self, Answer { status, body }: &Answer) -> anyhow::Result<Value> {
        let text = String::from_utf8_lossy(body);
        if status.is_success() {
            return serde_json::from_str(&text)
                .with_context(|| format!("{} does not answer with JSON", self.address));
        }
        let json = serde_json::from_str::<Value>(&text).ok();
        let said = json
            .as_ref()
            .and_then(|json| json.get("error")?.as_str())
            .unwrap_or(&text);
        match *status {
            StatusCode::UNAUTHORIZED if self.token.is_none() => {
                bail!("{} wants a token: name it with --token-file", self.address)
            }
            StatusCode::UNAUTHORIZED => bail!("{} does not accept the token", self.address),
            _ => bail!("{said} ({})", status.as_u16()),
        }
    }

    /// Says what to do about an error of the Unix socket.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let Address::Unix(path) = &self.address else {
            return error;
        };
        let path = path.display();
        let kind = error
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind);
        match kind {
            Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused) => anyhow::anyhow!(
                "no tracker runs here: nothing listens on {path}; start it, or name its --data-dir or --url"
            ),
            Some(ErrorKind::PermissionDenied) => anyhow::anyhow!(
                "permission denied on {path}: run this as the user that runs the tracker, for example with sudo"
            ),
            _ => error,
        }
    }

    /// Prints a resource.
    pub(super) fn show(
        &self,
        path: &str,
        show: impl FnOnce(&Value) -> String,
    ) -> anyhow::Result<()> {
        self.print(&self.get(path)?, show)
    }

    /// Prints a page of a list: what `show` makes of the entries, and whether there are more.
    pub(super) fn list(
        &self,
        path: &str,
        page: &Page,
        what: &str,
        show: impl FnOnce(&[Value]) -> String,
    ) -> anyhow::Result<()> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}{}", page.query());
        self.show(&path, |answer| {
            show(entries(answer)) + &page.footer(answer, what)
        })
    }

    /// Removes a resource. Prints the answer only with --json.
    pub(super) fn remove(&self, path: &str) -> anyhow::Result<()> {
        let answer = self.change(&Method::DELETE, path)?;
        self.print(&answer, |_| String::new())
    }

    /// Prints an answer as it came with --json, or what `show` makes of it.
    pub(super) fn print(
        &self,
        answer: &Value,
        show: impl FnOnce(&Value) -> String,
    ) -> anyhow::Result<()> {
        let shown = match self.json {
            true => visible_json(&serde_json::to_string_pretty(answer)?) + "\n",
            false => show(answer),
        };
        Ok(super::print(&shown)?)
    }
}

/// Flags of a list.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Page {
    /// Entries to leave out at the beginning.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    offset: u32,
    /// Most entries, up to 10000.
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            offset: 0,
            limit: 100,
        }
    }
}

impl Page {
    /// As a query.
    pub(super) fn query(&self) -> String {
        format!("offset={}&limit={}", self.offset, self.limit)
    }

    /// A line that says that there is more than was shown, or that there is nothing.
    pub(super) fn footer(&self, answer: &Value, what: &str) -> String {
        let total = answer["total"].as_u64().unwrap_or_default();
        let shown = entries(answer).len() as u64;
        let end = u64::from(self.offset) + shown;
        match (total, shown) {
            (0, _) => format!("no {what}\n"),
            _ if shown == total => String::new(),
            _ if end < total => format!("{shown} of {total} {what}; more with --offset {end}\n"),
            _ => format!("{shown} of {total} {what}\n"),
        }
    }
}

/// The entries of a list.
pub(super) fn entries(answer: &Value) -> &[Value] {
    answer["entries"].as_array().map_or(&[], Vec::as_slice)
}

/// A time of an answer: seconds since 1970, or never.
pub(super) fn time(value: &Value) -> String {
    let Some(unix) = value.as_u64() else {
        return "never".into();
    };
    let at = std::time::UNIX_EPOCH.checked_add(Duration::from_secs(unix));
    // The year 9999 is the last one that humantime writes.
    match at.filter(|_| unix <= 253_402_300_799) {
        Some(at) => humantime::format_rfc3339_seconds(at).to_string(),
        None => format!("{unix} s"),
    }
}

/// A part of a path, or a value of a query.
pub(super) fn escaped(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn footers() {
        let page = Page {
            offset: 10,
            limit: 2,
        };
        for (answer, expected) in [
            (json!({ "total": 0, "entries": [] }), "no bans\n"),
            (json!({ "total": 2, "entries": [1, 2] }), ""),
            (
                json!({ "total": 20, "entries": [1, 2] }),
                "2 of 20 bans; more with --offset 12\n",
            ),
            (json!({ "total": 12, "entries": [1, 2] }), "2 of 12 bans\n"),
        ] {
            assert_eq!(page.footer(&answer, "bans"), expected);
        }
    }

    #[test]
    fn times() {
        assert_eq!(time(&Value::Null), "never");
        assert_eq!(time(&json!(60)), "1970-01-01T00:01:00Z");
        assert_eq!(time(&json!(u64::MAX)), "18446744073709551615 s");
    }
}
