//! Where peers are and what they run, from the last census, as metrics.
//!
//! Peers claim their ISD-AS and their client, so the number of values is limited here: the largest places, and
//! clients from a list.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::gauges::unix;
use super::{Labels, Out, Written};
use crate::admin::clients;
use crate::server::census::Taken;

/// ISDs that have a row.
const ISDS: usize = 20;
/// ASes that have a row.
const ASES: usize = 20;

/// Writes the census.
pub(super) fn write(taken: &Taken, out: &mut Out<'_>) -> Written {
    let census = &taken.census;
    out.gauge(
        "census_timestamp_seconds",
        "When peers were last counted by place and client, in seconds since 1970",
        unix(taken.at),
    )?;
    let families = [("ipv4", census.ipv4), ("ipv6", census.ipv6)];
    let families = families.map(|(it, counts)| (vec![("family", it)], counts.peers() as f64));
    out.gauges(
        "peers_by_family",
        "Peers by the family of their address",
        families,
    )?;
    let reach = [
        ("ip", census.ip),
        ("scion", census.scion),
        ("both", census.both),
    ];
    let reach = reach.map(|(it, counts)| (vec![("reach", it)], counts.peers() as f64));
    out.gauges(
        "peers_by_reach",
        "Peers by the network that reaches them",
        reach,
    )?;

    let (mut isds, mut ases) = (BTreeMap::new(), Vec::new());
    let mut unplaced = 0;
    for place in &census.places {
        let peers = place.counts.peers();
        if place.ia.is_none() {
            unplaced = peers;
            continue;
        }
        *isds.entry(place.ia.isd().to_string()).or_insert(0) += peers;
        ases.push((place.ia.to_string(), peers));
    }
    let mut isds: Vec<_> = isds.into_iter().collect();
    isds.sort_by_key(|(_, peers)| Reverse(*peers));
    let others = census.other_places.peers();
    let rows = largest("isd", &isds, ISDS, others, unplaced);
    out.gauges("peers_by_isd", "Peers by ISD", rows)?;
    let rows = largest("isd_as", &ases, ASES, others, unplaced);
    out.gauges("peers_by_as", "Peers by ISD-AS", rows)?;

    let (mut named, others) = clients::by_name(census);
    named.push(("other", others));
    let named = named.into_iter();
    let named = named.map(|(name, peers)| (vec![("client", name)], peers as f64));
    out.gauges("peers_by_client", "Peers by client", named)
}

/// A row for each of the first places, one for all others, and one for peers without a place.
fn largest<'a>(
    label: &'static str,
    places: &'a [(String, u64)],
    most: usize,
    others: u64,
    unplaced: u64,
) -> Vec<(Labels<'a>, f64)> {
    let (named, rest) = places.split_at(places.len().min(most));
    let others = others + rest.iter().map(|(_, peers)| peers).sum::<u64>();
    let named = named.iter().map(|(name, peers)| (name.as_str(), *peers));
    named
        .chain([("other", others), ("none", unplaced)])
        .map(|(name, peers)| (vec![(label, name)], peers as f64))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_places_are_one_row() {
        let places: Vec<_> = (0..5).map(|at| (format!("1-{at}"), 10 - at)).collect();
        let rows = largest("isd_as", &places, 2, 100, 7);
        let rows: Vec<_> = rows
            .into_iter()
            .map(|(labels, peers)| (labels[0].1, peers))
            .collect();
        assert_eq!(
            rows,
            [("1-0", 10.0), ("1-1", 9.0), ("other", 121.0), ("none", 7.0)]
        );
    }
}
