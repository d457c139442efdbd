//! The messages of `proto.daemon.v1` in use, with the fields in use: protobuf skips all others
//! ([daemon.proto](https://github.com/scionproto/scion/blob/master/proto/daemon/v1/daemon.proto)).

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// `google.protobuf.Empty`, the request of `PortRange`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Empty {}

/// ISD-AS 0 is that of the daemon.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AsRequest {
    #[prost(uint64, tag = "1")]
    pub(super) isd_as: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AsResponse {
    #[prost(uint64, tag = "1")]
    pub(super) isd_as: u64,
}

/// 0 and 0 if there is no range.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PortRangeResponse {
    #[prost(uint32, tag = "1")]
    pub(super) dispatched_port_start: u32,
    #[prost(uint32, tag = "2")]
    pub(super) dispatched_port_end: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InterfacesRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InterfacesResponse {
    /// By interface number.
    #[prost(btree_map = "uint64, message", tag = "1")]
    pub(super) interfaces: BTreeMap<u64, Interface>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Interface {
    #[prost(message, optional, tag = "1")]
    pub(super) address: Option<Underlay>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Underlay {
    /// `ip:port` or `[ip]:port`.
    #[prost(string, tag = "1")]
    pub(super) address: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PathsRequest {
    #[prost(uint64, tag = "1")]
    pub(super) source_isd_as: u64,
    #[prost(uint64, tag = "2")]
    pub(super) destination_isd_as: u64,
    #[prost(bool, tag = "3")]
    pub(super) refresh: bool,
    #[prost(bool, tag = "4")]
    pub(super) hidden: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PathsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) paths: Vec<Path>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Path {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) raw: Vec<u8>,
    /// The border router of the first interface.
    #[prost(message, optional, tag = "2")]
    pub(super) interface: Option<Interface>,
    #[prost(message, repeated, tag = "3")]
    pub(super) interfaces: Vec<PathInterface>,
    #[prost(uint32, tag = "4")]
    pub(super) mtu: u32,
    #[prost(message, optional, tag = "5")]
    pub(super) expiration: Option<Timestamp>,
    /// Between interfaces i and i + 1. Negative if unknown.
    #[prost(message, repeated, tag = "6")]
    pub(super) latency: Vec<Duration>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PathInterface {
    #[prost(uint64, tag = "1")]
    pub(super) isd_as: u64,
    #[prost(uint64, tag = "2")]
    pub(super) id: u64,
}

/// `google.protobuf.Timestamp`: seconds since 1970.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Duration {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

impl Interface {
    /// The address of the border router, if packets can be sent to it.
    pub(super) fn underlay(&self) -> Option<SocketAddr> {
        let address: SocketAddr = self.address.as_ref()?.address.parse().ok()?;
        (address.port() != 0 && !address.ip().is_unspecified()).then_some(address)
    }
}
