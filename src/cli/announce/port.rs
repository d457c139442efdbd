//! Chooses the port to announce. Over SCION it has to be one that the border routers of the AS deliver
//! to, or peers of other ASes do not reach it.

use std::num::NonZeroU16;

use crate::client::USUAL_PORTS;
use crate::scion::topology::{DispatchedPorts, PortError, Topology};

/// The usual first port of BitTorrent clients.
const USUAL: NonZeroU16 = NonZeroU16::MIN.saturating_add(6880);
/// Place of the default port in a range that does not have [`USUAL`], as in 31881.
const OFFSET: u16 = 881;

/// The port to announce: the one that the user asks for, else a default. With what is wrong with it.
/// `topology` is what is known of the AS in which the peer listens. `None` for a peer that is not on
/// SCION.
pub(super) fn choose(
    asked: Option<NonZeroU16>,
    topology: Option<&Topology>,
) -> (NonZeroU16, Option<PortError>) {
    let Some(topology) = topology else {
        return (asked.unwrap_or(USUAL), None);
    };
    let port = asked.unwrap_or_else(|| default_in(topology.ports()));
    (port, topology.check_port(port.get()).err())
}

/// The same port each time, because `stopped` has to name the port of the announces before it.
fn default_in(ports: DispatchedPorts) -> NonZeroU16 {
    let (first, last) = match ports {
        DispatchedPorts::Range(first, last) => (first, last),
        DispatchedPorts::None | DispatchedPorts::Unknown => USUAL_PORTS,
    };
    if (first..=last).contains(&USUAL.get()) {
        return USUAL;
    }
    let inside = first.checked_add(OFFSET).filter(|port| *port <= last);
    NonZeroU16::new(inside.unwrap_or(last)).unwrap_or(USUAL)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn topology(ports: DispatchedPorts) -> Topology {
        Topology::new("1-ff00:0:111".parse().unwrap(), HashMap::new(), ports)
    }

    #[test]
    fn the_default_is_a_port_that_routers_deliver_to() {
        assert_eq!(choose(None, None), (USUAL, None));
        for (ports, default) in [
            (DispatchedPorts::Range(31000, 32767), 31881),
            (DispatchedPorts::Range(30000, 32767), 30881),
            (DispatchedPorts::Range(31000, 31002), 31002),
            (DispatchedPorts::Range(65535, 65535), 65535),
            (DispatchedPorts::Range(1, u16::MAX), 6881),
            (DispatchedPorts::Unknown, 31881),
        ] {
            let (port, error) = choose(None, Some(&topology(ports)));
            assert_eq!((port.get(), error), (default, None), "{ports}");
        }
    }

    #[test]
    fn a_port_that_routers_do_not_deliver_to_is_kept_with_a_warning() {
        for (ports, is_wrong) in [
            (DispatchedPorts::Range(31000, 32767), true),
            (DispatchedPorts::Range(1, u16::MAX), false),
            (DispatchedPorts::None, true),
            (DispatchedPorts::Unknown, false),
        ] {
            let (port, error) = choose(Some(USUAL), Some(&topology(ports)));
            assert_eq!((port, error.is_some()), (USUAL, is_wrong), "{ports}");
            assert_eq!(choose(Some(USUAL), None), (USUAL, None));
        }
        let usual = topology(DispatchedPorts::Range(31000, 32767));
        let error = choose(Some(USUAL), Some(&usual)).1.unwrap().to_string();
        for words in ["port 6881", "1-ff00:0:111", "31000-32767", "30041"] {
            assert!(error.contains(words), "{error}");
        }
    }
}
