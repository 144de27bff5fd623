//! Reads the little of Prometheus' text format that is needed: the value of a metric, summed over its labels.

/// One scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Scrape {
    /// Reads a whole answer; lines that are no samples are passed over, because a target may export whatever it likes.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self { samples: lines.filter_map(Sample::parse).collect() }
    }

    /// The sum over all label sets; `None` when the target has no such metric.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.sum(self.samples.iter().filter(|sample| sample.name == name))
    }

    /// The sum over the label sets in which `label` has this value.
    pub fn get_where(&self, name: &str, label: &str, value: &str) -> Option<f64> {
        let matching = |sample: &&Sample| sample.name == name && sample.label(label) == Some(value);
        self.sum(self.samples.iter().filter(matching))
    }

    /// A label of an `_info` metric.
    pub fn label(&self, name: &str, label: &str) -> Option<&str> {
        self.samples.iter().find(|sample| sample.name == name)?.label(label)
    }

    /// Two labels of each sample of a metric.
    pub fn pairs(&self, name: &str, first: &str, second: &str) -> Vec<(String, String)> {
        let samples = self.samples.iter().filter(|sample| sample.name == name);
        samples.filter_map(|sample| Some((sample.label(first)?.to_owned(), sample.label(second)?.to_owned()))).collect()
    }

    fn sum<'a>(&self, samples: impl Iterator<Item = &'a Sample>) -> Option<f64> {
        samples.map(|sample| sample.value).reduce(|sum, value| sum + value)
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let (series, rest) = match line.find('{') {
            // A label value may hold spaces and braces; the last brace ends the labels.
            Some(_) => line.split_at(line.rfind('}')? + 1),
            None => line.split_at(line.find(' ')?),
        };
        let value = rest.split_whitespace().next()?.parse().ok()?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split("\",").filter_map(|label| label.split_once("=\""));
        let labels = labels.map(|(key, value)| (key.to_owned(), value.trim_end_matches('"').to_owned()));
        Some(Self { name: name.to_owned(), labels: labels.collect(), value })
    }

    fn label(&self, label: &str) -> Option<&str> {
        self.labels.iter().find(|(key, _)| key == label).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_one_name_are_summed_over_their_labels() {
        let scrape = Scrape::parse(
            "# HELP polls_total polls\n# TYPE polls_total counter\n\
             polls_total{source=\"memory\",state=\"empty\"} 3\npolls_total{source=\"store {x}\",state=\"full\"} 4 1700000000\n\
             interval_seconds 0.1\nbuild_info{version=\"1.2.3\",mode=\"a, b\"} 1\nnonsense\n# EOF\n",
        );
        assert_eq!(scrape.get("polls_total"), Some(7.0));
        assert_eq!(scrape.get_where("polls_total", "state", "full"), Some(4.0));
        assert_eq!(scrape.get_where("polls_total", "state", "partial"), None);
        assert_eq!(scrape.get("interval_seconds"), Some(0.1));
        assert_eq!(scrape.get("nonsense"), None);
        assert_eq!(scrape.label("build_info", "version"), Some("1.2.3"));
        assert_eq!(scrape.label("build_info", "mode"), Some("a, b"));
        let pairs = [("memory", "empty"), ("store {x}", "full")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(scrape.pairs("polls_total", "source", "state"), pairs);
    }
}
