//! Payload sizes: (seed, sequence) → bytes. Nothing is stored and nothing is drawn in order, so that the ledger can make any event
//! again, in whatever order it finds them.

use std::f64::consts::TAU;
use std::sync::Arc;

use reports::model::{PayloadSizes, Plan};

use super::{PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN};
use crate::replay::Timeline;

/// The 0.99 quantile of the standard normal distribution.
const NORMAL_P99: f64 = 2.326_347_874_040_841;

/// How large payloads are, bytes; always [`PAYLOAD_BYTES_MIN`] to [`PAYLOAD_BYTES_MAX`]. Cloning it costs next to nothing.
#[derive(Clone, Debug)]
pub enum Sizes {
    /// All alike.
    Fixed(u32),
    /// Every size from the first to the second equally often.
    Uniform(u32, u32),
    /// `exp(mu + sigma·z)` for a standard normal z, cut at the limits.
    Lognormal {
        /// Logarithm of the median.
        mu: f64,
        /// Standard deviation of the logarithm.
        sigma: f64,
    },
    /// As recorded.
    Recorded {
        /// The recording.
        timeline: Arc<Timeline>,
        /// Sequence number of its first event.
        first: u64,
        /// For events before it, after it, and without a recorded size.
        otherwise: Box<Sizes>,
    },
}

impl From<u32> for Sizes {
    fn from(payload_bytes: u32) -> Self {
        Self::Fixed(payload_bytes)
    }
}

impl Sizes {
    /// What `plan` asks for. `replay`: the timeline that it names, and the sequence number of its first event (see
    /// [`ScheduleSpec::warmup_events`](crate::schedule::ScheduleSpec::warmup_events)).
    pub fn of(plan: &Plan, replay: Option<(&Arc<Timeline>, u64)>) -> Self {
        let drawn = match plan.payload_sizes {
            None => Self::Fixed(plan.payload_bytes),
            Some(PayloadSizes::Uniform { bytes_min, bytes_max }) => Self::Uniform(bytes_min, bytes_max),
            Some(PayloadSizes::Lognormal { bytes_median, bytes_p99 }) => Self::lognormal(bytes_median, bytes_p99),
        };
        match replay {
            Some((timeline, first)) if timeline.payload_bytes_max().is_some() => {
                Self::Recorded { timeline: Arc::clone(timeline), first, otherwise: Box::new(drawn) }
            }
            _ => drawn,
        }
    }

    /// Log-normal sizes, half of them below `bytes_median` and one in a hundred above `bytes_p99`.
    pub fn lognormal(bytes_median: u32, bytes_p99: u32) -> Self {
        let mu = f64::from(bytes_median).ln();
        Self::Lognormal { mu, sigma: (f64::from(bytes_p99).ln() - mu) / NORMAL_P99 }
    }

    /// Size of the payload of event `sequence`, bytes.
    pub fn bytes(&self, sequence: u64, seed: u64) -> u32 {
        match self {
            Self::Fixed(bytes) => *bytes,
            Self::Uniform(min, max) => {
                let choices = u64::from(max - min) + 1;
                min + ((u128::from(random(seed, sequence, 0)) * u128::from(choices)) >> 64) as u32
            }
            Self::Lognormal { mu, sigma } => {
                let bytes = (mu + sigma * normal(seed, sequence)).exp().round();
                bytes.clamp(f64::from(PAYLOAD_BYTES_MIN), f64::from(PAYLOAD_BYTES_MAX)) as u32
            }
            Self::Recorded { timeline, first, otherwise } => {
                let row = sequence.checked_sub(*first).and_then(|at| timeline.rows().get(at as usize));
                let recorded = row.and_then(|row| row.payload_bytes);
                recorded.map_or_else(|| otherwise.bytes(sequence, seed), std::num::NonZeroU32::get)
            }
        }
    }

    /// The largest that can come, bytes.
    pub fn bytes_max(&self) -> u32 {
        match self {
            Self::Fixed(bytes) | Self::Uniform(_, bytes) => *bytes,
            Self::Lognormal { .. } => PAYLOAD_BYTES_MAX,
            Self::Recorded { timeline, otherwise, .. } => {
                timeline.payload_bytes_max().unwrap_or_default().max(otherwise.bytes_max())
            }
        }
    }
}

/// The `draw`-th (0 or 1) random number of an event. SplitMix64 as a hash of a counter (Steele, Lea & Flood, *Fast Splittable Pseudorandom
/// Number Generators*, OOPSLA 2014): any number of the sequence in a nanosecond, where a stream cipher makes a block of them first.
fn random(seed: u64, sequence: u64, draw: u64) -> u64 {
    let counter = sequence.wrapping_mul(2).wrapping_add(draw).wrapping_add(1);
    mix(mix(seed).wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A standard normal number by Box and Muller (*Annals of Mathematical Statistics* 29, 1958): always two draws, where rejection takes as
/// many as it takes.
fn normal(seed: u64, sequence: u64) -> f64 {
    const STEP: f64 = 1.0 / (1u64 << 53) as f64;
    let unit = |draw| (random(seed, sequence, draw) >> 11) as f64 * STEP;
    // `1 - u`, because u may be 0.
    (-2.0 * (1.0 - unit(0)).ln()).sqrt() * (TAU * unit(1)).cos()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::replay::Row;

    fn sorted(sizes: &Sizes, seed: u64) -> Vec<u32> {
        let mut all: Vec<u32> = (0..100_000).map(|sequence| sizes.bytes(sequence, seed)).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn uniform_sizes_come_equally_often_and_reach_both_ends() {
        let all = sorted(&Sizes::Uniform(100, 109), 1);
        for bytes in 100..=109 {
            let count = all.iter().filter(|&&found| found == bytes).count() as f64;
            // 10,000 expected, with a standard error of 95.
            assert!((count - 10_000.0).abs() < 400.0, "{bytes}: {count}");
        }
        assert_eq!((all[0], all[99_999]), (100, 109));
        assert_eq!(Sizes::Uniform(64, 64).bytes(3, 1), 64);
    }

    #[test]
    fn lognormal_sizes_have_the_median_and_the_p99_asked_for() {
        let all = sorted(&Sizes::lognormal(1_000, 20_000), 5);
        // Standard errors: 0.5 % of the median, 1.5 % of p99.
        assert!((f64::from(all[50_000]) / 1_000.0 - 1.0).abs() < 0.02, "median {}", all[50_000]);
        assert!((f64::from(all[99_000]) / 20_000.0 - 1.0).abs() < 0.06, "p99 {}", all[99_000]);
        // ±σ holds 68.27 % of the logarithms.
        let sigma = 20_f64.ln() / NORMAL_P99;
        let within = all.iter().filter(|&&bytes| (f64::from(bytes) / 1_000.0).ln().abs() < sigma).count();
        assert!((within as f64 / 1e5 - 0.6827).abs() < 0.006, "{within}");
    }

    #[test]
    fn lognormal_sizes_are_cut_at_what_is_allowed() {
        let all = sorted(&Sizes::lognormal(60, 250_000), 1);
        assert_eq!((all[0], all[99_999]), (PAYLOAD_BYTES_MIN, PAYLOAD_BYTES_MAX));
    }

    #[test]
    fn a_size_is_a_matter_of_seed_and_number_alone() {
        for sizes in [Sizes::Uniform(40, 9_000), Sizes::lognormal(1_000, 5_000)] {
            let forward: Vec<u32> = (0..100).map(|sequence| sizes.bytes(sequence, 1)).collect();
            let backward: Vec<u32> = (0..100).rev().map(|sequence| sizes.bytes(sequence, 1)).collect();
            assert!(forward.iter().eq(backward.iter().rev()));
            let other: Vec<u32> = (0..100).map(|sequence| sizes.bytes(sequence, 2)).collect();
            assert_ne!(forward, other);
        }
    }

    #[test]
    fn recorded_sizes_begin_after_the_warm_up_and_the_rest_is_as_otherwise() {
        let row = |bytes| Row { offset_ns: 0, payload_bytes: NonZeroU32::new(bytes) };
        let timeline = Arc::new(Timeline::new(vec![row(100), row(0), row(300)]));
        let sizes = Sizes::Recorded { timeline, first: 2, otherwise: Box::new(Sizes::Fixed(50)) };
        let all: Vec<u32> = (0..6).map(|sequence| sizes.bytes(sequence, 1)).collect();
        assert_eq!(all, [50, 50, 100, 50, 300, 50]);
        assert_eq!(sizes.bytes_max(), 300);
    }
}
