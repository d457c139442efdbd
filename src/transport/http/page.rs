//! The page of statistics that HTTP listeners serve to everyone, if the operator wants that. The admin listener
//! renders it (`admin::page`); here it is only handed out.

/// The page and what it needs.
#[derive(Debug)]
pub(crate) struct PublicPage {
    pub(crate) html: String,
    pub(crate) style: &'static str,
    pub(crate) icon: &'static str,
}

/// A file of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum File {
    Html,
    Style,
    Icon,
}

impl File {
    /// The file at a path other than `/`.
    pub(super) fn at(path: &str) -> Option<Self> {
        match path {
            "/stats" => Some(Self::Html),
            "/stats.css" => Some(Self::Style),
            "/stats.svg" => Some(Self::Icon),
            _ => None,
        }
    }

    /// The content and its type.
    pub(super) fn of(self, page: &PublicPage) -> (&str, &'static str) {
        match self {
            Self::Html => (&page.html, "text/html; charset=utf-8"),
            Self::Style => (page.style, "text/css; charset=utf-8"),
            Self::Icon => (page.icon, "image/svg+xml"),
        }
    }
}
