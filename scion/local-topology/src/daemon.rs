//! The SCION daemons, one per AS. They answer path lookups of hosts over gRPC.
//! [pocketscion](https://docs.rs/pocketscion) implements the protocol.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum_connect_rpc::error::{CrpcError, CrpcErrorCode};
use chrono::Utc;
use pocketscion::comp::daemon::api::crpc::nest_api;
use pocketscion::comp::daemon::model::DaemonService;
use scion_protobuf::proto::daemon::v1 as proto;
use sciparse::identifier::isd_asn::IsdAsn;

use crate::config::Ports;
use crate::paths::Paths;

/// The daemon of an AS.
pub(crate) struct Daemon {
    pub(crate) ia: IsdAsn,
    /// Address at which the border router receives packets from hosts.
    pub(crate) router: SocketAddr,
    pub(crate) ports: Ports,
    pub(crate) paths: Arc<Paths>,
}

impl Daemon {
    /// The source of answers.
    pub(crate) fn service(self) -> axum::Router {
        nest_api(axum::Router::new(), Arc::new(self))
    }

    /// The AS that a request names; 0 means that of the daemon.
    const fn or_own(&self, ia: u64) -> IsdAsn {
        match ia {
            0 => self.ia,
            ia => IsdAsn(ia),
        }
    }
}

#[async_trait::async_trait]
impl DaemonService for Daemon {
    async fn paths(&self, request: proto::PathsRequest) -> Result<proto::PathsResponse, CrpcError> {
        if self.or_own(request.source_isd_as) != self.ia {
            let message = format!("paths start in {}", self.ia);
            return Err(CrpcError::new(CrpcErrorCode::InvalidArgument, message));
        }
        let to = IsdAsn(request.destination_isd_as);
        let paths = self
            .paths
            .between(self.ia, to, Utc::now())
            .map_err(|error| {
                CrpcError::new(
                    CrpcErrorCode::NotFound,
                    format!("no path to {to}: {error:#}"),
                )
            })?;
        let paths = paths.into_iter().map(|mut path| {
            path.set_next_hop(Some(self.router));
            path.to_rpc()
        });
        Ok(proto::PathsResponse {
            paths: paths.collect(),
        })
    }

    async fn as_info(&self, request: proto::ASRequest) -> Result<proto::ASResponse, CrpcError> {
        let ia = self.or_own(request.isd_as);
        let Some(it) = self.paths.topology().get_as(&ia) else {
            let message = format!("there is no AS {ia}");
            return Err(CrpcError::new(CrpcErrorCode::NotFound, message));
        };
        Ok(proto::ASResponse {
            isd_as: ia.to_u64(),
            core: it.is_core(),
            mtu: self.paths.mtu(ia).into(),
        })
    }

    async fn interfaces(
        &self,
        _request: proto::InterfacesRequest,
    ) -> Result<proto::InterfacesResponse, CrpcError> {
        let links = self.paths.topology().iter_scion_links_by_as(&self.ia);
        let own = links.filter_map(|link| link.get_own(&self.ia));
        let interfaces: HashMap<_, _> = own
            .map(|own| {
                let address = self.router.to_string();
                let address = proto::Underlay { address }.into();
                (own.if_id.into(), proto::Interface { address })
            })
            .collect();
        Ok(proto::InterfacesResponse {
            interfaces: interfaces.into_iter().collect(),
        })
    }

    /// Does nothing: paths over a link that is down are still handed out, as by a daemon that does
    /// not know about the failure yet.
    async fn notify_interface_down(
        &self,
        _request: proto::NotifyInterfaceDownRequest,
    ) -> Result<proto::NotifyInterfaceDownResponse, CrpcError> {
        Ok(proto::NotifyInterfaceDownResponse {})
    }

    async fn port_range(&self) -> Result<proto::PortRangeResponse, CrpcError> {
        Ok(proto::PortRangeResponse {
            dispatched_port_start: self.ports.first.into(),
            dispatched_port_end: self.ports.last.into(),
        })
    }

    /// There is no control service. Programs such as those of scion-apps ask where it is, to find their own
    /// address on the way to it: they get the address of the border router.
    async fn services(
        &self,
        _request: proto::ServicesRequest,
    ) -> Result<proto::ServicesResponse, CrpcError> {
        let mut control = proto::ListService::default();
        control.services.push(proto::Service {
            uri: self.router.to_string(),
        });
        let mut response = proto::ServicesResponse::default();
        response.services.insert("control".into(), control);
        Ok(response)
    }

    async fn dr_key_as_host(
        &self,
        _request: proto::DRKeyASHostRequest,
    ) -> Result<proto::DRKeyASHostResponse, CrpcError> {
        Err(not_there("no DRKey"))
    }

    async fn dr_key_host_as(
        &self,
        _request: proto::DRKeyHostASRequest,
    ) -> Result<proto::DRKeyHostASResponse, CrpcError> {
        Err(not_there("no DRKey"))
    }

    async fn dr_key_host_host(
        &self,
        _request: proto::DRKeyHostHostRequest,
    ) -> Result<proto::DRKeyHostHostResponse, CrpcError> {
        Err(not_there("no DRKey"))
    }
}

fn not_there(what: &str) -> CrpcError {
    CrpcError::new(CrpcErrorCode::Unimplemented, what.into())
}
