//! A HdrHistogram log, format version 1.3: response times by interval, and the other distributions of each result over the whole phase.
//! Values are nanoseconds; `Interval_Max` is in milliseconds, as the format's readers expect of times.

use crate::histogram::DecodeError;
use crate::model::{Run, Times};
use crate::summary;

/// Nanoseconds in the unit of `Interval_Max`.
const MAX_UNIT_NS: f64 = 1e6;

/// One line.
struct Line<'a> {
    tag: String,
    offset_ms: u64,
    length_ms: u64,
    times: &'a Times,
}

/// The run.
///
/// # Errors
/// When a histogram is damaged: it is handed on as it is.
pub fn hlog(run: &Run) -> Result<String, DecodeError> {
    let mut lines = lines(run);
    // Readers expect intervals in the order of time; a stable sort keeps what begins together in the order of the run.
    lines.sort_by_key(|line| line.offset_ms);
    let mut text = format!(
        "#[Logged with {} {}]\n#[Histogram log format version 1.3]\n#[Time 0 is the begin of each result's steady phase]\n\
         #[StartTime: 0.000 (seconds since epoch)]\n\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
        run.tool.name, run.tool.version
    );
    for line in lines {
        // Whoever reads it must be able to.
        line.times.histogram()?;
        text += &format!(
            "Tag={},{:.3},{:.3},{:.3},{}\n",
            line.tag,
            line.offset_ms as f64 / 1e3,
            line.length_ms as f64 / 1e3,
            line.times.max_ns as f64 / MAX_UNIT_NS,
            line.times.histogram
        );
    }
    Ok(text)
}

fn lines(run: &Run) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for r in &run.results {
        let tag = |quantity: &str| tag(&format!("{}#{}:{quantity}", r.target, r.repetition));
        let whole_ms = (r.load.seconds * 1e3).round() as u64;
        let whole = |quantity: &str, times| Line { tag: tag(quantity), offset_ms: 0, length_ms: whole_ms, times };
        lines.push(whole("response_time_whole", &r.load.response_time));
        lines.push(whole("service_time_whole", &r.load.service_time));
        lines.push(whole("send_delay_whole", &r.load.send_delay));
        lines.extend(summary::time_to_durable(r).map(|times| whole("time_to_durable_whole", times)));
        lines.extend(r.load.intervals.iter().map(|interval| Line {
            tag: tag("response_time"),
            offset_ms: interval.offset_ms,
            length_ms: interval.length_ms,
            times: &interval.response_time,
        }));
    }
    // A result of somebody else may lack what is behind its numbers.
    lines.retain(|line| !line.times.histogram.is_empty());
    lines
}

/// As the format wants a tag: no comma, no white space.
fn tag(text: &str) -> String {
    text.chars().map(|c| if c == ',' || c.is_whitespace() || c.is_control() { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::fixtures;

    /// By the reader of the crate hdrhistogram: tag, offset, samples.
    fn read(text: &str) -> Vec<(String, f64, u64)> {
        let entries = IntervalLogIterator::new(text.as_bytes()).map(|entry| entry.expect("a line of the format"));
        let intervals = entries.filter_map(|entry| match entry {
            LogEntry::Interval(interval) => Some(interval),
            _ => None,
        });
        let of = |interval: hdrhistogram::serialization::interval_log::IntervalLogHistogram<'_>| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(interval.encoded_histogram()).unwrap();
            let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
            let tag = interval.tag().expect("a tag").as_str().to_owned();
            (tag, interval.start_timestamp().as_secs_f64(), histogram.len())
        };
        intervals.map(of).collect()
    }

    #[test]
    fn another_reader_finds_every_interval_in_order_with_its_samples() {
        let run = fixtures::three_modes();
        let read = read(&hlog(&run).unwrap());
        assert!(read.is_sorted_by(|a, b| a.1 <= b.1), "in the order of time");
        for result in &run.results {
            let tag = format!("{}#{}:response_time", result.target, result.repetition);
            let counts: Vec<u64> = read.iter().filter(|(known, ..)| *known == tag).map(|(.., count)| *count).collect();
            let expected: Vec<u64> = result.load.intervals.iter().map(|it| it.response_time.count).collect();
            assert!(!expected.is_empty() && counts == expected, "{tag}: {counts:?}");
            let whole = read.iter().find(|(known, ..)| *known == format!("{tag}_whole")).expect("a line");
            assert_eq!(whole.2, result.load.response_time.count);
        }
    }

    #[test]
    fn a_name_with_what_a_tag_must_not_have_is_still_read() {
        let mut run = fixtures::small();
        run.results[0].target = "a, b\nc".to_owned();
        let read = read(&hlog(&run).unwrap());
        assert!(read.iter().any(|(tag, ..)| tag == "a__b_c#1:response_time_whole"), "{read:?}");
    }
}
