//! Checks of health: whether the tracker answers, and whether all its parts are ready.

use axum::extract::State as Extract;
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode, Uri};
use serde::Serialize;
use utoipa::ToSchema;

use super::serve::Arrived;
use super::{State, guard};
use crate::server::vitals::Vitals;

/// The state of the tracker.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(super) enum Status {
    /// It serves clients.
    Ok,
    /// It serves clients, and will stop soon: send them elsewhere.
    Draining,
}

/// The state of the tracker.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// The state.
    status: Status,
}

/// Whether the tracker answers. Needs no token.
#[utoipa::path(
    get,
    path = "/api/health_check",
    tag = "torrust",
    responses(
        (status = 200, description = "It does.", body = Health),
        (status = 503, description = "It does, and will stop soon.", body = Health),
    ),
    security(())
)]
pub(super) async fn health_check(Extract(state): Extract<State>) -> (StatusCode, Json<Health>) {
    let (code, status) = match state.handle.draining() {
        None => (StatusCode::OK, Status::Ok),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, Status::Draining),
    };
    (code, Json(Health { status }))
}

/// Whether the program runs: restart it if this does not answer. Needs no token.
#[utoipa::path(
    get,
    path = "/health/live",
    tag = "health",
    responses((status = 200, description = "It does.", body = Health)),
    security(())
)]
pub(super) async fn live() -> Json<Health> {
    Json(Health { status: Status::Ok })
}

/// Whether each part of the tracker is ready.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ready {
    /// "ready" or "not ready".
    status: &'static str,
    checks: Vec<Check>,
}

/// A part of the tracker.
#[derive(Debug, Serialize, ToSchema)]
struct Check {
    /// "listener", "records" or "snapshot".
    part: &'static str,
    /// Which one: as in `http 127.0.0.1:6969`, the kind of the store, the file of the snapshot.
    name: String,
    ready: bool,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Ready {
    /// Takes out what only the operator is to know: folders of this host, names of other hosts, users.
    fn for_strangers(&mut self) {
        for check in &mut self.checks {
            if check.part == "listener" {
                continue;
            }
            if let Some((_, file)) = check.name.rsplit_once('/') {
                check.name = file.to_owned();
            }
            if check.reason.is_some() {
                check.reason = Some("see the log of the tracker".into());
            }
        }
    }
}

impl Check {
    fn new(part: &'static str, name: impl Into<String>, reason: Option<String>) -> Self {
        Self {
            part,
            name: name.into(),
            ready: reason.is_none(),
            reason,
        }
    }
}

/// Whether the tracker is ready: each listener, the store of the records, and the snapshot of the swarms, if the
/// last attempt to write it succeeded. While the tracker drains, no listener is ready. Needs no token; strangers
/// are not told the folder of the snapshot, nor what the database said.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "health",
    responses(
        (status = 200, description = "All parts are ready.", body = Ready),
        (status = 503, description = "A part is not ready.", body = Ready),
    ),
    security(())
)]
pub(super) async fn ready(
    Extract(state): Extract<State>,
    Extension(arrived): Extension<Arrived>,
    headers: HeaderMap,
    uri: Uri,
) -> (StatusCode, Json<Ready>) {
    let mut ready = check(&state.handle.vitals());
    if guard::visitor(&state, arrived.via, &headers, &uri).is_err() {
        ready.for_strangers();
    }
    let status = match ready.status {
        "ready" => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(ready))
}

fn check(vitals: &Vitals) -> Ready {
    let stopping = || match (vitals.is_stopping, vitals.is_draining) {
        (true, _) => Some("the tracker is stopping".to_owned()),
        (false, true) => Some("the tracker drains".to_owned()),
        (false, false) => None,
    };
    let listeners = vitals.listeners.iter();
    let mut checks: Vec<_> = listeners
        .map(|listener| Check::new("listener", listener.to_string(), stopping()))
        .collect();
    if checks.is_empty() {
        let reason = Some("the tracker is starting".into());
        checks.push(Check::new("listener", "", reason));
    }
    let records = &vitals.records;
    let outage = records.outage.map(|outage| {
        let error = records.last_error.as_deref().unwrap_or("no reason known");
        format!("out of reach for {} s: {error}", outage.as_secs())
    });
    checks.push(Check::new("records", records.store.name(), outage));
    let snapshots = &vitals.snapshots;
    if let Some(file) = &snapshots.file {
        let error = snapshots.last_error.clone();
        checks.push(Check::new("snapshot", file.display().to_string(), error));
    }
    Ready {
        status: match checks.iter().all(|check| check.ready) {
            true => "ready",
            false => "not ready",
        },
        checks,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Config;
    use crate::server::Server;

    fn server() -> Server {
        Server::bind(Config::of_a_test()).unwrap()
    }

    #[test]
    fn what_is_not_ready_is_named() {
        let server = server();
        let mut vitals = server.handle().vitals();
        let not_ready = |vitals: &Vitals| {
            let ready = check(vitals);
            let parts = ready.checks.into_iter().filter(|it| !it.ready);
            let parts = parts.map(|it| format!("{}: {}", it.part, it.reason.unwrap_or_default()));
            (ready.status, parts.collect::<Vec<_>>().join("; "))
        };
        assert_eq!(
            not_ready(&vitals),
            ("not ready", "listener: the tracker is starting".into())
        );
        vitals.listeners = server.listeners().collect();
        assert_eq!(not_ready(&vitals), ("ready", String::new()));
        vitals.records.outage = Some(Duration::from_secs(7));
        vitals.records.last_error = Some("connection refused".into());
        let reason = "records: out of reach for 7 s: connection refused";
        assert_eq!(not_ready(&vitals), ("not ready", reason.into()));
        let mut ready = check(&vitals);
        ready.checks.push(Check::new(
            "snapshot",
            "/srv/secret/swarms.snapshot",
            Some("cannot write /srv/secret".into()),
        ));
        let listener = ready.checks[0].name.clone();
        ready.for_strangers();
        assert_eq!(ready.checks[0].name, listener);
        let shown = serde_json::to_string(&ready).unwrap();
        assert!(
            !shown.contains("/srv") && !shown.contains("refused"),
            "{shown}"
        );
        assert!(shown.contains(r#""name":"swarms.snapshot""#), "{shown}");
        vitals.records.outage = None;
        vitals.snapshots.file = Some("/data/swarms.snapshot".into());
        vitals.snapshots.last_error = Some("disk full".into());
        assert_eq!(
            not_ready(&vitals),
            ("not ready", "snapshot: disk full".into())
        );
        vitals.snapshots.last_error = None;
        vitals.is_draining = true;
        assert_eq!(
            not_ready(&vitals),
            ("not ready", "listener: the tracker drains".into())
        );
        vitals.is_stopping = true;
        assert_eq!(
            not_ready(&vitals),
            ("not ready", "listener: the tracker is stopping".into())
        );
    }
}
