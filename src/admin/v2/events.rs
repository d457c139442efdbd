//! `/api/v2/events`: what requests change, as server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http_body_util::BodyExt as _;
use http_body_util::channel::{Channel, Sender};
use scion_tracker_core::observe::Change;
use scion_tracker_core::types::InfoHash;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};

use crate::admin::error::{ApiError, Query};
use crate::admin::events::{Event, Filter, Kind, Next, READERS, Reader, What};
use crate::admin::serve::Arrived;
use crate::admin::{self, peers};

/// Time without an event after which a comment is sent, so that a reader is noticed that went without closing
/// its connection.
const PING: Duration = Duration::from_secs(15);
/// Time for a reader to take what was sent.
const TAKE: Duration = Duration::from_secs(30);
/// Time for a reader to take the comment that the server stops.
const FAREWELL: Duration = Duration::from_secs(1);
/// Pieces that wait in the connection besides the queue of events.
const PIECES: usize = 16;

/// Which events are asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(in crate::admin) struct EventsQuery {
    /// Only of this torrent.
    #[serde(deserialize_with = "info_hash")]
    #[param(value_type = String, pattern = "^([0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})$")]
    info_hash: Option<InfoHash>,
    /// Only of these kinds, separated by commas: announced, completed, stopped, refused.
    #[serde(deserialize_with = "kinds")]
    #[param(value_type = String, pattern = "^(announced|completed|stopped|refused)(,(announced|completed|stopped|refused))*$")]
    kinds: Vec<Kind>,
}

fn info_hash<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<InfoHash>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(D::Error::custom)
}

fn kinds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Kind>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let kind = |name: &str| Kind::ALL.into_iter().find(|kind| kind.name() == name);
    let kinds = text.split(',').map(kind).collect::<Option<_>>();
    kinds.ok_or_else(|| {
        D::Error::custom("kinds are announced, completed, stopped and refused, separated by commas")
    })
}

/// The data of an event "announced", "completed" or "stopped".
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct ServedEvent {
    /// The torrent, 40 hexadecimal digits.
    info_hash: String,
    /// Address and port of the peer, with the ISD-AS if only SCION reaches it.
    address: String,
    /// Its ISD-AS. Null: it has none.
    isd_as: Option<String>,
    /// Its peer id, 40 hexadecimal digits.
    peer_id: String,
    /// The client that its peer id names.
    client: Option<String>,
    /// Whether it has everything.
    seeder: bool,
    /// What became of it: "joined", "refreshed", "left" or "unknown".
    change: &'static str,
    /// Peers of the torrent that have everything.
    seeders: u32,
    /// All other peers of the torrent.
    leechers: u32,
    /// Its completed downloads.
    completed: u32,
}

/// The data of an event "refused".
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct RefusedEvent {
    /// The torrent, 40 hexadecimal digits.
    info_hash: String,
    /// Who asked, with the ISD-AS if it asked over SCION.
    host: String,
    /// Why it was refused, as in `refused` of the statistics.
    reason: &'static str,
}

/// The data of an event "lost": this reader was too slow.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct LostEvents {
    /// How many events it does not get.
    events: u64,
}

/// The data of an event, by its name.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(in crate::admin) enum EventData {
    /// "announced", "completed" or "stopped".
    Served(ServedEvent),
    /// "refused".
    Refused(RefusedEvent),
    /// "lost".
    Lost(LostEvents),
}

/// Sends events as they happen, until the reader leaves. Passkeys are not among them. A reader that is too slow
/// loses events, and gets an event "lost" with their number. At most 8 readers.
#[utoipa::path(
    get,
    path = "/api/v2/events",
    tag = "events",
    params(EventsQuery),
    responses(
        (status = 200, description = "Server-sent events. Their data is JSON.", body = EventData, content_type = "text/event-stream"),
        (status = 503, description = "There are 8 readers.", body = ApiError),
    )
)]
pub(in crate::admin) async fn events(
    State(state): State<admin::State>,
    Extension(arrived): Extension<Arrived>,
    Query(query): Query<EventsQuery>,
) -> Result<Response, ApiError> {
    let filter = Filter {
        info_hash: query.info_hash,
        kinds: query.kinds,
    };
    let reader = state.handle.events().read(filter).ok_or_else(|| {
        let text = format!("{READERS} readers are connected");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    let (sender, body) = Channel::<Bytes>::new(PIECES);
    let gone = CancellationToken::new();
    let sending = send_all(reader, sender, gone.clone(), arrived.stopping);
    state.shared().changes.spawn(sending);
    // The connection drops the body when the reader closes it, also while there is nothing to send.
    let connected = gone.drop_guard();
    let body = body.map_frame(move |frame| {
        let _ = &connected;
        frame
    });
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, axum::body::Body::new(body)).into_response())
}

/// Sends events until the reader leaves (`gone`) or is too slow, or the server stops.
async fn send_all(
    mut reader: Reader,
    mut sender: Sender<Bytes>,
    gone: CancellationToken,
    stopping: CancellationToken,
) {
    let mut piece = Bytes::from_static(b": connected\n\n");
    loop {
        let sent = timeout(TAKE, sender.send_data(piece));
        match stopping.run_until_cancelled(sent).await {
            Some(Ok(Ok(()))) => {}
            Some(_) => return,
            None => break,
        }
        let next = gone.run_until_cancelled(timeout(PING, reader.next()));
        piece = match stopping.run_until_cancelled(next).await {
            None => break,
            Some(None) => return,
            Some(Some(Err(_))) => Bytes::from_static(b": ping\n\n"),
            Some(Some(Ok(next))) => text(&next).into(),
        };
    }
    // Tells an end in order from one that nobody wanted.
    let farewell = Bytes::from_static(b": the tracker stops\n\n");
    let _ = timeout(FAREWELL, sender.send_data(farewell)).await;
}

/// An event as text: its name, and its data on one line.
fn text(next: &Next) -> String {
    let (name, data) = match next {
        Next::Lost(events) => ("lost", EventData::Lost(LostEvents { events: *events })),
        Next::Event(event) => (event.kind().name(), data(event)),
    };
    // It is made of texts and numbers, which serde_json writes.
    let data = serde_json::to_string(&data).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n")
}

fn data(event: &Event) -> EventData {
    let info_hash = event.info_hash.to_string();
    match event.what {
        What::Refused { host, refusal } => EventData::Refused(RefusedEvent {
            info_hash,
            host: host.to_string(),
            reason: refusal.label(),
        }),
        What::Served {
            ia,
            addr,
            reach,
            id,
            seeder,
            change,
            completed: _,
            counts,
        } => EventData::Served(ServedEvent {
            info_hash,
            address: peers::address(ia, &addr, reach),
            isd_as: (!ia.is_none()).then(|| ia.to_string()),
            peer_id: peers::hex(&id),
            client: peers::client(&id),
            seeder,
            change: match change {
                Change::Joined => "joined",
                Change::Refreshed => "refreshed",
                Change::Left => "left",
                _ => "unknown",
            },
            seeders: counts.seeders,
            leechers: counts.leechers,
            completed: counts.completed,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_two_lines() {
        let lost = text(&Next::Lost(7));
        assert_eq!(lost, "event: lost\ndata: {\"events\":7}\n\n");
    }
}
