//! Response times in a few dozen buckets, four to each factor of two: what the live heat map is made of. Fixed in size, so that the running
//! numbers can be copied whole; what is reported comes from the histograms.

use std::ops::Range;

/// How many.
pub const COUNT: usize = 96;

/// The first one holds everything below 2 to this power, ns (16 µs), and a quarter more.
const OCTAVE_FIRST: u32 = 14;

/// Buckets for a factor of two.
pub const PER_OCTAVE: usize = 4;

/// Counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets([u32; COUNT]);

impl Default for Buckets {
    fn default() -> Self {
        Self([0; COUNT])
    }
}

impl Buckets {
    /// Counts one time.
    pub fn add(&mut self, ns: u64) {
        let count = &mut self.0[bucket_of(ns)];
        *count = count.wrapping_add(1);
    }

    /// What came since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = *self;
        since.0.iter_mut().zip(earlier.0).for_each(|(count, earlier)| *count = count.wrapping_sub(earlier));
        since
    }

    /// How many are in these buckets together; what is beyond the last one counts as 0.
    pub fn count(&self, buckets: Range<usize>) -> u64 {
        self.0.iter().skip(buckets.start).take(buckets.len()).map(|count| u64::from(*count)).sum()
    }

    /// From the first bucket that has any to after the last one; `None`: all are empty.
    pub fn occupied(&self) -> Option<Range<usize>> {
        let first = self.0.iter().position(|count| *count > 0)?;
        let last = self.0.iter().rposition(|count| *count > 0)?;
        Some(first..last + 1)
    }
}

fn bucket_of(ns: u64) -> usize {
    let ns = ns.max(1 << OCTAVE_FIRST);
    let octave = ns.ilog2();
    let quarter = (ns >> (octave - 2)) as usize % PER_OCTAVE;
    ((octave - OCTAVE_FIRST) as usize * PER_OCTAVE + quarter).min(COUNT - 1)
}

/// Smallest time in a bucket, ns. (The first one has those below, too; the last one all above.)
pub fn begin_ns(bucket: usize) -> u64 {
    let (octave, quarter) = (OCTAVE_FIRST + (bucket / PER_OCTAVE) as u32, (bucket % PER_OCTAVE) as u64);
    (4 + quarter) << (octave - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_bucket_that_begins_at_or_before_it() {
        for bucket in 0..COUNT {
            let begin = begin_ns(bucket);
            assert_eq!(bucket_of(begin), bucket);
            assert_eq!(bucket_of(begin - 1), bucket.saturating_sub(1));
            assert!(begin_ns(bucket + 1) as f64 / begin as f64 <= 1.25);
        }
        assert_eq!((bucket_of(0), bucket_of(u64::MAX)), (0, COUNT - 1));
        assert_eq!(begin_ns(0), 16_384);
    }

    #[test]
    fn differences_are_what_came_in_between() {
        let mut counts = Buckets::default();
        counts.add(1_000_000);
        let earlier = counts;
        assert_eq!(earlier.since(&earlier).occupied(), None);
        counts.add(1_000_000);
        counts.add(2_000_000);
        let since = counts.since(&earlier);
        assert_eq!(since.occupied(), Some(bucket_of(1_000_000)..bucket_of(2_000_000) + 1));
        assert_eq!(since.count(0..COUNT + 5), 2);
    }
}
