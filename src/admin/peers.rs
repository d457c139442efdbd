//! Peers as the API shows them.

use scion_tracker_core::address::{CompactAddr, IsdAs, ScionAddr};
use scion_tracker_core::registry::read::PeerView;
use scion_tracker_core::response::Reach;
use scion_tracker_core::types::PeerId;

use crate::client::software;

/// The name of the client that a peer id says. A peer can lie.
pub(super) fn client(id: &PeerId) -> Option<String> {
    software(id).map(|software| software.name)
}

/// A peer id as 40 hexadecimal digits.
pub(super) fn hex(id: &PeerId) -> String {
    id.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where a peer is reached: address and port, with the ISD-AS if only SCION reaches it.
pub(super) fn address(ia: IsdAs, addr: &CompactAddr, reach: Reach) -> String {
    let socket = addr.socket_addr();
    if reach == Reach::Scion
        && let Ok(scion) = ScionAddr::new(ia, socket.ip(), socket.port())
    {
        return scion.to_string();
    }
    socket.to_string()
}

/// [`address`] of a peer in the registry.
pub(super) fn address_of(peer: &PeerView) -> String {
    address(peer.ia, &peer.addr, peer.reach)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_over_scion_have_an_isd_as() {
        let ia = "1-ff00:0:110".parse().unwrap();
        let addr = CompactAddr::new([10, 0, 0, 1].into(), 6881);
        let shown = |reach| address(ia, &addr, reach);
        assert_eq!(shown(Reach::Ip), "10.0.0.1:6881");
        assert_eq!(shown(Reach::Both), "10.0.0.1:6881");
        assert_eq!(shown(Reach::Scion), "1-ff00:0:110,[10.0.0.1]:6881");
        let none = address(IsdAs::NONE, &addr, Reach::Scion);
        assert_eq!(none, "10.0.0.1:6881");
    }

    #[test]
    fn peer_ids() {
        let id = PeerId(*b"-qB4650-abcdefghijkl");
        assert_eq!(client(&id).as_deref(), Some("qBittorrent"));
        assert_eq!(hex(&id), "2d7142343635302d6162636465666768696a6b6c");
        assert_eq!(client(&PeerId([0xff; 20])), None);
    }
}
