//! The control plane: the paths from one AS to another.
//!
//! Segments come from [pocketscion](https://docs.rs/pocketscion). Its version 0.8.6 computes the
//! MACs of peering hops with the accumulator of their own AS instead of that of the next AS down,
//! so that no router would accept them. They are computed again here.

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use p256::ecdsa::SigningKey;
use pocketscion::network::scion::segment::registry::SegmentRegistry;
use pocketscion::network::scion::topology::ScionTopology;
use sciparse::dataplane_path::standard::mac::algo::mac_beta_step;
use sciparse::identifier::isd_asn::IsdAsn;
use sciparse::path::ScionPath;
use sciparse::path::combinator::combine;
use sciparse::segment::{Segments, SignedPathSegment, UnsignedPathSegment};

/// Lifetime of hop fields, in units of 337.5 s, minus one (draft-dekater-scion-dataplane): a day.
const EXPIRY: u8 = 255;

/// The data of all daemons and endhost APIs of a network.
pub(crate) struct Paths {
    topology: ScionTopology,
    segments: SegmentRegistry,
    /// Signs segments. The key has no certificate, which this network does not need.
    key: SigningKey,
}

impl Paths {
    pub(crate) fn new(topology: ScionTopology) -> anyhow::Result<Self> {
        // Any number below the order of the group is a key, so any 31 bytes are.
        let mut key = [0; 32];
        fastrand::fill(&mut key[1..]);
        Ok(Self {
            segments: SegmentRegistry::from_topology(&topology),
            key: SigningKey::from_slice(&key).context("no key to sign segments with")?,
            topology,
        })
    }

    pub(crate) const fn topology(&self) -> &ScionTopology {
        &self.topology
    }

    /// All paths from one AS to another, created at this time.
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
        let segments = segments.into_path_segments(&self.topology, at, id, EXPIRY)?;
        let with_peering = |segment| self.with_peering(segment);
        let cores = segments
            .iter_cores()
            .map(with_peering)
            .collect::<anyhow::Result<_>>();
        let others = segments
            .iter_non_cores()
            .map(with_peering)
            .collect::<anyhow::Result<_>>();
        Ok((cores?, others?))
    }

    /// The segment with MACs of its peering hops that routers accept.
    fn with_peering(&self, segment: &SignedPathSegment) -> anyhow::Result<UnsignedPathSegment> {
        let info = segment.info();
        let mut entries: Vec<_> = segment.iter().cloned().collect();
        let mut accumulator = info.segment_id;
        for entry in &mut entries {
            accumulator = mac_beta_step(accumulator, *entry.hop_entry.hop_field.mac.as_bytes());
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
