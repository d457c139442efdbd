//! `GET /metrics`: counters, gauges and histograms for Prometheus. docs/monitoring.md describes each.

mod counters;
mod gauges;
mod places;
mod text;

use axum::extract::State as Extract;
use axum::response::{IntoResponse as _, Response};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::State;
use crate::samples::{BOUNDS, Histogram};
use crate::server::vitals::Vitals;

/// All names begin with it.
const PREFIX: &str = "scion_tracker";

type Written = Result<(), std::fmt::Error>;

/// Names and values of labels.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// All metrics, in the Prometheus text format, or in OpenMetrics if the client prefers that.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "statistics",
    responses((status = 200, description = "Metrics, as text.", body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(Extract(state): Extract<State>, headers: HeaderMap) -> Response {
    let format = text::Format::accepted(headers.get_all(ACCEPT));
    match render(state.handle.vitals(), format) {
        Ok(body) => ([(CONTENT_TYPE, format.content_type())], body).into_response(),
        // Writing to a string cannot fail, and no label is invalid.
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn render(vitals: Vitals, format: text::Format) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Moment(vitals)));
    let mut open_metrics = String::with_capacity(32 * 1024);
    prometheus_client::encoding::text::encode(&mut open_metrics, &registry)?;
    Ok(match format {
        text::Format::OpenMetrics => open_metrics,
        text::Format::Prometheus => text::prometheus(&open_metrics),
    })
}

/// The metrics of one moment.
#[derive(Debug)]
struct Moment(Vitals);

impl Collector for Moment {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Written {
        let mut out = Out(encoder);
        counters::write(&self.0.counters, &mut out)?;
        gauges::write(&self.0, &mut out)
    }
}

/// Writes metrics.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    /// A counter with a row per combination of labels. Its name gets `_total`.
    fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'l>, u64)>,
    ) -> Written {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            match labels.is_empty() {
                true => metric.encode_counter::<Labels<'_>, _, u64>(&value, None)?,
                // With braces, even without labels.
                false => ConstCounter::new(value).encode(metric.encode_family(&labels)?)?,
            }
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Written {
        self.counters(name, help, [(vec![], value)])
    }

    fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'l>, f64)>,
    ) -> Written {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            match labels.is_empty() {
                true => metric.encode_gauge(&value)?,
                false => ConstGauge::new(value).encode(metric.encode_family(&labels)?)?,
            }
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Into<f64>) -> Written {
        self.gauges(name, help, [(vec![], value.into())])
    }

    /// Facts as labels. The name gets `_info`.
    fn info(&mut self, name: &str, help: &str, labels: Labels<'_>) -> Written {
        let metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Info)?;
        Info::new(labels).encode(metric)
    }

    fn histograms<'l>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'l>, Histogram)>,
    ) -> Written {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Histogram)?;
        let bounds = BOUNDS.map(|nanoseconds| nanoseconds as f64 / 1e9);
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        for (labels, histogram) in rows {
            let Histogram { buckets, sum } = histogram;
            let count = buckets.iter().sum();
            let buckets: Vec<_> = bounds.clone().zip(buckets).collect();
            metric
                .encode_family(&labels)?
                .encode_histogram::<Labels<'_>>(sum.as_secs_f64(), count, &buckets, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
