//! Processes the path of a packet in a border router, as defined by the [SCION data
//! plane](https://datatracker.ietf.org/doc/draft-dekater-scion-dataplane/). On entry, verifies the
//! hop field and finds the next interface; on exit, advances to the next hop field.
//!
//! Each hop field is verified with an accumulator in the info field of its segment. Every AS
//! updates the accumulator with the MAC of its hop field: on entry when travelling against the
//! direction of construction, on exit when travelling along it. A peering hop (on either side of a
//! peering link) does not update it, because its MAC was computed with the accumulator of the next
//! AS down.

use std::collections::HashMap;

use sciparse::dataplane_path::standard::mac::ForwardingKey;
use sciparse::dataplane_path::standard::mac::algo::{calculate_hop_mac, mac_beta_step};
use sciparse::dataplane_path::standard::view::{HopFieldView, InfoFieldView, StandardPathView};
use sciparse::payload::scmp::types::ScmpParameterProblemCode as Code;

/// Allowed clock difference between ASes, in seconds. A segment from further in the future is
/// refused.
const SKEW: u32 = 337;

/// The relation of an AS to a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Neighbour {
    Core,
    Parent,
    Child,
    Peer,
}

/// What a router knows about its AS.
#[derive(Debug)]
pub(crate) struct Router {
    /// The key that verifies the hop fields of this AS.
    pub(crate) key: ForwardingKey,
    /// The relation to the neighbour at each interface.
    pub(crate) interfaces: HashMap<u16, Neighbour>,
}

/// Where a packet goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The path ends in this AS.
    Here,
    /// Out through this interface, after [`leave`].
    Out(u16),
}

/// Why a packet is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The path is malformed and cannot be reversed for an error message.
    Malformed,
    /// The code for an SCMP message (parameter problem).
    Parameter(Code),
}

/// The position of the current hop field in its segment.
struct Hop<'a> {
    field: &'a HopFieldView,
    info: &'a InfoFieldView,
    /// The last one of its segment.
    ends_segment: bool,
    /// The last one of the path.
    ends_path: bool,
    /// On one side of a peering link.
    peering: bool,
}

impl<'a> Hop<'a> {
    fn current(path: &'a StandardPathView) -> Option<Self> {
        let number = usize::from(path.curr_hop_field_idx());
        let (segment, starts, ends) = path.calculate_segment_index(number)?;
        if segment != usize::from(path.curr_info_field_idx()) {
            return None;
        }
        let info = path.info_field(segment)?;
        let flags = info.flags();
        Some(Self {
            field: path.hop_field(number)?,
            info,
            ends_segment: ends,
            ends_path: number + 1 == usize::from(path.hop_field_count()),
            peering: flags.peering() && if flags.cons_dir() { starts } else { ends },
        })
    }

    /// Whether the next hop field belongs to the same AS, in the next segment.
    const fn crosses(&self) -> bool {
        self.ends_segment && !self.ends_path && !self.peering
    }
}

impl Router {
    /// Processes a packet in this AS. It came from another AS through interface `ingress`, or from
    /// inside if `ingress` is 0. `now` is in seconds since 1970.
    ///
    /// Afterwards, and after a [`Problem::Parameter`], the path can be reversed for [`turn_back`].
    pub(crate) fn arrive(
        &self,
        path: &mut StandardPathView,
        ingress: u16,
        now: u32,
    ) -> Result<Next, Problem> {
        let hop = Hop::current(path).ok_or(Problem::Malformed)?;
        if ingress != 0 && !hop.info.flags().cons_dir() && !hop.peering {
            chain(path);
        }
        let hop = Hop::current(path).ok_or(Problem::Malformed)?;
        if ingress != 0 && hop.field.ingress_interface(hop.info) != ingress {
            return Err(Problem::Parameter(unknown_ingress(hop.info)));
        }
        self.verify(path, now)?;

        let crossing = Hop::current(path).is_some_and(|hop| hop.crosses());
        if crossing {
            step(path);
            self.verify(path, now)?;
        }
        let hop = Hop::current(path).ok_or(Problem::Malformed)?;
        if hop.ends_path {
            return Ok(Next::Here);
        }
        let egress = hop.field.egress_interface(hop.info);
        let Some(&to) = self.interfaces.get(&egress) else {
            return Err(Problem::Parameter(unknown_egress(hop.info)));
        };
        match self.interfaces.get(&ingress) {
            Some(&from) if !may_pass(from, to, crossing) => {
                Err(Problem::Parameter(Code::InvalidSegmentChange))
            }
            _ => Ok(Next::Out(egress)),
        }
    }

    /// Whether this AS created the current hop field, and it has not expired.
    fn verify(&self, path: &StandardPathView, now: u32) -> Result<(), Problem> {
        let Hop { field, info, .. } = Hop::current(path).ok_or(Problem::Malformed)?;
        let mac = calculate_hop_mac(
            info.segment_id(),
            info.timestamp(),
            field.exp_time(),
            field.cons_ingress(),
            field.cons_egress(),
            &self.key,
        );
        let wrong = if mac != *field.mac().as_bytes() {
            Code::InvalidHopFieldMac
        } else if info.timestamp() > now.saturating_add(SKEW) {
            Code::InvalidPath
        } else if field.expiry_timestamp(info) < now {
            Code::PathExpired
        } else {
            return Ok(());
        };
        Err(Problem::Parameter(wrong))
    }
}

/// Moves the packet out of the AS by the current hop field, after [`Router::arrive`].
pub(crate) fn leave(path: &mut StandardPathView) {
    if let Some(hop) = Hop::current(path)
        && hop.info.flags().cons_dir()
        && !hop.peering
    {
        chain(path);
    }
    step(path);
}

/// Moves the packet out of the AS the way it came in. The path is that of [`Router::arrive`],
/// reversed.
pub(crate) fn turn_back(path: &mut StandardPathView) {
    // The position is between the two hop fields of this AS.
    if Hop::current(path).is_some_and(|hop| hop.crosses()) {
        step(path);
    }
    leave(path);
}

/// Advances to the next hop field, in the next segment if the current one ends.
fn step(path: &mut StandardPathView) {
    let ends_segment = Hop::current(path).is_some_and(|hop| hop.ends_segment);
    path.set_curr_hop_field(path.curr_hop_field_idx() + 1);
    path.set_curr_info_field(path.curr_info_field_idx() + u8::from(ends_segment));
}

/// Updates the accumulator with the MAC of the current hop field.
fn chain(path: &mut StandardPathView) {
    let Some(mac) = path.curr_hop_field().map(HopFieldView::mac) else {
        return;
    };
    if let Some(info) = path.curr_info_field_mut() {
        info.set_segment_id(mac_beta_step(info.segment_id(), *mac.as_bytes()));
    }
}

/// Whether an AS carries packets between these two neighbours: never between two of its providers,
/// and from one segment to another only at the top.
const fn may_pass(from: Neighbour, to: Neighbour, crossing: bool) -> bool {
    use Neighbour::{Child, Core, Parent, Peer};
    match (from, to) {
        (Core, Core) | (Child, Parent | Peer) | (Parent | Peer, Child) => !crossing,
        (Core, Child) | (Child, Core | Child) => crossing,
        (Core | Parent | Peer, Parent | Peer) | (Parent | Peer, Core) => false,
    }
}

fn unknown_ingress(info: &InfoFieldView) -> Code {
    match info.flags().cons_dir() {
        true => Code::UnknownHopFieldConsIngressInterface,
        false => Code::UnknownHopFieldConsEgressInterface,
    }
}

fn unknown_egress(info: &InfoFieldView) -> Code {
    match info.flags().cons_dir() {
        true => Code::UnknownHopFieldConsEgressInterface,
        false => Code::UnknownHopFieldConsIngressInterface,
    }
}
