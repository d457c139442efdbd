//! `/api/v2/rules`: rules about networks, clients and ISD-ASes, for all torrents or for one. They replace those
//! of the configuration.

use std::fmt::Display;
use std::str::FromStr;

use axum::Json;
use axum::extract::State;
use ipnet::IpNet;
use scion_tracker_core::access::PlaceAcl;
use scion_tracker_core::prefix::unmapped;
use scion_tracker_core::types::InfoHash;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{HashInPath, Listed, Paging, Removed};
use crate::admin;
use crate::admin::error::{ApiError, Body, Path, Query};
use crate::admin::schemas::{clients as clients_schema, networks as networks_schema};
use crate::records::RulesRecord;

/// Most entries of each list.
const ENTRIES: usize = 10_000;

/// Rules that all have to allow a request. Empty lists allow everything.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = NewRules)]
pub(in crate::admin) struct RulesBody {
    /// Networks that are served. If there is one, clients at other addresses are refused.
    #[schema(schema_with = networks_schema)]
    allow_networks: Vec<String>,
    /// Networks that are refused.
    #[schema(schema_with = networks_schema)]
    deny_networks: Vec<String>,
    /// Clients that are served, by the beginning of their peer id. If there is one, others are refused.
    #[schema(schema_with = clients_schema)]
    allow_clients: Vec<String>,
    /// Clients that are refused.
    #[schema(schema_with = clients_schema)]
    deny_clients: Vec<String>,
    /// Which ISDs and ASes are served, in SCION's syntax, as in "- 1-ff00:0:110, +". The first entry that matches
    /// decides. An ISD or AS of 0 stands for any; what matches everything is the last entry. Empty: all.
    #[schema(
        pattern = "^(([+-] [1-9][0-9]{0,3}-(0|[1-9][0-9]{0,8}|[1-9a-f][0-9a-f]{0,3}:[0-9a-f]{1,4}:[0-9a-f]{1,4}), )*[+-])?$"
    )]
    isd_as: String,
    /// Whether only a proven ISD-AS counts for `isd_as`.
    proven: bool,
}

/// Rules that are in force.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Rules {
    /// Networks that are served. If there is one, clients at other addresses are refused.
    allow_networks: Vec<String>,
    /// Networks that are refused.
    deny_networks: Vec<String>,
    /// Clients that are served, by the beginning of their peer id.
    allow_clients: Vec<String>,
    /// Clients that are refused.
    deny_clients: Vec<String>,
    /// Which ISDs and ASes are served, in SCION's syntax.
    isd_as: String,
    /// Whether only a proven ISD-AS counts for `isd_as`.
    proven: bool,
}

/// Rules of a torrent.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct TorrentRulesEntry {
    /// The torrent, 40 hexadecimal digits.
    info_hash: String,
    /// Its rules.
    rules: Rules,
}

fn texts<T: Display>(items: &[T]) -> Vec<String> {
    items.iter().map(T::to_string).collect()
}

fn parse<T: FromStr<Err: Display>>(name: &str, items: &[String]) -> Result<Vec<T>, ApiError> {
    let parse = |item: &String| {
        item.parse()
            .map_err(|error| ApiError::wrong(format!("{name}: {item:?}: {error}")))
    };
    items.iter().map(parse).collect()
}

/// Networks without bits beyond their prefix, or single addresses. Those of IPv4-mapped addresses are IPv4.
fn networks(name: &str, items: &[String]) -> Result<Vec<IpNet>, ApiError> {
    let network = |item: &String| {
        let net = item
            .parse::<IpNet>()
            .or_else(|_| item.parse().map(|ip: std::net::IpAddr| ip.into()));
        let net = net.map_err(|_| {
            ApiError::wrong(format!(
                "{name}: {item:?} is not a network, as in 10.1.0.0/16, 2001:db8::/32 or 192.0.2.1"
            ))
        })?;
        match net == net.trunc() {
            true => Ok(unmapped(net)),
            false => Err(ApiError::wrong(format!(
                "{name}: {net} has bits set beyond its prefix: write {}",
                net.trunc()
            ))),
        }
    };
    items.iter().map(network).collect()
}

impl From<RulesRecord> for Rules {
    fn from(rules: RulesRecord) -> Self {
        Self {
            allow_networks: texts(&rules.allow_networks),
            deny_networks: texts(&rules.deny_networks),
            allow_clients: texts(&rules.allow_clients),
            deny_clients: texts(&rules.deny_clients),
            isd_as: rules.isd_as.entries().collect::<Vec<_>>().join(", "),
            proven: rules.proven,
        }
    }
}

impl RulesBody {
    fn record(&self) -> Result<RulesRecord, ApiError> {
        let lists = [
            &self.allow_networks,
            &self.deny_networks,
            &self.allow_clients,
            &self.deny_clients,
        ];
        if lists.iter().any(|list| list.len() > ENTRIES) {
            return Err(ApiError::wrong("a list of rules has at most 10000 entries"));
        }
        let isd_as = self.isd_as.parse::<PlaceAcl>();
        Ok(RulesRecord {
            allow_networks: networks("allow_networks", &self.allow_networks)?,
            deny_networks: networks("deny_networks", &self.deny_networks)?,
            allow_clients: parse("allow_clients", &self.allow_clients)?,
            deny_clients: parse("deny_clients", &self.deny_clients)?,
            isd_as: isd_as.map_err(|error| ApiError::wrong(format!("isd_as: {error}")))?,
            proven: self.proven,
        })
    }
}

fn none() -> ApiError {
    ApiError::unknown("no rules are set here; those of the configuration are in force")
}

/// The rules for all torrents that were set by the API.
#[utoipa::path(
    get,
    path = "/api/v2/rules",
    tag = "rules",
    responses(
        (status = 200, description = "The rules.", body = Rules),
        (status = 404, description = "None are set; those of the configuration are in force.", body = ApiError),
    )
)]
pub(in crate::admin) async fn get(
    State(state): State<admin::State>,
) -> Result<Json<Rules>, ApiError> {
    let rules = state.handle.global_rules();
    rules.map(|rules| Json(rules.into())).ok_or_else(none)
}

/// Sets the rules for all torrents, which replace those of the configuration.
#[utoipa::path(
    put,
    path = "/api/v2/rules",
    tag = "rules",
    request_body = RulesBody,
    responses((status = 200, description = "The rules.", body = Rules))
)]
pub(in crate::admin) async fn put(
    State(state): State<admin::State>,
    Body(rules): Body<RulesBody>,
) -> Result<Json<Rules>, ApiError> {
    let record = rules.record()?;
    state.handle.set_global_rules(record.clone()).await?;
    Ok(Json(record.into()))
}

/// Removes the rules for all torrents. Those of the configuration are in force again.
#[utoipa::path(
    delete,
    path = "/api/v2/rules",
    tag = "rules",
    responses(
        (status = 200, description = "They are removed.", body = Removed),
        (status = 404, description = "None were set.", body = ApiError),
    )
)]
pub(in crate::admin) async fn delete(
    State(state): State<admin::State>,
) -> Result<Json<Removed>, ApiError> {
    let removed = state.handle.remove_global_rules().await?;
    removed.map(|_| Json(Removed::YES)).ok_or_else(none)
}

/// Lists the torrents with rules of their own.
#[utoipa::path(
    get,
    path = "/api/v2/rules/torrents",
    tag = "rules",
    params(Paging),
    responses((status = 200, description = "A part of them.", body = Listed<TorrentRulesEntry>))
)]
pub(in crate::admin) async fn list(
    State(state): State<admin::State>,
    Query(paging): Query<Paging>,
) -> Json<Listed<TorrentRulesEntry>> {
    let page = state
        .handle
        .all_torrent_rules(paging.offset(), paging.limit());
    let entry = |(info_hash, rules): (InfoHash, RulesRecord)| TorrentRulesEntry {
        info_hash: info_hash.to_string(),
        rules: rules.into(),
    };
    Json(Listed::new(page, &paging, entry))
}

/// The rules of a torrent that were set by the API.
#[utoipa::path(
    get,
    path = "/api/v2/rules/torrents/{info_hash}",
    tag = "rules",
    params(("info_hash" = String, Path, description = "40 or 64 hexadecimal digits.", pattern = "^([0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})$")),
    responses(
        (status = 200, description = "The rules.", body = Rules),
        (status = 404, description = "None are set.", body = ApiError),
    )
)]
pub(in crate::admin) async fn get_torrent(
    State(state): State<admin::State>,
    Path(HashInPath(info_hash)): Path<HashInPath>,
) -> Result<Json<Rules>, ApiError> {
    let rules = state.handle.torrent_rules(&info_hash);
    rules.map(|rules| Json(rules.into())).ok_or_else(none)
}

/// Sets the rules of a torrent, which hold besides those for all.
#[utoipa::path(
    put,
    path = "/api/v2/rules/torrents/{info_hash}",
    tag = "rules",
    params(("info_hash" = String, Path, description = "40 or 64 hexadecimal digits.", pattern = "^([0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})$")),
    request_body = RulesBody,
    responses((status = 200, description = "The rules.", body = Rules))
)]
pub(in crate::admin) async fn put_torrent(
    State(state): State<admin::State>,
    Path(HashInPath(info_hash)): Path<HashInPath>,
    Body(rules): Body<RulesBody>,
) -> Result<Json<Rules>, ApiError> {
    let record = rules.record()?;
    let set = state.handle.set_torrent_rules(info_hash, record.clone());
    set.await?;
    Ok(Json(record.into()))
}

/// Removes the rules of a torrent.
#[utoipa::path(
    delete,
    path = "/api/v2/rules/torrents/{info_hash}",
    tag = "rules",
    params(("info_hash" = String, Path, description = "40 or 64 hexadecimal digits.", pattern = "^([0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})$")),
    responses(
        (status = 200, description = "They are removed.", body = Removed),
        (status = 404, description = "None were set.", body = ApiError),
        (status = 409, description = "They come from the configuration.", body = ApiError),
    )
)]
pub(in crate::admin) async fn delete_torrent(
    State(state): State<admin::State>,
    Path(HashInPath(info_hash)): Path<HashInPath>,
) -> Result<Json<Removed>, ApiError> {
    let removed = state.handle.remove_torrent_rules(info_hash).await?;
    removed.map(|_| Json(Removed::YES)).ok_or_else(none)
}
