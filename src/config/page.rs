//! The section `page` of the configuration: the page of statistics.

/// See [`Config::page`](super::Config::page).
#[derive(Debug, Clone, PartialEq, Eq, confique::Config)]
#[config(
    layer_attr(derive(Debug, Clone)),
    layer_attr(serde(deny_unknown_fields))
)]
#[non_exhaustive]
pub struct Page {
    /// Whether the HTTP, HTTPS and HTTP/3 listeners also serve the page, at / and /stats, to everyone. It then
    /// shows numbers, ISDs, ASes and clients; no host, no torrent, no limit and nothing about the health of the
    /// tracker.
    #[config(env = "SCION_TRACKER_PAGE_PUBLIC", default = false)]
    pub public: bool,

    /// Whether the page of the admin listeners lists the largest torrents also to visitors without a token.
    #[config(env = "SCION_TRACKER_PAGE_TORRENTS", default = false)]
    pub torrents: bool,
}
