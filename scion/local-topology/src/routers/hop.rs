//! What a border router does with the path of a packet, as the
//! [SCION data plane](https://datatracker.ietf.org/doc/draft-dekater-scion-dataplane/) has it: on the way
//! in, verify the hop field and see where it leads; on the way out, go on to the next one.
//!
//! Each hop field is verified against an accumulator in the info field of its segment, which every AS
//! changes by the hop field's MAC: on the way in against the direction of construction, on the way out
//! along it. A peering hop (the one on either side of a peering link) leaves it as it is: its MAC was
//! computed with the accumulator of the next AS down.

use std::collections::HashMap;

use sciparse::dataplane_path::standard::mac::ForwardingKey;
use sciparse::dataplane_path::standard::mac::algo::{calculate_hop_mac, mac_beta_step};
use sciparse::dataplane_path::standard::view::{HopFieldView, InfoFieldView, StandardPathView};
use sciparse::payload::scmp::types::ScmpParameterProblemCode as Code;

/// How far the clocks of ASes may differ, in seconds: a segment from further in the future is refused.
const SKEW: u32 = 337;

/// What an AS is to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Neighbour {
    Core,
    Parent,
    Child,
    Peer,
}

/// What a router knows of its AS.
#[derive(Debug)]
pub(crate) struct Router {
    /// What the hop fields of this AS are verified with.
    pub(crate) key: ForwardingKey,
    /// By number, what is at the other end.
    pub(crate) interfaces: HashMap<u16, Neighbour>,
}

/// Where a packet goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The path ends in this AS.
    Here,
    /// Out of this interface, after [`leave`].
    Out(u16),
}

/// Why a packet is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The path is none; it cannot be reversed to say so.
    Malformed,
    /// To be said in an SCMP message (parameter problem).
    Parameter(Code),
}

/// The current hop field, as where it stands in its segment.
struct Hop<'a> {
    field: &'a HopFieldView,
    info: &'a InfoFieldView,
    /// It is the last of its segment.
    ends_segment: bool,
    /// It is the last of the path.
    ends_path: bool,
    /// It is on one side of a peering link.
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

    /// Whether the next hop field is of the same AS, in the next segment.
    const fn crosses(&self) -> bool {
        self.ends_segment && !self.ends_path && !self.peering
    }
}

impl Router {
    /// A packet is in this AS: from another one through interface `ingress`, or from inside if that is 0.
    /// `now` is in seconds since 1970.
    ///
    /// Afterwards, and after a [`Problem::Parameter`], the path can be reversed, for [`turn_back`].
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

    /// Whether this AS made the current hop field, and it still counts.
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

/// The packet leaves the AS by the current hop field, to which [`Router::arrive`] has led.
pub(crate) fn leave(path: &mut StandardPathView) {
    if let Some(hop) = Hop::current(path)
        && hop.info.flags().cons_dir()
        && !hop.peering
    {
        chain(path);
    }
    step(path);
}

/// The packet leaves the AS by where it came in: the path is that of [`Router::arrive`], reversed.
pub(crate) fn turn_back(path: &mut StandardPathView) {
    // Between the two hop fields of this AS.
    if Hop::current(path).is_some_and(|hop| hop.crosses()) {
        step(path);
    }
    leave(path);
}

/// Goes on to the next hop field, in the next segment if the current one ends.
fn step(path: &mut StandardPathView) {
    let ends_segment = Hop::current(path).is_some_and(|hop| hop.ends_segment);
    path.set_curr_hop_field(path.curr_hop_field_idx() + 1);
    path.set_curr_info_field(path.curr_info_field_idx() + u8::from(ends_segment));
}

/// Changes the accumulator by the MAC of the current hop field.
fn chain(path: &mut StandardPathView) {
    let Some(mac) = path.curr_hop_field().map(HopFieldView::mac) else {
        return;
    };
    if let Some(info) = path.curr_info_field_mut() {
        info.set_segment_id(mac_beta_step(info.segment_id(), *mac.as_bytes()));
    }
}

/// Whether an AS carries packets from this neighbour to that one: never between two that it pays for
/// both, and from one segment to another only at the top.
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
