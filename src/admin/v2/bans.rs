//! `/api/v2/bans`: banned hosts and networks. And `/api/v2/hosts`, the ones that announce most.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use ipnet::IpNet;
use scion_tracker_core::access::{Ban, BanTarget, BusyHost};
use scion_tracker_core::address::{Host, IsdAs};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Listed, Paging, Removed};
use crate::admin::error::{ApiError, Body, Query};
use crate::admin::schemas::{LONGEST, ban_target};
use crate::admin::{self, unix_time};

/// Most characters of a reason.
const REASON: usize = 1000;

/// A ban.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ban)]
pub(in crate::admin) struct BanEntry {
    /// The network, as in "192.0.2.0/24", or the SCION host, as in "1-ff00:0:110,10.0.0.1/32".
    target: String,
    /// When it ends, in seconds since 1970. Null: never.
    until: Option<u64>,
    /// Why, for operators.
    reason: String,
}

/// A host or network to ban.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct NewBan {
    /// The host or network.
    #[schema(schema_with = ban_target)]
    target: String,
    /// Seconds from now until it ends. Null: never.
    #[serde(default)]
    #[schema(maximum = 100_000_000_000_u64)]
    seconds: Option<u64>,
    /// Why, for operators.
    #[serde(default)]
    #[schema(max_length = 1000, pattern = "^[^\\x00]*$")]
    reason: String,
}

/// Which ban is meant.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::admin) struct WhichBan {
    /// The address, network or SCION host.
    #[param(schema_with = ban_target, required = true)]
    target: String,
}

/// A host that announces much.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct BusyHostEntry {
    /// The host; of IPv6 the first address of its /64.
    host: String,
    /// Announces of the last minute or two, about.
    announces: u64,
    /// Of these, how many were refused, about.
    refused: u64,
}

/// How many hosts are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::admin) struct HowMany {
    /// Most hosts of the answer.
    #[serde(default = "twenty")]
    #[param(default = 20, minimum = 0, maximum = 255)]
    limit: u8,
}

const fn twenty() -> u8 {
    20
}

/// Reads what is banned, also as [`BanTarget`] is shown.
pub(in crate::admin) fn target(text: &str) -> Result<BanTarget, ApiError> {
    let wrong = || {
        ApiError::wrong(format!(
            "{text:?} is not an address, a network or a SCION host, as in 192.0.2.1, 2001:db8::/48 or 1-ff00:0:110,10.0.0.1"
        ))
    };
    let Some((ia, host)) = text.split_once(',') else {
        let net = text.parse::<IpNet>();
        let ip = || text.parse::<IpAddr>();
        return match net {
            Ok(net) if net != net.trunc() => Err(ApiError::wrong(format!(
                "{net} has bits set beyond its prefix: write {}, or {} for this host alone",
                net.trunc(),
                net.addr()
            ))),
            Ok(net) => Ok(BanTarget::network(net)),
            Err(_) => match ip() {
                Ok(ip) => Ok(BanTarget::host(Host::ip_only(ip))),
                Err(_) => Err(wrong()),
            },
        };
    };
    let ia = IsdAs::parse_place(ia).map_err(|_| wrong())?;
    let ip = match host.parse::<IpNet>() {
        // As a ban of a host is shown. No other network of an AS can be banned.
        Ok(net) => match (net, net.prefix_len()) {
            (IpNet::V4(_), 32) | (IpNet::V6(_), 64) => net.addr(),
            _ => return Err(wrong()),
        },
        Err(_) => {
            let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
            bare.unwrap_or(host).parse().map_err(|_| wrong())?
        }
    };
    Ok(BanTarget::host(Host::new(ia, ip)))
}

impl BanEntry {
    fn new((target, ban): (BanTarget, Ban)) -> Self {
        Self {
            target: target.to_string(),
            until: ban.until,
            reason: ban.reason,
        }
    }
}

/// Lists the bans.
#[utoipa::path(
    get,
    path = "/api/v2/bans",
    tag = "bans",
    params(Paging),
    responses((status = 200, description = "A part of them.", body = Listed<BanEntry>))
)]
pub(in crate::admin) async fn list(
    State(state): State<admin::State>,
    Query(paging): Query<Paging>,
) -> Json<Listed<BanEntry>> {
    let page = state.handle.bans(paging.offset(), paging.limit());
    Json(Listed::new(page, &paging, BanEntry::new))
}

/// Bans a host or a network, or changes a ban. Its peers expire.
#[utoipa::path(
    post,
    path = "/api/v2/bans",
    tag = "bans",
    request_body = NewBan,
    responses((status = 200, description = "It is banned.", body = BanEntry))
)]
pub(in crate::admin) async fn add(
    State(state): State<admin::State>,
    Body(new): Body<NewBan>,
) -> Result<Json<BanEntry>, ApiError> {
    if new.reason.chars().count() > REASON {
        return Err(ApiError::wrong("a reason has at most 1000 characters"));
    }
    if new.seconds.is_some_and(|seconds| seconds > LONGEST) {
        return Err(ApiError::wrong("seconds is at most 100000000000"));
    }
    let target = target(&new.target)?;
    let until = new
        .seconds
        .map(|seconds| unix_time::now().saturating_add(seconds));
    let ban = Ban {
        until,
        reason: new.reason,
    };
    state.handle.ban(target, ban.clone()).await?;
    Ok(Json(BanEntry::new((target, ban))))
}

/// Ends a ban.
#[utoipa::path(
    delete,
    path = "/api/v2/bans",
    tag = "bans",
    params(WhichBan),
    responses(
        (status = 200, description = "It has ended.", body = Removed),
        (status = 404, description = "There is no such ban.", body = ApiError),
    )
)]
pub(in crate::admin) async fn delete(
    State(state): State<admin::State>,
    Query(which): Query<WhichBan>,
) -> Result<Json<Removed>, ApiError> {
    let removed = state.handle.unban(target(&which.target)?).await?;
    let none = || ApiError::unknown("there is no such ban");
    removed.map(|_| Json(Removed::YES)).ok_or_else(none)
}

/// The hosts that announce most, busiest first. Empty if announces are not limited.
#[utoipa::path(
    get,
    path = "/api/v2/hosts",
    tag = "bans",
    params(HowMany),
    responses((status = 200, description = "Estimates.", body = Vec<BusyHostEntry>))
)]
pub(in crate::admin) async fn busiest(
    State(state): State<admin::State>,
    Query(many): Query<HowMany>,
) -> Json<Vec<BusyHostEntry>> {
    let entry = |it: BusyHost| BusyHostEntry {
        host: it.host.to_string(),
        announces: it.announces,
        refused: it.refused,
    };
    let hosts = state.handle.busiest_hosts(many.limit.into());
    Json(hosts.into_iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        for (text, shown) in [
            ("192.0.2.1", "192.0.2.1/32"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("2001:db8::1", "2001:db8::/64"),
            ("2001:db8::/48", "2001:db8::/48"),
            ("1-ff00:0:110,10.0.0.1", "1-ff00:0:110,10.0.0.1/32"),
            ("1-ff00:0:110,[2001:db8::1]", "1-ff00:0:110,2001:db8::/64"),
        ] {
            let read = target(text).unwrap();
            assert_eq!(read.to_string(), shown);
            assert_eq!(target(shown).unwrap(), read);
        }
        for bad in [
            "",
            "host",
            "1-0,10.0.0.1",
            "1-ff00:0:110,",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "::ffff:192.0.2.1/120",
            "2001:db8::1/64",
            "1-ff00:0:110,10.0.0.0/8",
            "1-ff00:0:110,10.0.0.1/64",
            "1-ff00:0:110,2001:db8::/32",
        ] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }
}
