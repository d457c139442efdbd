//! The control plane: the paths from one AS to another.
//!
//! Segments come from [pocketscion](https://docs.rs/pocketscion). Its version 0.8.6 computes the
//! MACs of peering hops with the accumulator of their own AS instead of that of the next AS down,
//! so that no router would accept them. They are computed again here. Its MTUs are constants, and are
//! replaced by those of the configuration.

use std::collections::HashMap;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use p256::ecdsa::SigningKey;
use pocketscion::network::scion::segment::registry::SegmentRegistry;
use pocketscion::network::scion::topology::ScionTopology;
use sciparse::dataplane_path::standard::mac::algo::mac_beta_step;
use sciparse::identifier::isd_asn::IsdAsn;
use sciparse::path::ScionPath;
use sciparse::path::combinator::combine;
use sciparse::segment::{Segments, SignedPathSegment, UnsignedPathSegment};

use crate::config::Config;
use crate::topology::isd_asn;

/// Unit of the lifetime of hop fields, in half seconds (draft-dekater-scion-dataplane). A hop field holds
/// its number of units less one.
const EXPIRY_UNIT: u32 = 675;

/// The data of all daemons and endhost APIs of a network.
pub(crate) struct Paths {
    topology: ScionTopology,
    segments: SegmentRegistry,
    /// Signs segments. The key has no certificate, which this network does not need.
    key: SigningKey,
    /// Seconds until new paths expire.
    lifetime: u32,
    /// MTU of each AS.
    inside: HashMap<IsdAsn, u16>,
    /// MTU of the link at each interface.
    links: HashMap<(IsdAsn, u16), u16>,
}

impl Paths {
    pub(crate) fn new(config: &Config, topology: ScionTopology) -> anyhow::Result<Self> {
        // Any number below the order of the group is a key, so any 31 bytes are.
        let mut key = [0; 32];
        fastrand::fill(&mut key[1..]);
        Ok(Self {
            segments: SegmentRegistry::from_topology(&topology),
            key: SigningKey::from_slice(&key).context("no key to sign segments with")?,
            topology,
            lifetime: config.path_lifetime,
            inside: config
                .ases
                .iter()
                .map(|it| (isd_asn(it.ia), it.mtu))
                .collect(),
            links: config
                .links
                .iter()
                .flat_map(|link| [link.from, link.to].map(|end| (end, link.mtu)))
                .map(|(end, mtu)| ((isd_asn(end.ia), end.number.get()), mtu))
                .collect(),
        })
    }

    /// MTU of an AS, in bytes; 0 if there is no such AS.
    pub(crate) fn mtu(&self, ia: IsdAsn) -> u16 {
        self.inside.get(&ia).copied().unwrap_or(0)
    }

    pub(crate) const fn topology(&self) -> &ScionTopology {
        &self.topology
    }

    /// All paths from one AS to another, looked up at this time.
    pub(crate) fn between(
        &self,
        from: IsdAsn,
        to: IsdAsn,
        at: DateTime<Utc>,
    ) -> anyhow::Result<Vec<ScionPath>> {
        let (cores, others) = self.segments(from, to, at)?;
        Ok(combine(from, to, cores.iter(), others.iter()))
    }

    /// The segments from which these paths are combined.
    pub(crate) fn signed_segments(
        &self,
        from: IsdAsn,
        to: IsdAsn,
        at: DateTime<Utc>,
    ) -> anyhow::Result<Segments> {
        let (cores, others) = self.segments(from, to, at)?;
        // Segments are built from the core down.
        let leads_down = |it: &UnsignedPathSegment| it.last_ia() != Some(from);
        let (down, up) = others.into_iter().partition(leads_down);
        let signed = |segments: Vec<UnsignedPathSegment>| {
            let sign = |it: UnsignedPathSegment| {
                let timestamp = it.info().timestamp;
                it.try_into_signed_segment(|_| Some((self.key.clone(), None)), timestamp)
            };
            segments
                .into_iter()
                .map(sign)
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Segments {
            up_segments: signed(up)?,
            down_segments: signed(down)?,
            core_segments: signed(cores)?,
        })
    }

    /// Core segments and others.
    fn segments(
        &self,
        from: IsdAsn,
        to: IsdAsn,
        at: DateTime<Utc>,
    ) -> anyhow::Result<(Vec<UnsignedPathSegment>, Vec<UnsignedPathSegment>)> {
        let segments = self.segments.endhost_list_segments(from, from, to)?;
        let id = fastrand::u16(..);
        let (created, expiry) = self.creation(at);
        let segments = segments.into_path_segments(&self.topology, created, id, expiry)?;
        let completed = |segment| self.completed(segment);
        let cores = segments
            .iter_cores()
            .map(completed)
            .collect::<anyhow::Result<_>>();
        let others = segments
            .iter_non_cores()
            .map(completed)
            .collect::<anyhow::Result<_>>();
        Ok((cores?, others?))
    }

    /// When segments must have been created, and the number in their hop fields, so that they expire at
    /// the end of the lifetime of paths. Short ones were created some minutes ago.
    fn creation(&self, at: DateTime<Utc>) -> (DateTime<Utc>, u8) {
        let units = (2 * self.lifetime).div_ceil(EXPIRY_UNIT).clamp(1, 256);
        let age = (units * EXPIRY_UNIT).saturating_sub(2 * self.lifetime);
        (
            at - TimeDelta::seconds(age.div_ceil(2).into()),
            u8::try_from(units - 1).unwrap_or(u8::MAX),
        )
    }

    /// The segment with the MTUs of this network, and with MACs of its peering hops that routers accept.
    fn completed(&self, segment: &SignedPathSegment) -> anyhow::Result<UnsignedPathSegment> {
        let info = segment.info();
        let mut entries: Vec<_> = segment.iter().cloned().collect();
        let mut accumulator = info.segment_id;
        for entry in &mut entries {
            accumulator = mac_beta_step(accumulator, *entry.hop_entry.hop_field.mac.as_bytes());
            let link = |interface| self.links.get(&(entry.local, interface)).copied();
            // 0 stands for no link: the first AS of a segment.
            let ingress = link(entry.hop_entry.hop_field.cons_ingress);
            entry.hop_entry.ingress_mtu = ingress.unwrap_or(0);
            for peer in &mut entry.peer_entries {
                peer.peer_mtu = link(peer.hop_field.cons_ingress).unwrap_or(peer.peer_mtu);
            }
            entry.mtu = self.mtu(entry.local).into();
            let it = self.topology.get_as(&entry.local);
            let key = it.and_then(|it| it.forwarding_key());
            let key = key.with_context(|| format!("{} has no forwarding key", entry.local))?;
            for peer in &mut entry.peer_entries {
                let hop = peer.hop_field.clone();
                peer.hop_field = hop.with_calculated_mac(accumulator, info.timestamp, &key);
            }
        }
        let (timestamp, id) = (info.timestamp, info.segment_id);
        Ok(UnsignedPathSegment::new(timestamp, id, entries))
    }
}
