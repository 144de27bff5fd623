//! A recorded timeline: when each event came, and how large it was, out of a CSV file.
//!
//! A header line names the columns: `offset_s` (or `offset_ms`, `offset_us`, `offset_ns`), counted from the begin of the recording, and
//! `payload_bytes`, which may be missing, as a column or in single rows. Split at commas by hand rather than with a crate: numbers have
//! none inside, quotes, CRLF and a byte-order mark are cut off, and the line of a mistake is known also after empty lines (the `csv` crate
//! names the line where it began to look for the row). Memory: 16 bytes a row.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Rows of one recording: 160 MB of memory.
pub const ROWS_MAX: usize = 10_000_000;
/// Bytes of one line, of which two numbers need far fewer: a file without line ends must not fill the memory.
const LINE_BYTES_MAX: u64 = 1_024;
/// Characters of a mistake that are shown.
const SHOWN_MAX: usize = 80;
/// Longest recording, after it was sped up: a phase may be as long.
const LENGTH_NS_MAX: f64 = 24.0 * 3_600.0 * 1e9;

const SIZE_COLUMN: &str = "payload_bytes";
const OFFSET_COLUMNS: [(&str, f64); 4] =
    [("offset_s", 1e9), ("offset_ms", 1e6), ("offset_us", 1e3), ("offset_ns", 1.0)];

/// One recorded event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// When it came, nanoseconds after the begin of the recording.
    pub offset_ns: u64,
    /// Size of its JSON payload, bytes; `None`: not recorded.
    pub payload_bytes: Option<NonZeroU32>,
}

/// A recording, in the order of time; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    rows: Vec<Row>,
    payloads_raised: u64,
}

/// A file is no recording.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Not there, or not readable.
    #[error("cannot read the recording {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The header line does not name what is needed.
    #[error(
        "{path}, line {line}: the header is '{found}': {problem}; allowed: one of offset_s, offset_ms, offset_us, offset_ns, and payload_bytes \
         if sizes were recorded"
    )]
    Header {
        /// The file.
        path: PathBuf,
        /// Line of the file, from 1.
        line: u64,
        /// The header line.
        found: String,
        /// What is wrong with it.
        problem: String,
    },
    /// One row cannot be followed.
    #[error("{path}, line {line}: {problem}")]
    Row {
        /// The file.
        path: PathBuf,
        /// Line of the file, from 1.
        line: u64,
        /// What was found, what is wrong with it, and what to do.
        problem: String,
    },
    /// A header and nothing else, or not even that.
    #[error("{path} has no rows: there is nothing to replay")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// More than [`ROWS_MAX`].
    #[error(
        "{path}, line {line}: more than {ROWS_MAX} rows, the most that are kept in memory; cut the recording in parts"
    )]
    TooManyRows {
        /// The file.
        path: PathBuf,
        /// Line of the first one too many.
        line: u64,
    },
}

impl Timeline {
    /// Reads a recording, `speed` (greater than 0) times as fast as it was made. Payload sizes below `sizes` are raised to its begin
    /// and counted; larger ones are an error.
    ///
    /// # Errors
    /// When the file cannot be read, its header does not name the columns, a row is not a number, goes back in time, is later than
    /// 24 h or has too large a payload, or there are none or more than [`ROWS_MAX`] rows.
    pub fn read(path: &Path, speed: f64, sizes: RangeInclusive<u32>) -> Result<Self, ReplayError> {
        Reading::open(path, speed, sizes, ROWS_MAX)?.timeline()
    }

    /// A recording of these rows, which are in the order of time and at least one.
    pub fn new(rows: Vec<Row>) -> Self {
        Self { rows, payloads_raised: 0 }
    }

    /// The events.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// When the last event came, nanoseconds after the begin of the recording.
    pub fn last_ns(&self) -> u64 {
        self.rows.last().map_or(0, |row| row.offset_ns)
    }

    /// Payloads that had to be made larger.
    pub fn payloads_raised(&self) -> u64 {
        self.payloads_raised
    }

    /// Median of the recorded payload sizes, bytes (the lower one of two); `None`: none was recorded.
    pub fn payload_bytes_median(&self) -> Option<u32> {
        let mut sizes: Vec<u32> = self.sizes().collect();
        let middle = sizes.len().checked_sub(1)? / 2;
        Some(*sizes.select_nth_unstable(middle).1)
    }

    /// Largest recorded payload size, bytes.
    pub fn payload_bytes_max(&self) -> Option<u32> {
        self.sizes().max()
    }

    fn sizes(&self) -> impl Iterator<Item = u32> {
        self.rows.iter().filter_map(|row| row.payload_bytes).map(NonZeroU32::get)
    }

    /// A recording without sizes.
    #[cfg(test)]
    pub fn of_offsets_ns(offsets_ns: &[u64]) -> Self {
        Self::new(offsets_ns.iter().map(|&offset_ns| Row { offset_ns, payload_bytes: None }).collect())
    }
}

/// A file that is being read.
struct Reading<'a> {
    path: &'a Path,
    lines: Lines,
    columns: Columns,
    sizes: RangeInclusive<u32>,
    rows_max: usize,
}

/// What the header says.
struct Columns {
    count: usize,
    /// Column, its name, and nanoseconds of its unit in the time of the replay.
    offset: (usize, &'static str, f64),
    size: Option<usize>,
}

impl<'a> Reading<'a> {
    fn open(path: &'a Path, speed: f64, sizes: RangeInclusive<u32>, rows_max: usize) -> Result<Self, ReplayError> {
        let unreadable = |source| ReplayError::Unreadable { path: path.to_owned(), source };
        let mut lines =
            Lines { file: BufReader::new(File::open(path).map_err(unreadable)?), number: 0, line: Vec::new() };
        let header = lines.next_row().map_err(unreadable)?;
        let header = header.ok_or_else(|| ReplayError::Empty { path: path.to_owned() })?;
        let header = header.trim_start_matches('\u{feff}').to_owned();
        let columns = Columns::named_by(&header, speed);
        let columns = columns.map_err(|problem| {
            let (path, found) = (path.to_owned(), shortened(&header));
            ReplayError::Header { path, line: lines.number, found, problem }
        })?;
        Ok(Self { path, lines, columns, sizes, rows_max })
    }

    fn timeline(mut self) -> Result<Timeline, ReplayError> {
        let (path, sizes) = (self.path.to_owned(), self.sizes);
        let mut timeline = Timeline::new(Vec::new());
        loop {
            let row = match self.lines.next_row() {
                Ok(Some(row)) => self.columns.read(&row, timeline.last_ns(), &sizes),
                Ok(None) if timeline.rows.is_empty() => return Err(ReplayError::Empty { path }),
                Ok(None) => return Ok(timeline),
                Err(source) => return Err(ReplayError::Unreadable { path, source }),
            };
            let line = self.lines.number;
            let (row, raised) = row.map_err(|problem| ReplayError::Row { path: path.clone(), line, problem })?;
            if timeline.rows.len() == self.rows_max {
                return Err(ReplayError::TooManyRows { path, line });
            }
            timeline.rows.push(row);
            timeline.payloads_raised += u64::from(raised);
        }
    }
}

impl Columns {
    /// What a header line says; else what is wrong with it.
    fn named_by(header: &str, speed: f64) -> Result<Self, String> {
        let (mut count, mut offset, mut size) = (0, None, None);
        for (column, name) in cells(header).enumerate() {
            count += 1;
            let unit = OFFSET_COLUMNS.into_iter().find(|(known, _)| *known == name);
            let again = match unit {
                Some((name, unit_ns)) => offset.replace((column, name, unit_ns / speed)).is_some(),
                None if name == SIZE_COLUMN => size.replace(column).is_some(),
                None => return Err(format!("the column '{}' is unknown", shortened(name))),
            };
            if again {
                return Err(format!("'{name}' says again what another column says"));
            }
        }
        let offset = offset.ok_or_else(|| "no column says when events came".to_owned())?;
        Ok(Self { count, offset, size })
    }

    /// One row, and whether its size had to be raised; else what is wrong with it.
    fn read(&self, row: &str, last_ns: u64, sizes: &RangeInclusive<u32>) -> Result<(Row, bool), String> {
        let mut offset = "";
        let mut size = "";
        let mut count = 0;
        for (column, cell) in cells(row).enumerate() {
            count += 1;
            if column == self.offset.0 {
                offset = cell;
            } else if Some(column) == self.size {
                size = cell;
            }
        }
        if count != self.count {
            return Err(format!("'{}' is {count} columns, and the header has {}", shortened(row), self.count));
        }
        let offset_ns = self.offset_ns(offset, last_ns)?;
        let (payload_bytes, raised) = payload_bytes(size, sizes)?;
        Ok((Row { offset_ns, payload_bytes }, raised))
    }

    fn offset_ns(&self, cell: &str, last_ns: u64) -> Result<u64, String> {
        let (_, name, unit_ns) = self.offset;
        let refuse = |problem: &str| Err(format!("{name} is '{}': {problem}", shortened(cell)));
        let Some(offset) = cell.parse::<f64>().ok().filter(|offset| offset.is_finite() && *offset >= 0.0) else {
            return refuse("write a number that is not negative");
        };
        // Exact to a nanosecond: a double has more whole numbers than 24 h have of them.
        let offset_ns = (offset * unit_ns).round();
        if offset_ns > LENGTH_NS_MAX {
            return refuse(
                "it is later than 24 h, the longest replay; count from the begin of the recording (subtract the time of the first row from \
                 each), or replay faster with --replay-speed",
            );
        }
        let offset_ns = offset_ns as u64;
        if offset_ns < last_ns {
            return refuse("it is earlier than the row before it; sort the rows by time");
        }
        Ok(offset_ns)
    }
}

/// The size to send, and whether it had to be raised.
fn payload_bytes(cell: &str, sizes: &RangeInclusive<u32>) -> Result<(Option<NonZeroU32>, bool), String> {
    if cell.is_empty() {
        return Ok((None, false));
    }
    let (min, max) = (*sizes.start(), *sizes.end());
    match cell.parse::<u32>().ok().filter(|&bytes| bytes <= max) {
        Some(bytes) => Ok((NonZeroU32::new(bytes.max(min)), bytes < min)),
        None => Err(format!(
            "{SIZE_COLUMN} is '{}': write a whole number of bytes, at most {max}, or nothing",
            shortened(cell)
        )),
    }
}

fn cells(line: &str) -> impl Iterator<Item = &str> {
    line.split(',').map(|cell| cell.trim().trim_matches('"').trim())
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Lines that are not empty, with their numbers.
struct Lines {
    file: BufReader<File>,
    /// Of the last line that was read, from 1.
    number: u64,
    line: Vec<u8>,
}

impl Lines {
    fn next_row(&mut self) -> io::Result<Option<Cow<'_, str>>> {
        loop {
            self.line.clear();
            self.number += 1;
            if self.file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line)? == 0 {
                return Ok(None);
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        Ok(Some(String::from_utf8_lossy(self.line.trim_ascii())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: RangeInclusive<u32> = 37..=262_144;

    fn with_file<T>(text: &[u8], read: impl FnOnce(&Path) -> T) -> T {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("r.csv");
        std::fs::write(&path, text).expect("a file");
        read(&path)
    }

    fn read(text: &[u8], speed: f64) -> Result<Timeline, ReplayError> {
        with_file(text, |path| Timeline::read(path, speed, SIZES))
    }

    fn offsets_ns(text: &str, speed: f64) -> Vec<u64> {
        let timeline = read(text.as_bytes(), speed).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        timeline.rows().iter().map(|row| row.offset_ns).collect()
    }

    #[test]
    fn the_header_names_the_unit() {
        for (text, expected) in [
            ("offset_s\n0\n0.25\n1.000000001\n", [0, 250_000_000, 1_000_000_001]),
            ("offset_ms\n0\n0.25\n1e3\n", [0, 250_000, 1_000_000_000]),
            ("offset_us\n0\n0.25\n7\n", [0, 250, 7_000]),
            ("offset_ns\n0\n3\n86400000000000\n", [0, 3, 86_400_000_000_000]),
        ] {
            assert_eq!(offsets_ns(text, 1.0), expected, "{text:?}");
        }
    }

    #[test]
    fn what_spreadsheets_write_is_read() {
        for text in [
            "offset_s,payload_bytes\n0,100\n1,200",
            "payload_bytes,offset_s\r\n100,0\r\n200,1\r\n",
            "\u{feff}\"offset_s\",\"payload_bytes\"\n\"0\",\"100\"\n\n\"1\",\"200\"\n",
            " offset_s , payload_bytes \n 0 , 100\n 1 , 200 \n",
        ] {
            let timeline = read(text.as_bytes(), 1.0).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            let rows: Vec<_> =
                timeline.rows().iter().map(|row| (row.offset_ns, row.payload_bytes.map(NonZeroU32::get))).collect();
            assert_eq!(rows, [(0, Some(100)), (1_000_000_000, Some(200))], "{text:?}");
            assert_eq!((timeline.payload_bytes_median(), timeline.payload_bytes_max()), (Some(100), Some(200)));
        }
    }

    #[test]
    fn speed_scales_time() {
        assert_eq!(offsets_ns("offset_s\n0\n1\n3\n", 2.0), [0, 500_000_000, 1_500_000_000]);
        assert_eq!(offsets_ns("offset_s\n0\n1\n3\n", 0.5), [0, 2_000_000_000, 6_000_000_000]);
    }

    #[test]
    fn sizes_may_be_missing_and_small_ones_are_raised_and_counted() {
        let timeline = read(b"offset_s,payload_bytes\n0,\n0,5\n1,0\n2,400\n", 1.0).expect("a recording");
        let sizes: Vec<_> = timeline.rows().iter().map(|row| row.payload_bytes.map(NonZeroU32::get)).collect();
        assert_eq!(sizes, [None, Some(37), Some(37), Some(400)]);
        assert_eq!(timeline.payloads_raised(), 2);
        let without = read(b"offset_s\n0\n", 1.0).expect("a recording");
        assert_eq!((without.payload_bytes_median(), without.payloads_raised()), (None, 0));
    }

    #[test]
    fn what_is_wrong_is_said_with_file_line_and_what_was_found() {
        for (text, expected) in [
            ("", "r.csv has no rows"),
            ("0\n1\n", "line 1: the header is '0': the column '0' is unknown; allowed: one of offset_s, offset_ms"),
            ("offset_s,payload_byte\n0,1\n", "the column 'payload_byte' is unknown"),
            ("payload_bytes\n1\n", "no column says when events came"),
            ("offset_s,offset_ms\n1,1\n", "'offset_ms' says again what another column says"),
            ("offset_s\n", "r.csv has no rows"),
            ("offset_s\n0\nx\n", "r.csv, line 3: offset_s is 'x': write a number that is not negative"),
            ("offset_s\n0\n\n-1\n", "line 4: offset_s is '-1': write a number"),
            ("offset_s\n0\ninf\n", "line 3: offset_s is 'inf': write a number"),
            ("offset_s\nNaN\n", "line 2: offset_s is 'NaN': write a number"),
            ("offset_ms\n5\n4.9\n", "line 3: offset_ms is '4.9': it is earlier than the row before it; sort"),
            ("offset_s\n1700000000\n", "line 2: offset_s is '1700000000': it is later than 24 h"),
            (
                "offset_s,payload_bytes\n0,262145\n",
                "payload_bytes is '262145': write a whole number of bytes, at most 262144",
            ),
            ("offset_s,payload_bytes\n0,1.5\n", "payload_bytes is '1.5': write a whole number"),
            ("offset_s,payload_bytes\n0\n", "line 2: '0' is 1 columns, and the header has 2"),
            ("offset_s\n0,\n", "line 2: '0,' is 2 columns, and the header has 1"),
            ("offset_s;payload_bytes\n0;1\n", "the column 'offset_s;payload_bytes' is unknown"),
        ] {
            let message = read(text.as_bytes(), 1.0).expect_err(text).to_string();
            assert!(message.contains(expected) && message.contains("r.csv"), "{text:?}: {message}");
        }
        let message = read(b"offset_s\n\xff\n", 1.0).expect_err("no text").to_string();
        assert!(message.contains("line 2"), "{message}");
        let missing = Timeline::read(Path::new("/no/such.csv"), 1.0, SIZES).expect_err("no file").to_string();
        assert!(missing.contains("cannot read the recording /no/such.csv"), "{missing}");
    }

    #[test]
    fn a_recording_of_too_many_rows_is_refused_and_a_row_takes_16_bytes() {
        let limited = |text: &[u8]| with_file(text, |path| Reading::open(path, 1.0, SIZES, 2)?.timeline());
        assert_eq!(limited(b"offset_s\n0\n1\n").expect("two rows").rows().len(), 2);
        let message = limited(b"offset_s\n0\n1\n2\n").expect_err("three rows").to_string();
        assert!(message.contains("line 4: more than 10000000 rows"), "{message}");
        assert_eq!(size_of::<Row>(), 16);
    }
}
