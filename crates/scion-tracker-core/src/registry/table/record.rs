//! The packed form of a peer: 29 bytes for IPv4, 41 for IPv6, in the byte order of replies.

use arrayvec::ArrayVec;

use crate::address::{CompactAddr, Host, IsdAs};
use crate::registry::{Classes, MAX_NUMWANT, PeerEntry};
use crate::request::{Event, Family};
use crate::response::{AddrBytes, Peer, Reach};
use crate::select::Standing;
use crate::types::{PeerId, Time};

/// The coarse clock of the records: 8 seconds per tick, so that 16 bits last for 145 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) struct Tick([u8; 2]);

impl Tick {
    pub(in crate::registry) const SECONDS: u32 = 8;
    /// Longest time span in seconds that is not mistaken for a wrapped clock: 72 hours.
    pub(in crate::registry) const MAX_SPAN: u32 = 72 * 3600;

    pub(in crate::registry) const fn at(time: Time) -> Self {
        Self(((time.as_secs() / Self::SECONDS) as u16).to_be_bytes())
    }

    /// The tick `age` seconds before this one.
    pub(in crate::registry) const fn before(self, age: u32) -> Self {
        let ticks = (age / Self::SECONDS) as u16;
        Self(u16::from_be_bytes(self.0).wrapping_sub(ticks).to_be_bytes())
    }

    /// Seconds from this tick to `now`.
    pub(in crate::registry) const fn age(self, now: Self) -> u32 {
        let ticks = u16::from_be_bytes(now.0).wrapping_sub(u16::from_be_bytes(self.0));
        ticks as u32 * Self::SECONDS
    }
}

/// The state of a peer without its address, in one byte:
///
/// ```text
/// bit 0    seed
/// bit 1    of a leecher: it is a partial seed (BEP 21)
///          of a seed: it was a leecher, under this peer id
/// bit 2    its completed download has been counted
/// bit 3    the same client is counted already, on another network
/// bit 4-5  reach: 0 IP, 1 SCION, 2 both
/// bit 6    its IP address is local; 0 if only SCION reaches it
/// bit 7    its place was claimed, not proven
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) struct Flags(u8);

impl Flags {
    const SEED: u8 = 1;
    const PARTIAL: u8 = 2;
    const FINISHED: u8 = 2;
    const COMPLETED: u8 = 4;
    const TWIN: u8 = 8;

    pub(in crate::registry) const fn of(peer: &PeerEntry) -> Self {
        let mut bits = Class::of(peer).0 << 4;
        if peer.seeder {
            bits |= Self::SEED;
        } else if matches!(peer.event, Event::Paused) {
            bits |= Self::PARTIAL;
        }
        Self(bits)
    }

    /// The flags of these low four bits, of a peer of [`Reach::Ip`].
    pub(in crate::registry) const fn low(bits: u8) -> Self {
        Self(bits & 15)
    }

    /// The byte.
    pub(in crate::registry) const fn to_bits(self) -> u8 {
        self.0
    }

    /// The state that a byte says. `None` if no peer with or without a place can be in it.
    pub(in crate::registry) const fn from_bits(bits: u8, has_place: bool) -> Option<Self> {
        let flags = Self(bits);
        let Class(class) = flags.class();
        // The numbers of `Classes`, and the bit of a claim.
        let exists = matches!(class & 7, 0 | 1 | 2 | 4 | 6);
        let needs_place = !matches!(class, 0 | 4);
        if exists && (has_place || !needs_place) {
            Some(flags)
        } else {
            None
        }
    }

    pub(in crate::registry) const fn seed(self) -> bool {
        self.0 & Self::SEED != 0
    }

    pub(in crate::registry) const fn partial(self) -> bool {
        self.0 & (Self::SEED | Self::PARTIAL) == Self::PARTIAL
    }

    pub(in crate::registry) const fn class(self) -> Class {
        Class(self.0 >> 4)
    }

    /// A number whose low five bits are those of the class and, above them, whether it is a seed.
    pub(in crate::registry) const fn kind(self) -> u32 {
        self.0.rotate_right(4) as u32
    }

    /// Whether the peer is a leecher, or has become a seed while it was known.
    pub(in crate::registry) const fn was_leecher(self) -> bool {
        self.0 & (Self::SEED | Self::FINISHED) != Self::SEED
    }

    /// The same state, for a seed that was not known as a leecher under its present peer id.
    pub(in crate::registry) const fn without_finished(self) -> Self {
        Self(self.0 & !Self::FINISHED)
    }

    /// Whether the counts of the swarm leave the peer out, because they already include its client.
    pub(in crate::registry) const fn twin(self) -> bool {
        self.0 & Self::TWIN != 0
    }

    /// The same state, for a peer of a client that is already counted.
    pub(in crate::registry) const fn with_twin(self) -> Self {
        Self(self.0 | Self::TWIN)
    }

    /// The same state, for a peer that counts.
    pub(in crate::registry) const fn without_twin(self) -> Self {
        Self(self.0 & !Self::TWIN)
    }

    /// Carries over the earlier state of the peer (`None` for a new one). Returns whether this
    /// announce completes a download: only a peer that was known as incomplete can do so, and only
    /// once.
    pub(in crate::registry) fn succeed(&mut self, before: Option<Self>, event: Event) -> bool {
        let Some(before) = before else { return false };
        let counted = before.0 & Self::COMPLETED != 0;
        let completes = event == Event::Completed && self.seed() && !counted && !before.seed();
        self.0 |= before.0 & (Self::COMPLETED | Self::TWIN);
        if self.seed() && before.was_leecher() {
            self.0 |= Self::FINISHED;
        }
        if completes {
            self.0 |= Self::COMPLETED;
        }
        completes
    }
}

/// A class of peers that are stored together: same reach, scope and proof. The high four bits of
/// [`Flags`]; the low three of them number a class as [`Classes`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) struct Class(u8);

impl Class {
    pub(in crate::registry) const fn of(peer: &PeerEntry) -> Self {
        let claimed = !peer.verified && !peer.ia.is_none();
        Self(Classes::number(peer.reach, peer.scope) | (claimed as u8) << 3)
    }

    /// Whether a set contains the peers of this class and family.
    #[inline]
    pub(in crate::registry) const fn is_in(self, classes: Classes, family: Family) -> bool {
        classes.0 & Classes::bit(family, self.0 & 7) != 0
    }

    pub(in crate::registry) const fn reach(self) -> Reach {
        const REACHES: [Reach; 4] = [Reach::Ip, Reach::Scion, Reach::Both, Reach::Both];
        REACHES[(self.0 & 3) as usize]
    }

    /// The host that is counted for such a peer: its SCION host if packets have proven that, and
    /// otherwise the IP address that the tracker saw, whatever place it claims.
    pub(in crate::registry) fn source(self, ia: IsdAs, addr: &CompactAddr) -> Host {
        let ip = addr.socket_addr().ip();
        if self.reach() == Reach::Scion && self.standing() == Standing::Proven {
            Host::new(ia, ip)
        } else {
            Host::ip_only(ip)
        }
    }

    pub(in crate::registry) const fn standing(self) -> Standing {
        if self.0 & 8 == 0 {
            Standing::Proven
        } else {
            Standing::Claimed
        }
    }
}

/// A stored address.
pub(in crate::registry) trait Packed:
    Copy + Eq + std::fmt::Debug + 'static
{
    /// The family of all addresses of this form. `None` if it holds both.
    const FAMILY: Option<Family>;

    /// `None` if an address of this family does not fit.
    fn pack(addr: &CompactAddr) -> Option<Self>;
    fn bytes(&self) -> AddrBytes<'_>;
}

impl Packed for [u8; 6] {
    const FAMILY: Option<Family> = Some(Family::V4);

    fn pack(addr: &CompactAddr) -> Option<Self> {
        match addr {
            CompactAddr::V4(bytes) => Some(*bytes),
            CompactAddr::V6(_) => None,
        }
    }

    #[inline]
    fn bytes(&self) -> AddrBytes<'_> {
        AddrBytes::V4(self)
    }
}

/// The first 12 bytes of an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2).
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Holds both families. IPv4 is in its mapped form, which no IPv6 peer has (see
/// [`CompactAddr::new`]).
impl Packed for [u8; 18] {
    const FAMILY: Option<Family> = None;

    fn pack(addr: &CompactAddr) -> Option<Self> {
        match addr {
            CompactAddr::V4(bytes) => {
                let mut mapped = [0; 18];
                mapped[..12].copy_from_slice(&MAPPED);
                mapped[12..].copy_from_slice(bytes);
                Some(mapped)
            }
            CompactAddr::V6(bytes) => Some(*bytes),
        }
    }

    #[inline]
    fn bytes(&self) -> AddrBytes<'_> {
        match (self.first_chunk::<12>(), self.last_chunk::<6>()) {
            (Some(&MAPPED), Some(v4)) => AddrBytes::V4(v4),
            _ => AddrBytes::V6(self),
        }
    }
}

pub(in crate::registry) const fn family(addr: &AddrBytes<'_>) -> Family {
    match addr {
        AddrBytes::V4(_) => Family::V4,
        AddrBytes::V6(_) => Family::V6,
    }
}

/// A peer. Consists of bytes only, so that it packs without padding.
#[derive(Debug, Clone, Copy)]
pub(in crate::registry) struct Record<P> {
    pub(in crate::registry) addr: P,
    pub(in crate::registry) id: PeerId,
    pub(in crate::registry) seen: Tick,
    pub(in crate::registry) flags: Flags,
}

/// What an announce may have to know of the one before it.
#[derive(Debug, Clone, Copy)]
pub(in crate::registry) struct Known<'a> {
    pub(in crate::registry) id: &'a PeerId,
    pub(in crate::registry) seen: Tick,
    pub(in crate::registry) flags: Flags,
}

impl Record<()> {
    /// What is kept of a peer that announces, and whether this announce completes a download. `before` is what
    /// was kept of it. `twin` says of a newcomer that its client is counted already.
    #[inline]
    pub(in crate::registry) fn of(
        peer: &PeerEntry,
        before: Option<Known<'_>>,
        twin: bool,
        now: Tick,
    ) -> (Self, bool) {
        let mut flags = Flags::of(peer);
        if twin {
            flags = flags.with_twin();
        }
        let completes = flags.succeed(before.map(|known| known.flags), peer.event);
        if before.is_some_and(|known| *known.id != peer.id) {
            flags = flags.without_twin();
            // Another client at the address, or another session of the same one, which may not know the
            // length of its torrent again.
            if peer.seeder {
                flags = flags.without_finished();
            }
        }
        let head = Self {
            addr: (),
            id: peer.id,
            seen: now,
            flags,
        };
        (head, completes)
    }
}

impl<P> Record<P> {
    #[inline]
    pub(in crate::registry) const fn known(&self) -> Known<'_> {
        Known {
            id: &self.id,
            seen: self.seen,
            flags: self.flags,
        }
    }

    /// The record without its address.
    pub(in crate::registry) const fn head(&self) -> Record<()> {
        Record {
            addr: (),
            id: self.id,
            seen: self.seen,
            flags: self.flags,
        }
    }

    /// The same, with an address.
    pub(in crate::registry) const fn at<Q: Copy>(&self, addr: Q) -> Record<Q> {
        Record {
            addr,
            id: self.id,
            seen: self.seen,
            flags: self.flags,
        }
    }
}

impl<P: Packed> Record<P> {
    pub(in crate::registry) fn family(&self) -> Family {
        P::FAMILY.unwrap_or_else(|| family(&self.addr.bytes()))
    }
}

/// Receives selected peers.
pub(in crate::registry) trait Chosen<'a> {
    fn put<P: Packed>(&mut self, ia: IsdAs, class: Class, addr: &'a P, id: &'a PeerId);
}

/// Selected peers, before they are handed out.
pub(in crate::registry) type Picks<'a> = ArrayVec<Pick<'a>, MAX_NUMWANT>;

/// A selected peer. It has plain words instead of the enum of [`Peer`], and is pushed where it is
/// found. A list of them is then filled from registers. Through the stack this would cost half of a
/// selection.
#[derive(Debug, Clone, Copy)]
pub(in crate::registry) struct Pick<'a> {
    ia: IsdAs,
    addr: &'a [u8],
    id: &'a PeerId,
    class: Class,
}

impl<'a> Chosen<'a> for Picks<'a> {
    #[inline]
    fn put<P: Packed>(&mut self, ia: IsdAs, class: Class, addr: &'a P, id: &'a PeerId) {
        let addr = addr.bytes().as_bytes();
        // No more than were asked for, so it fits.
        let _ = self.try_push(Pick {
            ia,
            addr,
            id,
            class,
        });
    }
}

impl<'a> Pick<'a> {
    /// The whole peer. Never `None`, because the lengths of the families differ.
    #[inline]
    pub(in crate::registry) fn peer(&self) -> Option<Peer<'a>> {
        let addr = match self.addr.len() {
            6 => AddrBytes::V4(self.addr.try_into().ok()?),
            _ => AddrBytes::V6(self.addr.try_into().ok()?),
        };
        Some(Peer {
            ia: self.ia,
            reach: self.class.reach(),
            addr,
            id: self.id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Scope;
    use crate::types::InfoHash;

    #[test]
    fn records_have_no_padding() {
        assert_eq!(size_of::<Record<[u8; 6]>>(), 29);
        assert_eq!(size_of::<Record<[u8; 18]>>(), 41);
    }

    #[test]
    fn flags_hold_every_class_and_state() {
        let mut peer = PeerEntry {
            info_hash: InfoHash([1; 20]),
            ia: "1-1".parse().unwrap(),
            addr: CompactAddr::new([10, 0, 0, 1].into(), 1),
            id: PeerId([1; 20]),
            key: None,
            reach: Reach::Ip,
            scope: Scope::Global,
            verified: true,
            seeder: false,
            event: Event::None,
        };
        let all = [Reach::Ip, Reach::Scion, Reach::Both]
            .into_iter()
            .flat_map(|reach| [(reach, Scope::Global), (reach, Scope::Local)]);
        for (reach, scope) in all.clone() {
            for verified in [true, false] {
                (peer.reach, peer.scope, peer.verified) = (reach, scope, verified);
                peer.event = Event::None;
                peer.seeder = false;
                let leecher = Flags::of(&peer);
                peer.event = Event::Paused;
                let partial = Flags::of(&peer);
                peer.seeder = true;
                peer.event = Event::None;
                let seed = Flags::of(&peer);
                let mut finished = seed;
                finished.succeed(Some(partial), Event::None);
                for (flags, states) in [
                    (leecher, [false, false, true]),
                    (partial, [false, true, true]),
                    (seed, [true, false, false]),
                    (finished, [true, false, true]),
                    (finished.without_finished(), [true, false, false]),
                ] {
                    assert_eq!([flags.seed(), flags.partial(), flags.was_leecher()], states);
                    for flags in [flags, flags.with_twin().without_twin()] {
                        let class = flags.class();
                        assert_eq!(class, Class::of(&peer));
                        assert_eq!(class.reach(), reach);
                        assert_eq!(class.standing() == Standing::Proven, verified);
                        for family in [Family::V4, Family::V6] {
                            for (other, of) in all.clone() {
                                let set = Classes::NONE.with(family, other, of);
                                let same = other == reach && (of == scope || reach == Reach::Scion);
                                assert_eq!(class.is_in(set, family), same);
                                assert_eq!(set.contains(family, reach, scope), same);
                                assert!(!class.is_in(set, other_family(family)));
                            }
                        }
                    }
                }
            }
        }
    }

    fn other_family(family: Family) -> Family {
        match family {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        }
    }

    #[test]
    fn ticks_go_round() {
        let tick = |secs| Tick::at(Time::from_secs(secs));
        assert_eq!(tick(0).age(tick(7)), 0);
        assert_eq!(tick(0).age(tick(80)), 80);
        let late = 65_535 * 8;
        assert_eq!(tick(late).age(tick(late + 16)), 16);
    }

    #[test]
    fn mapped_addresses_come_back_as_ipv4() {
        let four = CompactAddr::new("10.0.0.1".parse().unwrap(), 6881);
        let six = CompactAddr::new("2001:db8::1".parse().unwrap(), 6881);
        for addr in [four, six] {
            let packed = <[u8; 18]>::pack(&addr).unwrap();
            assert_eq!(packed.bytes().as_bytes(), addr.as_bytes());
        }
        assert!(<[u8; 6]>::pack(&six).is_none());
    }
}
