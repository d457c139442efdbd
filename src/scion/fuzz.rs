//! Properties of what SCION gives us to read that hold for any input. See [`crate::fuzz`].

use super::topology::{DispatchedPorts, Topology};

pub use super::socket::fuzz::remotes;

/// Checks that a topology file which is accepted names a place, and knows which ports it delivers to.
pub fn topology(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(topology) = text.parse::<Topology>() {
        assert!(!topology.isd_as().is_wildcard());
        assert_eq!(topology.next_hop(0), None);
        let ports = topology.ports();
        for port in [1, 31000, u16::MAX] {
            let within = match ports {
                DispatchedPorts::None => false,
                DispatchedPorts::Range(first, last) => (first..=last).contains(&port),
                DispatchedPorts::Unknown => true,
            };
            assert_eq!(topology.check_port(port).is_ok(), within);
        }
    }
    if let Ok(DispatchedPorts::Range(first, last)) = text.parse() {
        assert!(0 < first && first <= last);
        let shown = DispatchedPorts::Range(first, last);
        assert_eq!(
            shown.to_string().parse::<DispatchedPorts>().ok(),
            Some(shown)
        );
    }
}
