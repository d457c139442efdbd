//! Checks of the replies of a daemon, for fuzzing and tests.

use prost::Message;
use scion_tracker_core::codec::scion::Path;

use super::*;

/// Decodes the bytes as a message. Checks that it stays the same when it is encoded and decoded again.
fn decoded<M: Message + Default + PartialEq>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let again = M::decode(&*message.encode_to_vec());
    assert!(again.is_ok_and(|again| again == message));
    Some(message)
}

/// Reads the bytes as each reply of a daemon, with the prefix of gRPC and without. Returns the usable
/// paths.
pub(crate) fn read(bytes: &[u8]) -> Vec<DaemonPath> {
    if let Ok(message) = grpc::unframe(bytes.to_vec().into()) {
        assert_eq!(message.len() + 5, bytes.len());
    }
    let _ = decoded::<messages::AsResponse>(bytes);
    if let Some(reply) = decoded::<messages::PortRangeResponse>(bytes)
        && let Some(DispatchedPorts::Range(first, last)) = read_ports(&reply)
    {
        assert!(0 < first && first <= last);
    }
    if let Some(reply) = decoded::<messages::InterfacesResponse>(bytes) {
        for (id, addr) in read_interfaces(reply) {
            assert!(id != 0 && addr.port() != 0);
        }
    }
    let Some(reply) = decoded::<messages::PathsResponse>(bytes) else {
        return Vec::new();
    };
    let paths: Vec<_> = reply.paths.into_iter().filter_map(read_path).collect();
    for path in &paths {
        assert!(path.next_hop.port() != 0);
        assert!(Path::parse(&path.raw).is_ok_and(|path| path.expiry().is_some()));
    }
    paths
}
