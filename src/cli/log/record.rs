//! A line of the log in its parts, for targets that have fields of their own: the journal and syslog.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::super::visible::visible;
use crate::log::queue::Queue;

/// Bytes of a value that are logged at most: a line has to fit a datagram.
const LONGEST: usize = 8 << 10;
/// Fields that are logged at most.
const FIELDS: usize = 32;

/// One line.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) level: Level,
    pub(super) target: &'static str,
    pub(super) file: Option<&'static str>,
    pub(super) line: Option<u32>,
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, String)>,
}

impl Record {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let metadata = event.metadata();
        let mut record = Self {
            level: *metadata.level(),
            target: metadata.target(),
            file: metadata.file(),
            line: metadata.line(),
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut record);
        record
    }

    /// The severity of syslog(3), which the journal uses too.
    pub(super) fn severity(&self) -> u8 {
        match self.level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        }
    }

    /// The message with its fields, as in `message name=value`: `journalctl` shows nothing but this.
    pub(super) fn text(&self) -> String {
        let mut text = Cut(self.message.clone());
        for (name, value) in &self.fields {
            // It fails when the text is long enough.
            let _ = write!(text, " {name}={}", visible(value));
        }
        text.0
    }

    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let mut text = Cut(String::new());
        // It fails when the text is long enough.
        let _ = text.write_fmt(value);
        let Cut(text) = text;
        match field.name() {
            "message" => self.message = text,
            name if self.fields.len() < FIELDS => self.fields.push((name, text)),
            _ => {}
        }
    }
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(error) = source {
            let _ = write!(text, ": {error}");
            source = error.source();
        }
        self.add(field, format_args!("{text}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }
}

/// A text of at most [`LONGEST`] bytes.
struct Cut(String);

impl fmt::Write for Cut {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let Self(text) = self;
        let room = LONGEST.saturating_sub(text.len());
        if more.len() <= room {
            text.push_str(more);
            return Ok(());
        }
        let cut = (0..=room).rev().find(|at| more.is_char_boundary(*at));
        text.push_str(&more[..cut.unwrap_or_default()]);
        Err(fmt::Error)
    }
}

/// Encodes each line and sends it to the thread that writes.
pub(super) struct Records<E> {
    pub(super) queue: Queue<Vec<u8>>,
    pub(super) encode: E,
}

impl<S, E> Layer<S> for Records<E>
where
    S: Subscriber,
    E: Fn(&Record) -> Vec<u8> + Send + Sync + 'static,
{
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.queue.send((self.encode)(&Record::of(event)));
    }
}

#[cfg(test)]
pub(super) fn example() -> Record {
    Record {
        level: Level::WARN,
        target: "scion_tracker::tls",
        file: Some("src/tls.rs"),
        line: Some(7),
        message: "cannot read\nthe \x1b[31mcertificate".into(),
        fields: vec![
            ("path", "/tls/cert.pem".into()),
            ("why.not", "say \"no\"\\".into()),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let mut text = Cut(String::new());
        assert!(write!(text, "x{}", "é".repeat(LONGEST)).is_err());
        assert!(text.0.len() <= LONGEST && text.0.len() > LONGEST - 2);
    }
}
