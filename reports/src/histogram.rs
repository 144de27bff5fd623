//! Histograms of times: nanoseconds, fixed range 0 ns ..= 1 hour, 3 significant digits.
//!
//! Not for percentiles of percentiles: histograms are merged, and every quantile is taken from a merged or a single one.
//! The text form is HdrHistogram V2 compressed (zlib) in base64, which the Java, C, Python, Go and JavaScript libraries read.

use std::fmt;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

use crate::model::Times;

/// Largest time that is told apart, ns: one hour. Longer ones are recorded as this and counted as overflowed.
pub const TIME_NS_MAX: u64 = 3_600_000_000_000;

/// Significant decimal digits kept: a recorded value is off by less than 0.1 %.
pub const SIGNIFICANT_DIGITS: u8 = 3;

/// Longest text [`TimeHistogram::decode`] looks at, bytes. A full histogram of ours, every slot taken, is below 450 KB.
const ENCODED_BYTES_MAX: usize = 1 << 20;

/// Most bytes the inside of a text may inflate to.
const INFLATED_BYTES_MAX: usize = 1 << 20;

/// Most significant digits accepted from elsewhere: 5 would mean slots of up to 50 MB for a text of 100 bytes.
const FOREIGN_DIGITS_MAX: u32 = 4;

/// Length of the head of an inflated V2 histogram, bytes.
const V2_HEAD_BYTES: usize = 40;

/// Most samples accepted from elsewhere, so that sums cannot overflow.
const FOREIGN_COUNT_MAX: u64 = 1 << 53;

/// A histogram of times in nanoseconds.
///
/// All of its memory (270 KB) is taken by [`TimeHistogram::new`]; recording allocates nothing. 0 is a value of its own and
/// stays 0; 1 ns ..= 2047 ns are exact.
#[derive(Clone, PartialEq)]
pub struct TimeHistogram {
    counts: Histogram<u64>,
    overflowed: u64,
}

impl TimeHistogram {
    /// An empty one.
    pub fn new() -> Self {
        let counts =
            Histogram::new_with_bounds(1, TIME_NS_MAX, SIGNIFICANT_DIGITS).expect("the constant bounds are valid");
        Self { counts, overflowed: 0 }
    }

    /// Adds one time, ns. Above [`TIME_NS_MAX`] it is recorded at that bound and counted as overflowed.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        if ns > TIME_NS_MAX {
            self.overflowed += 1;
        }
        self.counts.saturating_record(ns.min(TIME_NS_MAX));
    }

    /// Adds all samples of `other`; the result is what one histogram would hold that had recorded both.
    pub fn merge(&mut self, other: &Self) {
        self.counts.add(&other.counts).expect("all TimeHistograms have the same bounds");
        self.overflowed += other.overflowed;
    }

    /// The value, ns, that the share `q` (0..=1) of the samples does not exceed; 0 when there are none.
    pub fn quantile(&self, q: f64) -> u64 {
        self.counts.value_at_quantile(q.clamp(0.0, 1.0)).min(TIME_NS_MAX)
    }

    /// Samples.
    pub fn count(&self) -> u64 {
        self.counts.len()
    }

    /// Samples that were above [`TIME_NS_MAX`].
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Arithmetic mean, ns; 0 when empty.
    pub fn mean(&self) -> f64 {
        self.counts.mean()
    }

    /// Largest sample, ns (to 3 digits, upwards); 0 when empty.
    pub fn max(&self) -> u64 {
        self.counts.max().min(TIME_NS_MAX)
    }

    /// Smallest sample, ns (to 3 digits, downwards); 0 when empty.
    pub fn min(&self) -> u64 {
        self.counts.min()
    }

    /// Samples from `low_ns` to `high_ns`, both included, to the precision of the histogram.
    pub fn count_between(&self, low_ns: u64, high_ns: u64) -> u64 {
        self.counts.count_between(low_ns, high_ns)
    }

    /// Each value that was recorded, ns, with the number of its samples; ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.counts.iter_recorded().map(|step| (step.value_iterated_to().min(TIME_NS_MAX), step.count_at_value()))
    }

    /// HdrHistogram V2 compressed, base64.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&self.counts, &mut bytes)
            .expect("writing to memory cannot fail, and counts are below 2^63");
        STANDARD.encode(bytes)
    }

    /// Reads what [`TimeHistogram::encode`] or another implementation wrote. The number of overflowed samples is not in the
    /// text; [`Times::histogram`] restores it.
    ///
    /// # Errors
    /// When the text is no such histogram, is larger than any honest one, or holds times above one hour.
    pub fn decode(text: &str) -> Result<Self, DecodeError> {
        if text.len() > ENCODED_BYTES_MAX {
            return Err(DecodeError::TooLarge);
        }
        let compressed = STANDARD.decode(text.trim()).map_err(|_| DecodeError::NotBase64)?;
        let inflated = inflate(&compressed)?;
        check_v2(&inflated)?;
        let read: Histogram<u64> = Deserializer::new()
            .deserialize(&mut inflated.as_slice())
            .map_err(|e| DecodeError::Damaged(e.to_string()))?;
        let mut histogram = Self::new();
        histogram.counts.add(&read).map_err(|_| DecodeError::OutOfRange)?;
        Ok(histogram)
    }

    /// The summary that goes into a result, with the histogram itself. `censored` samples are only known to have taken at
    /// least as long as recorded.
    pub fn times(&self, censored: u64) -> Times {
        Times {
            count: self.count(),
            censored,
            overflowed: self.overflowed,
            min_ns: self.min(),
            mean_ns: self.mean(),
            p50_ns: self.quantile(0.5),
            p90_ns: self.quantile(0.9),
            p99_ns: self.quantile(0.99),
            p999_ns: self.quantile(0.999),
            p9999_ns: self.quantile(0.9999),
            max_ns: self.max(),
            histogram: if self.count() == 0 { String::new() } else { self.encode() },
        }
    }
}

impl Default for TimeHistogram {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TimeHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeHistogram")
            .field("count", &self.count())
            .field("p50_ns", &self.quantile(0.5))
            .field("max_ns", &self.max())
            .field("overflowed", &self.overflowed)
            .finish()
    }
}

impl Times {
    /// The histogram behind the numbers; an empty text is an empty histogram.
    ///
    /// # Errors
    /// See [`TimeHistogram::decode`].
    pub fn histogram(&self) -> Result<TimeHistogram, DecodeError> {
        if self.histogram.is_empty() {
            return if self.count == 0 { Ok(TimeHistogram::new()) } else { Err(DecodeError::Missing) };
        }
        let mut histogram = TimeHistogram::decode(&self.histogram)?;
        histogram.overflowed = self.overflowed;
        Ok(histogram)
    }

    /// Quantile `q` (0..=1), ns: from the summary when it is one of those kept there, else from the histogram, else 0.
    pub fn quantile_ns(&self, q: f64) -> f64 {
        let kept = [
            (0.5, self.p50_ns),
            (0.9, self.p90_ns),
            (0.99, self.p99_ns),
            (0.999, self.p999_ns),
            (0.9999, self.p9999_ns),
        ];
        match kept.iter().find(|(known, _)| *known == q) {
            Some((_, ns)) => *ns as f64,
            None => self.histogram().map_or(0, |h| h.quantile(q)) as f64,
        }
    }
}

/// Why a text is no histogram.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There are samples, and no histogram of them.
    #[error("the result has samples but no histogram of them")]
    Missing,
    /// Not base64.
    #[error("the histogram is not base64")]
    NotBase64,
    /// Larger than any histogram of times.
    #[error("the histogram is larger than {ENCODED_BYTES_MAX} bytes")]
    TooLarge,
    /// Not HdrHistogram V2 compressed.
    #[error("the histogram is not in the format HdrHistogram V2 compressed")]
    NotV2Compressed,
    /// The format is right and the content is not.
    #[error("the histogram is damaged: {0}")]
    Damaged(String),
    /// Times above one hour.
    #[error("the histogram holds times above one hour")]
    OutOfRange,
}

fn inflate(compressed: &[u8]) -> Result<Vec<u8>, DecodeError> {
    // Cookie 0x1c849304 (the low byte's high half tells the word size, which V2 ignores), then the length of what follows.
    if compressed.len() < 8 || compressed[..4] != [0x1c, 0x84, 0x93, 0x14] {
        return Err(DecodeError::NotV2Compressed);
    }
    let mut inflated = Vec::new();
    flate2::read::ZlibDecoder::new(&compressed[8..])
        .take(INFLATED_BYTES_MAX as u64 + 1)
        .read_to_end(&mut inflated)
        .map_err(|e| DecodeError::Damaged(e.to_string()))?;
    if inflated.len() > INFLATED_BYTES_MAX { Err(DecodeError::TooLarge) } else { Ok(inflated) }
}

/// Refuses what would make hdrhistogram 7.6 panic or allocate beyond reason: it believes the length in the head, and negates
/// `i64::MIN`.
fn check_v2(bytes: &[u8]) -> Result<(), DecodeError> {
    let damaged = |why: &str| DecodeError::Damaged(why.to_owned());
    if bytes.len() < V2_HEAD_BYTES {
        return Err(damaged("it ends within its head"));
    }
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let payload = &bytes[V2_HEAD_BYTES..];
    if word(4) as usize != payload.len() {
        return Err(damaged("its length is not what its head says"));
    }
    if !(1..=FOREIGN_DIGITS_MAX).contains(&word(12)) {
        return Err(damaged("it does not keep 1 to 4 significant digits"));
    }
    let (low, high) = (long(16), long(24));
    if low == 0 || low > TIME_NS_MAX || high < low.saturating_mul(2) || high > i64::MAX as u64 {
        return Err(damaged("its bounds make no sense"));
    }
    let (mut at, mut slots, mut total) = (0, 0_u64, 0_u64);
    while at < payload.len() {
        let (number, length) = zigzag(&payload[at..]).ok_or_else(|| damaged("it ends within a number"))?;
        at += length;
        slots += if number < 0 { number.unsigned_abs().min(1 << 32) } else { 1 };
        total = total.saturating_add(number.max(0).unsigned_abs());
        if slots > 1 << 31 || total > FOREIGN_COUNT_MAX {
            return Err(damaged("it counts more than is possible"));
        }
    }
    Ok(())
}

/// One ZigZag LEB128-64b9B number and its length in bytes.
fn zigzag(bytes: &[u8]) -> Option<(i64, usize)> {
    let mut value = 0_u64;
    for (i, &byte) in bytes.iter().take(9).enumerate() {
        if i == 8 {
            value |= u64::from(byte) << 56;
        } else {
            value |= u64::from(byte & 0x7f) << (7 * i);
        }
        if i == 8 || byte & 0x80 == 0 {
            return Some(((value >> 1) as i64 ^ -((value & 1) as i64), i + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[u64]) -> TimeHistogram {
        let mut histogram = TimeHistogram::new();
        values.iter().for_each(|&ns| histogram.record(ns));
        histogram
    }

    #[test]
    fn zero_stays_zero_and_short_times_are_exact() {
        let histogram = of(&[0, 0, 0, 1, 2047]);
        assert_eq!((histogram.quantile(0.5), histogram.min(), histogram.max()), (0, 0, 2047));
        assert_eq!(histogram.iter().collect::<Vec<_>>(), [(0, 3), (1, 1), (2047, 1)]);
        assert_eq!(TimeHistogram::decode(&histogram.encode()).unwrap(), histogram);
    }

    #[test]
    fn a_time_above_an_hour_is_recorded_as_an_hour_and_counted() {
        let histogram = of(&[5, TIME_NS_MAX, TIME_NS_MAX + 1, u64::MAX]);
        assert_eq!((histogram.count(), histogram.overflowed(), histogram.max()), (4, 2, TIME_NS_MAX));
        let back = histogram.times(0).histogram().unwrap();
        assert_eq!(back, histogram);
    }

    #[test]
    fn an_empty_histogram_is_an_empty_text() {
        let times = TimeHistogram::new().times(0);
        assert_eq!((times.histogram.as_str(), times.p99_ns, times.mean_ns), ("", 0, 0.0));
        assert_eq!(times.histogram().unwrap().count(), 0);
    }

    #[test]
    fn samples_without_a_histogram_are_an_error() {
        assert_eq!(Times { count: 3, ..Times::default() }.histogram(), Err(DecodeError::Missing));
    }

    /// `[1, 1000]` with 3 digits and the bound of an hour, laid out by hand after the published V2 format.
    #[test]
    fn the_text_form_is_the_published_v2_format() {
        let bytes = STANDARD.decode(of(&[1, 1000]).encode()).unwrap();
        let inflated = inflate(&bytes).unwrap();
        let mut expected = vec![0x1c, 0x84, 0x93, 0x13, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 3];
        expected.extend(1_u64.to_be_bytes());
        expected.extend(TIME_NS_MAX.to_be_bytes());
        expected.extend(1.0_f64.to_be_bytes());
        expected.extend([0, 2, 0xcb, 0x0f, 2]); // a lone zero, 1, 998 zeros, 1 (ZigZag: 0→0, 1→2, −998→1995, 1→2)
        assert_eq!(inflated, expected);
    }

    fn wrap(inflated: &[u8]) -> String {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, inflated).unwrap();
        let body = encoder.finish().unwrap();
        let mut bytes = vec![0x1c, 0x84, 0x93, 0x14];
        bytes.extend((body.len() as u32).to_be_bytes());
        bytes.extend(body);
        STANDARD.encode(bytes)
    }

    fn head(payload_bytes: u32, digits: u32, low: u64, high: u64) -> Vec<u8> {
        let mut bytes = vec![0x1c, 0x84, 0x93, 0x13];
        bytes.extend(payload_bytes.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(digits.to_be_bytes());
        bytes.extend(low.to_be_bytes());
        bytes.extend(high.to_be_bytes());
        bytes.extend(1.0_f64.to_be_bytes());
        bytes
    }

    #[test]
    fn hostile_texts_are_errors() {
        let with = |mut bytes: Vec<u8>, payload: &[u8]| {
            bytes.extend(payload);
            wrap(&bytes)
        };
        let cases = [
            ("nothing", String::new()),
            ("no base64", "~".repeat(20)),
            ("base64 of something else", STANDARD.encode("hello, hello, hello")),
            ("too long", "A".repeat(ENCODED_BYTES_MAX + 4)),
            ("a bomb", wrap(&vec![0; 500_000_000])),
            ("cut within its head", wrap(&head(0, 3, 1, 1000)[..20])),
            ("a length of 4 GB", with(head(u32::MAX, 3, 1, TIME_NS_MAX), &[2])),
            ("five digits", with(head(1, 5, 1, u64::MAX / 2), &[2])),
            ("bounds turned round", with(head(1, 3, 100, 50), &[2])),
            ("the negation of i64::MIN", with(head(9, 3, 1, TIME_NS_MAX), &[0xff; 9])),
            ("zeros beyond the end", with(head(6, 3, 1, 1000), &[0xff, 0xff, 0xff, 0x7f, 2, 2])),
            ("a number cut off", with(head(1, 3, 1, TIME_NS_MAX), &[0x80])),
            ("more counts than fit", with(head(18, 3, 1, TIME_NS_MAX), &[[0xfe; 9], [0xfe; 9]].concat())),
            ("times above an hour", {
                let mut long = Histogram::<u64>::new_with_bounds(1, TIME_NS_MAX * 8, 3).unwrap();
                long.record(TIME_NS_MAX * 4).unwrap();
                let mut bytes = Vec::new();
                V2DeflateSerializer::new().serialize(&long, &mut bytes).unwrap();
                STANDARD.encode(bytes)
            }),
        ];
        for (name, text) in cases {
            assert!(TimeHistogram::decode(&text).is_err(), "{name} was accepted");
        }
    }

    #[test]
    fn a_length_that_is_not_there_is_refused_before_anything_is_allocated() {
        let mut bytes = head(u32::MAX, 3, 1, TIME_NS_MAX);
        bytes.push(2);
        let damaged = DecodeError::Damaged("its length is not what its head says".to_owned());
        assert_eq!(TimeHistogram::decode(&wrap(&bytes)).unwrap_err(), damaged);
    }

    #[test]
    fn a_histogram_with_other_bounds_and_digits_is_read() {
        let mut foreign = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 2).unwrap();
        [150_000, 150_000, 2_000_000].iter().for_each(|&ns| foreign.record(ns).unwrap());
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&foreign, &mut bytes).unwrap();
        let read = TimeHistogram::decode(&STANDARD.encode(bytes)).unwrap();
        assert_eq!(read.count(), 3);
        assert!(read.quantile(0.5).abs_diff(150_000) < 1_500, "{read:?}");
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read_back_exactly_also_when_merged(
            a in proptest::collection::vec(0_u64..TIME_NS_MAX * 2, 0..200),
            b in proptest::collection::vec(0_u64..5_000_000, 0..200),
        ) {
            let mut merged = of(&b);
            merged.merge(&of(&a));
            prop_assert_eq!(&merged, &of(&[b, a].concat()));
            prop_assert_eq!(merged.times(0).histogram().unwrap(), merged);
        }

        #[test]
        fn quantiles_are_within_a_thousandth_of_the_exact_ones(mut values in proptest::collection::vec(0_u64..TIME_NS_MAX, 1..300), q in 0.0_f64..1.0) {
            let histogram = of(&values);
            values.sort_unstable();
            let rank = ((q * values.len() as f64).ceil() as usize).max(1);
            let exact = values[rank - 1];
            prop_assert!(histogram.quantile(q).abs_diff(exact) <= exact / 1000 + 1);
        }

        #[test]
        fn no_bytes_make_it_panic(inflated in proptest::collection::vec(any::<u8>(), 0..80), digits in 0_u32..7, low in any::<u64>(), high in any::<u64>()) {
            let mut bytes = head(inflated.len() as u32, digits, low >> (low % 64), high >> (high % 64));
            bytes.extend(&inflated);
            let _ = TimeHistogram::decode(&wrap(&bytes));
            let _ = TimeHistogram::decode(&wrap(&inflated));
        }
    }
}
