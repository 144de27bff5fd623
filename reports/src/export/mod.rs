//! A run or a gate in the formats of other tools. Each is made from `run.v1` or `gate.v1` alone, and read by a reader that is not ours in the
//! tests of this module or in `scripts/exports`.

mod csv;
mod hlog;
mod junit;
mod markdown;
mod numbers;
mod openmetrics;
mod trackers;

use crate::gate::model::Gate;
use crate::gate::show;
use crate::histogram::DecodeError;
use crate::model::Run;

pub use self::csv::csv;
pub use self::junit::junit;
pub use self::markdown::{COMMENT_BYTES_MAX, COMMENT_MARK, SUMMARY_BYTES_MAX};
pub(crate) use self::numbers::is_known;

/// What a run can be made into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Markdown for the summary of a CI job: at most [`SUMMARY_BYTES_MAX`].
    Markdown,
    /// Markdown for a comment on a pull request: at most [`COMMENT_BYTES_MAX`], and it begins with [`COMMENT_MARK`].
    MarkdownComment,
    /// JUnit XML.
    Junit,
    /// Bencher Metric Format.
    Bmf,
    /// For github-action-benchmark: what is better smaller.
    GithubSmaller,
    /// For github-action-benchmark: what is better bigger.
    GithubBigger,
    /// Comma-separated values: one row a result, and one an interval of it.
    Csv,
    /// A HdrHistogram log, version 1.3, of response times.
    Hlog,
    /// OpenMetrics text 1.0.
    OpenMetrics,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Markdown,
        Self::MarkdownComment,
        Self::Junit,
        Self::Bmf,
        Self::GithubSmaller,
        Self::GithubBigger,
        Self::Csv,
        Self::Hlog,
        Self::OpenMetrics,
    ];

    /// As a command line spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Markdown => "markdown",
            Self::MarkdownComment => "markdown-comment",
            Self::Junit => "junit",
            Self::Bmf => "bmf",
            Self::GithubSmaller => "github-smaller",
            Self::GithubBigger => "github-bigger",
            Self::Csv => "csv",
            Self::Hlog => "hlog",
            Self::OpenMetrics => "openmetrics",
        }
    }

    /// The format of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

/// The run in this format.
///
/// # Errors
/// When a histogram of the result, which `hlog` hands on, is damaged.
pub fn export(run: &Run, format: Format) -> Result<String, DecodeError> {
    Ok(match format {
        Format::Markdown => markdown::summary(run),
        Format::MarkdownComment => markdown::comment(run),
        Format::Junit => junit(run),
        Format::Bmf => trackers::bmf(run),
        Format::GithubSmaller => trackers::github(run, numbers::Better::Smaller),
        Format::GithubBigger => trackers::github(run, numbers::Better::Bigger),
        Format::Csv => csv(run),
        Format::Hlog => hlog::hlog(run)?,
        Format::OpenMetrics => openmetrics::openmetrics(run),
    })
}

/// The decision of a gate in this format; `None`: a gate keeps no histograms, and `hlog` is made of those.
pub fn export_gate(gate: &Gate, format: Format) -> Option<String> {
    Some(match format {
        Format::Markdown => show::markdown(gate),
        Format::MarkdownComment => format!("{COMMENT_MARK}\n{}", show::markdown(gate)),
        Format::Junit => junit::of_gate(gate),
        Format::Bmf => trackers::gate_bmf(gate),
        Format::GithubSmaller => trackers::gate_github(gate, numbers::Better::Smaller),
        Format::GithubBigger => trackers::gate_github(gate, numbers::Better::Bigger),
        Format::Csv => csv::of_gate(gate),
        Format::Hlog => return None,
        Format::OpenMetrics => openmetrics::of_gate(gate),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn every_fixture_can_be_made_into_every_format() {
        for (name, run) in fixtures::all() {
            for format in Format::ALL {
                let text = export(&run, format).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(!text.is_empty(), "{name} as {}", format.name());
                assert_eq!(Format::from_name(format.name()), Some(format));
            }
        }
    }

    fn a_gate() -> Gate {
        let text = include_str!("../../../regressions/cpu-20-percent/gate.json");
        crate::gate::file::read(text).unwrap()
    }

    #[test]
    fn a_gate_can_be_made_into_every_format_but_that_of_histograms() {
        for format in Format::ALL {
            let text = export_gate(&a_gate(), format);
            assert_eq!(text.is_none(), format == Format::Hlog, "{}", format.name());
            assert!(text.is_none_or(|text| !text.is_empty()), "{}", format.name());
        }
    }

    #[test]
    fn a_regressed_metric_is_a_failure_and_an_open_one_no_pass() {
        let text = export_gate(&a_gate(), Format::Junit).unwrap();
        assert!(text.contains("tests=\"7\" failures=\"3\" errors=\"0\" skipped=\"1\""), "{text}");
        assert!(text.contains("name=\"CPU per event\">\n      <failure message="), "{text}");
        assert!(text.contains("name=\"response time p99\">\n      <skipped message=\"inconclusive: "), "{text}");
    }

    #[test]
    fn each_round_of_a_gate_is_a_row() {
        let gate = a_gate();
        let text = export_gate(&gate, Format::Csv).unwrap();
        let again = gate.confirmation.as_ref().map_or(0, |confirmation| confirmation.pairs.len());
        assert_eq!(text.lines().count(), 1 + 2 * (gate.pairs.len() + again));
        let first = text.lines().nth(1).unwrap();
        let p50 = gate.pairs[0].baseline.response_time_ns_p50.unwrap();
        assert!(first.contains(",pair,1,") && first.contains(&format!(",{p50},")), "{first}");
    }

    #[test]
    fn trackers_keep_the_side_that_stays() {
        let text = export_gate(&a_gate(), Format::GithubSmaller).unwrap();
        assert!(text.contains("\"candidate server-cpu-per-event\"") && !text.contains("baseline"), "{text}");
        let text = export_gate(&a_gate(), Format::Bmf).unwrap();
        assert!(text.contains("\"baseline\"") && text.contains("\"candidate\""), "{text}");
    }
}
