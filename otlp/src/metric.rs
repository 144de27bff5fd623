//! Numbers about many pieces of work: as messages, and out of a page that is made for Prometheus anyway.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
};

use crate::span::{Value, attribute};

/// From when to when numbers were counted, nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// When counting began.
    pub begin_unix_ns: u64,
    /// When the numbers were read.
    pub end_unix_ns: u64,
}

/// Labels of one series.
pub type Labels = Vec<(String, String)>;

impl Period {
    /// What is so much now.
    pub fn gauge(self, name: &str, unit: &str, description: &str, series: Vec<(Labels, f64)>) -> Metric {
        let data_points = self.points(series);
        metric(name, unit, description, Data::Gauge(Gauge { data_points }))
    }

    /// What was counted since the begin, and only grows.
    pub fn counter(self, name: &str, unit: &str, description: &str, series: Vec<(Labels, f64)>) -> Metric {
        let data_points = self.points(series);
        let aggregation_temporality = AggregationTemporality::Cumulative as i32;
        metric(name, unit, description, Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: true }))
    }

    /// How many values were in which bucket since the begin.
    pub fn histogram(self, name: &str, unit: &str, description: &str, series: Vec<(Labels, Buckets)>) -> Metric {
        let point = |(labels, buckets): (Labels, Buckets)| HistogramDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: self.begin_unix_ns,
            time_unix_nano: self.end_unix_ns,
            count: buckets.counts.iter().sum(),
            sum: Some(buckets.sum),
            bucket_counts: buckets.counts,
            explicit_bounds: buckets.bounds,
            ..HistogramDataPoint::default()
        };
        let data_points = series.into_iter().map(point).collect();
        let aggregation_temporality = AggregationTemporality::Cumulative as i32;
        metric(name, unit, description, Data::Histogram(Histogram { data_points, aggregation_temporality }))
    }

    fn points(self, series: Vec<(Labels, f64)>) -> Vec<NumberDataPoint> {
        let point = |(labels, value)| NumberDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: self.begin_unix_ns,
            time_unix_nano: self.end_unix_ns,
            value: Some(Number::AsDouble(value)),
            ..NumberDataPoint::default()
        };
        series.into_iter().map(point).collect()
    }
}

fn metric(name: &str, unit: &str, description: &str, data: Data) -> Metric {
    let (name, unit, description) = (name.to_owned(), unit.to_owned(), description.to_owned());
    Metric { name, unit, description, data: Some(data), ..Metric::default() }
}

fn attributes(labels: Labels) -> Vec<KeyValue> {
    labels.into_iter().map(|(name, value)| attribute(&name, Value::from(value))).collect()
}

/// Values by their size.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// Upper ends of all buckets but the last, which has none; each belongs to its bucket.
    pub bounds: Vec<f64>,
    /// How many values are in each: one more than there are bounds.
    pub counts: Vec<u64>,
    /// Of all values.
    pub sum: f64,
}

/// A family of a page, as far as it is read.
#[derive(Debug, Default)]
struct Family<'a> {
    name: &'a str,
    kind: &'a str,
    unit: &'a str,
    help: &'a str,
    numbers: Vec<(Labels, f64)>,
    histograms: BTreeMap<Labels, Buckets>,
}

/// The metrics of a page in the text format of OpenMetrics, as a program writes it for Prometheus: counters, gauges and histograms, under
/// the names of their families. A line that is none of these is passed over.
pub fn of_page(page: &str, period: Period) -> Vec<Metric> {
    let mut families: Vec<Family<'_>> = Vec::new();
    for line in page.lines() {
        if let Some(told) = line.strip_prefix("# ") {
            let mut words = told.splitn(3, ' ');
            let (Some(what), Some(name)) = (words.next(), words.next()) else { continue };
            let rest = words.next().unwrap_or_default();
            if families.last().is_none_or(|family| family.name != name) {
                families.push(Family { name, ..Family::default() });
            }
            let Some(family) = families.last_mut() else { continue };
            match what {
                "TYPE" => family.kind = rest,
                "UNIT" => family.unit = rest,
                "HELP" => family.help = rest,
                _ => {}
            }
        } else if let (Some(family), Some((name, labels, value))) = (families.last_mut(), sample(line)) {
            family.add(name, labels, value);
        }
    }
    families.into_iter().filter_map(|family| family.into_metric(period)).collect()
}

impl Family<'_> {
    fn add(&mut self, name: &str, mut labels: Labels, value: f64) {
        let Some(suffix) = name.strip_prefix(self.name) else { return };
        match (self.kind, suffix) {
            ("counter", "_total") | ("gauge", "") => self.numbers.push((labels, value)),
            ("histogram", "_bucket") => {
                let Some(at) = labels.iter().position(|(label, _)| label == "le") else { return };
                let (_, bound) = labels.remove(at);
                let buckets = self.histograms.entry(labels).or_default();
                // A page adds up from the first bucket on; a message has each by itself.
                let before: u64 = buckets.counts.iter().sum();
                buckets.counts.push((value as u64).saturating_sub(before));
                buckets.bounds.extend(bound.parse().ok().filter(|bound: &f64| bound.is_finite()));
            }
            ("histogram", "_sum") => self.histograms.entry(labels).or_default().sum = value,
            _ => {}
        }
    }

    fn into_metric(self, period: Period) -> Option<Metric> {
        let unit = match self.unit {
            "seconds" => "s",
            "bytes" => "By",
            _ => "",
        };
        let histograms: Vec<_> =
            self.histograms.into_iter().filter(|(_, buckets)| !buckets.counts.is_empty()).collect();
        match self.kind {
            "counter" if !self.numbers.is_empty() => Some(period.counter(self.name, unit, self.help, self.numbers)),
            "gauge" if !self.numbers.is_empty() => Some(period.gauge(self.name, unit, self.help, self.numbers)),
            "histogram" if !histograms.is_empty() => Some(period.histogram(self.name, unit, self.help, histograms)),
            _ => None,
        }
    }
}

/// Name, labels and value of a line such as `name{label="value"} 1.5`.
fn sample(line: &str) -> Option<(&str, Labels, f64)> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches(',');
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, quoted) = rest.split_once("=\"")?;
            let (value, after) = unquoted(quoted)?;
            labels.push((label.to_owned(), value));
            rest = after;
        }
    }
    Some((name, labels, rest.split_whitespace().next()?.parse().ok()?))
}

/// The text up to the closing quote, and what comes after that.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut characters) = (String::new(), text.char_indices());
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                escaped => escaped,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"# HELP ingest_ack_seconds How long.
# TYPE ingest_ack_seconds histogram
# UNIT ingest_ack_seconds seconds
ingest_ack_seconds_sum 0.75
ingest_ack_seconds_count 7
ingest_ack_seconds_bucket{le="0.001"} 4
ingest_ack_seconds_bucket{le="0.1"} 6
ingest_ack_seconds_bucket{le="+Inf"} 7
# HELP ingest_sql_statements By kind.
# TYPE ingest_sql_statements counter
ingest_sql_statements_total{kind="select",note="a \"b\", {c}\\"} 3
ingest_sql_statements_total{kind="insert"} 5
# TYPE ingest_pending_bytes gauge
# UNIT ingest_pending_bytes bytes
ingest_pending_bytes 12
# TYPE none counter
something else
# EOF
"#;

    #[test]
    fn a_page_becomes_what_it_says_and_each_bucket_has_its_own_count() {
        let period = Period { begin_unix_ns: 1, end_unix_ns: 9 };
        let metrics = of_page(PAGE, period);
        let buckets = Buckets { bounds: vec![0.001, 0.1], counts: vec![4, 2, 1], sum: 0.75 };
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let statements = vec![
            (vec![label("kind", "select"), label("note", "a \"b\", {c}\\")], 3.0),
            (vec![label("kind", "insert")], 5.0),
        ];
        assert_eq!(
            metrics,
            [
                period.histogram("ingest_ack_seconds", "s", "How long.", vec![(Vec::new(), buckets)]),
                period.counter("ingest_sql_statements", "", "By kind.", statements),
                period.gauge("ingest_pending_bytes", "By", "", vec![(Vec::new(), 12.0)]),
            ]
        );
        let Some(Data::Histogram(histogram)) = &metrics[0].data else { panic!("{metrics:?}") };
        assert_eq!((histogram.data_points[0].count, histogram.data_points[0].sum), (7, Some(0.75)));
        assert_eq!((histogram.data_points[0].start_time_unix_nano, histogram.data_points[0].time_unix_nano), (1, 9));
    }

    #[test]
    fn lines_that_are_no_samples_are_passed_over() {
        for line in ["", "name", "name{", "name{a=\"", "name{a=\"b\"}", "name{a=\"b\"} x", "{} "] {
            assert_eq!(sample(line), None, "{line}");
        }
        assert_eq!(sample("n 1 1700000000"), Some(("n", Vec::new(), 1.0)), "a time behind it does no harm");
    }
}
