//! The endhost APIs, which Anapaya's SDK asks instead of a daemon. They return the border router
//! and the path segments, which the SDK combines. The SDK implements the protocol.

use std::net::SocketAddr;
use std::sync::Arc;

use chrono::Utc;
use endhost_api::routes::nest_endhost_api;
use endhost_api_models::underlays::{ScionRouter, Underlays};
use endhost_api_models::{SegmentsDiscovery, SegmentsError, UnderlayDiscovery};
use sciparse::identifier::isd_asn::IsdAsn;
use sciparse::segment::SegmentsPage;

use crate::paths::Paths;

/// The endhost API of an AS.
pub(crate) struct EndhostApi {
    pub(crate) ia: IsdAsn,
    /// Address at which the border router receives packets from hosts.
    pub(crate) router: SocketAddr,
    pub(crate) paths: Arc<Paths>,
}

impl EndhostApi {
    /// The source of answers.
    pub(crate) fn service(self) -> axum::Router {
        let this = Arc::new(self);
        nest_endhost_api(axum::Router::new(), Arc::clone(&this) as _, this)
    }
}

impl UnderlayDiscovery for EndhostApi {
    fn list_underlays(&self, ia: IsdAsn) -> Underlays {
        let links = self.paths.topology().iter_scion_links_by_as(&self.ia);
        let own = links.filter_map(|link| link.get_own(&self.ia));
        let router = ia.matches(self.ia).then(|| ScionRouter {
            isd_as: self.ia,
            internal_interface: self.router,
            interfaces: own.map(|own| own.if_id).collect(),
        });
        Underlays {
            udp_underlay: router.into_iter().collect(),
            snap_underlay: Vec::new(),
        }
    }
}

#[async_trait::async_trait]
impl SegmentsDiscovery for EndhostApi {
    /// Returns everything on one page.
    async fn list_segments(
        &self,
        from: IsdAsn,
        to: IsdAsn,
        _page_size: i32,
        _page_token: String,
    ) -> Result<SegmentsPage, SegmentsError> {
        if from != self.ia {
            let message = format!("segments start in {}", self.ia);
            return Err(SegmentsError::InvalidArgument(message.into()));
        }
        let segments = self.paths.signed_segments(from, to, Utc::now());
        let segments = segments.map_err(|error| {
            let message = format!("no segments to {to}: {error:#}");
            SegmentsError::InternalError(message.into())
        })?;
        Ok(SegmentsPage {
            segments,
            next_page_token: String::new(),
        })
    }
}
