//! The two text formats of metrics, and which of them a client gets.

use http::HeaderValue;

/// A format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format for a client that accepts these types (RFC 9110 section 12.5.1).
    pub(super) fn accepted<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> Self {
        let (mut open_metrics, mut plain) = (0.0, None);
        let values = values.into_iter().filter_map(|value| value.to_str().ok());
        for range in values.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let quality = parts.find_map(|part| part.strip_prefix("q="));
            let quality = quality.map_or(Some(1.0), |quality| quality.parse::<f32>().ok());
            let quality = quality.unwrap_or_default();
            if kind.eq_ignore_ascii_case("application/openmetrics-text") {
                open_metrics = quality;
            } else if kind.eq_ignore_ascii_case("text/plain") {
                plain = Some(quality);
            }
        }
        match open_metrics > plain.unwrap_or_default() {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Rewrites OpenMetrics for Prometheus: there a counter has the same name in `# TYPE` as in its samples, an
/// info is a gauge, and nothing marks the end.
pub(super) fn prometheus(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map(|(_, text)| text);
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                other => ("", other),
            };
            if let Some(text) = help.take() {
                out.extend(["# HELP ", name, suffix, " ", text, "\n"]);
            }
            out.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if line != "# EOF" {
            out.extend([line, "\n"]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_that_the_client_prefers() {
        use Format::{OpenMetrics, Prometheus};
        for (accept, expected) in [
            ("", Prometheus),
            ("*/*", Prometheus),
            ("text/plain", Prometheus),
            ("application/openmetrics-text", OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            (
                "text/plain;version=0.0.4;q=0.9, application/openmetrics-text;q=0.5",
                Prometheus,
            ),
            ("application/openmetrics-text;q=0", Prometheus),
            ("application/openmetrics-text;q=x", Prometheus),
        ] {
            let value = HeaderValue::from_static(accept);
            assert_eq!(Format::accepted([&value]), expected, "{accept}");
        }
        assert_eq!(Format::accepted([]), Prometheus);
    }

    #[test]
    fn names_of_counters_and_infos_are_those_of_their_samples() {
        let open_metrics = "\
            # HELP a_requests Requests.\n# TYPE a_requests counter\na_requests_total{b=\"c\"} 1\n\
            # HELP a_build Build.\n# TYPE a_build info\na_build_info{v=\"1\"} 1\n\
            # HELP a_peers Peers.\n# TYPE a_peers gauge\na_peers 2.0\n# EOF\n";
        let expected = "\
            # HELP a_requests_total Requests.\n# TYPE a_requests_total counter\na_requests_total{b=\"c\"} 1\n\
            # HELP a_build_info Build.\n# TYPE a_build_info gauge\na_build_info{v=\"1\"} 1\n\
            # HELP a_peers Peers.\n# TYPE a_peers gauge\na_peers 2.0\n";
        assert_eq!(prometheus(open_metrics), expected);
    }
}
