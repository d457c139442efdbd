//! The forms of the page: signing in, looking a torrent up, banning a host, making a key. Each brings the token.

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::State as Extract;
use axum::response::Response;
use http::StatusCode;
use percent_encoding::percent_decode_str;
use scion_tracker_core::access::Ban;
use scion_tracker_core::types::InfoHash;

use super::compose::{self, Audience};
use super::page;
use super::view::{Notice, Operator, SignIn, count, span};
use crate::admin::serve::Arrived;
use crate::admin::v1::keys;
use crate::admin::v2::bans;
use crate::admin::{State, guard, peers, unix_time};
use crate::records::PasskeyRecord;

/// Longest body that is read.
const LONGEST: usize = 4096;
/// Most characters of a note or a reason.
const NOTE: usize = 200;
/// Peers of a torrent that are shown.
const PEERS: usize = 20;

/// Fields of a form.
struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads `application/x-www-form-urlencoded`.
    fn parse(body: &str) -> Self {
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            percent_decode_str(&text).decode_utf8_lossy().into_owned()
        };
        let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
        Self(
            pairs
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    /// A field without surrounding spaces, empty if there is none.
    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |value| value.trim())
    }

    /// A number of units in seconds. `None`: the field is empty.
    fn seconds(&self, name: &str, unit: u64) -> Result<Option<u64>, Notice> {
        match self.get(name) {
            "" => Ok(None),
            text => match text.parse::<u64>() {
                Ok(number @ 1..=876_000) => Ok(Some(number * unit)),
                _ => Err(failed(format!("{text:?} is no number of {name} above 0"))),
            },
        }
    }

    fn note(&self, name: &str) -> String {
        self.get(name).chars().take(NOTE).collect()
    }
}

fn failed(text: impl Into<String>) -> Notice {
    Notice {
        is_error: true,
        text: text.into(),
        facts: vec![],
    }
}

/// Does what a form says, and shows the page again.
pub(super) async fn submit(
    Extract(state): Extract<State>,
    Extension(arrived): Extension<Arrived>,
    body: String,
) -> Response {
    if body.len() > LONGEST {
        let error = Some("the form is too long".into());
        return page(StatusCode::PAYLOAD_TOO_LARGE, &SignIn { error });
    }
    let form = Form::parse(&body);
    let token = form.get("token");
    let write = match guard::token_allows(&state, arrived.via, token.as_bytes()) {
        Ok(allowed) => allowed.write,
        Err(refused) => {
            let status = refused.status();
            let error = match status {
                StatusCode::UNAUTHORIZED => "this is not a token of the admin API".into(),
                _ => refused.message().to_owned(),
            };
            return page(status, &SignIn { error: Some(error) });
        }
    };
    let done = match (form.get("do"), write) {
        ("", _) => Ok(None),
        ("torrent", _) => torrent(&state, &form).map(Some),
        ("ban", true) => ban(&state, &form).await.map(Some),
        ("key", true) => key(&state, &form).await.map(Some),
        ("ban" | "key", false) => Err(failed("this token may only read")),
        _ => Err(failed("unknown form")),
    };
    let operator = Operator::Signed {
        token: token.to_owned(),
        write,
        notice: done.unwrap_or_else(Some),
    };
    let view = compose::view(&state.handle, Audience::Visitor(operator));
    page(StatusCode::OK, &view)
}

fn torrent(state: &State, form: &Form) -> Result<Notice, Notice> {
    let text = form.get("info_hash");
    let info_hash: InfoHash = text
        .parse()
        .map_err(|error| failed(format!("{text:?} is no info hash: {error}")))?;
    let Some((torrent, list)) = state.handle.torrent(&info_hash, PEERS) else {
        return Ok(Notice {
            is_error: false,
            text: format!("{info_hash} has no peers here."),
            facts: vec![],
        });
    };
    let mut facts = vec![
        ("Seeds".into(), count(torrent.counts.seeders.into())),
        ("Leechers".into(), count(torrent.counts.leechers.into())),
        ("Downloads".into(), count(torrent.counts.completed.into())),
    ];
    facts.extend(list.iter().map(|peer| {
        let place = match peer.ia.is_none() {
            true => "no ISD-AS".into(),
            false => peer.ia.to_string(),
        };
        let what = if peer.seeder { "seed" } else { "leecher" };
        let client = peers::client(&peer.id).unwrap_or_else(|| "unknown client".into());
        let age = span(std::time::Duration::from_secs(peer.age.into()));
        let text = format!("{}, {what}, {client}, {age} ago", peers::address_of(peer));
        (place, text)
    }));
    Ok(Notice {
        is_error: false,
        text: format!("Torrent {info_hash}"),
        facts,
    })
}

async fn ban(state: &State, form: &Form) -> Result<Notice, Notice> {
    let target = bans::target(form.get("target")).map_err(|error| failed(error.to_string()))?;
    let until = form
        .seconds("hours", 3600)?
        .map(|seconds| unix_time::now().saturating_add(seconds));
    let ban = Ban {
        until,
        reason: form.note("reason"),
    };
    let banned = state.handle.ban(target, ban).await;
    banned.map_err(|error| failed(error.to_string()))?;
    Ok(Notice {
        is_error: false,
        text: format!("{target} is banned."),
        facts: vec![("Until".into(), until_text(until))],
    })
}

async fn key(state: &State, form: &Form) -> Result<Notice, Notice> {
    let expiry = unix_time::expiry(form.seconds("days", 86_400)?);
    let passkey = keys::random().map_err(|error| failed(error.to_string()))?;
    let note = form.note("note");
    let record = PasskeyRecord {
        note: (!note.is_empty()).then_some(note),
        ..PasskeyRecord::new(passkey, expiry)
    };
    let added = state.handle.add_passkey(record).await;
    added.map_err(|error| failed(error.to_string()))?;
    let key = keys::text(&passkey);
    let urls = state.handle.urls_with(&key);
    let mut facts = vec![
        ("Key".into(), key),
        ("Until".into(), until_text(unix_time::until(expiry))),
    ];
    facts.extend(urls.into_iter().map(|url| ("Announce to".into(), url)));
    if !state.handle.rules().access.is_private() {
        facts.push((
            "Note".into(),
            "the tracker is public and asks for no key".into(),
        ));
    }
    Ok(Notice {
        is_error: false,
        text: "A new key, and the URLs for its holder.".into(),
        facts,
    })
}

fn until_text(unix: Option<u64>) -> String {
    unix.map_or_else(|| "for ever".into(), unix_time::text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded() {
        let form = Form::parse("token=a%2Bb+c&target=1-ff00%3A0%3A110%2C10.0.0.1&hours=&days=2&x");
        assert_eq!(form.get("token"), "a+b c");
        assert_eq!(form.get("target"), "1-ff00:0:110,10.0.0.1");
        assert_eq!(form.seconds("hours", 3600), Ok(None));
        assert_eq!(form.seconds("days", 86_400), Ok(Some(172_800)));
        let form = Form::parse("hours=-1");
        assert!(form.seconds("hours", 3600).is_err());
    }
}
