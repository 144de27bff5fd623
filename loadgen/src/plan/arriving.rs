//! When events are due: rate, shape and recording, checked, and what of them does not go together.

use std::path::Path;
use std::sync::Arc;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use reports::model::{self, Arrivals, Shape};

use super::PlanError;
use super::asked::Asked;
use super::check::{LEAVE_ONE_OUT, wrong};
use super::limit::{Limit, PHASE_MS_MIN, RATE, RATE_SHARED_MAX, REPLAY_SPEED, milliseconds};
use super::spelling::{AskedShape, ShapeKind, Span};
use crate::payload::{PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN};
use crate::replay::Timeline;
use crate::schedule::ScheduleSpec;

const STEPS_MAX: usize = 1_000;

/// When events are due.
pub(super) struct Arriving {
    pub arrivals: Arrivals,
    pub rate_per_s: f64,
    pub shape: Option<Shape>,
    pub duration_ms: u64,
    pub replay: Option<(model::Replay, Arc<Timeline>)>,
}

impl Asked {
    /// When events are due after a warm-up of this length.
    pub(super) fn arriving(&self, warmup_ms: u64) -> Result<Arriving, PlanError> {
        let arrivals = self.arrivals.map_or(Arrivals::Poisson, Arrivals::from);
        if let Some(path) = &self.replay {
            return self.replayed(arrivals, path);
        }
        if let Some(speed) = self.replay_speed {
            return Err(wrong(
                "--replay-speed",
                speed,
                "is how fast a recording is sent, and there is none",
                "give --replay FILE.csv",
            ));
        }
        let rate_per_s = self.rates().check("--rate", self.rate.unwrap_or(1_000.0))?;
        let duration_ms = milliseconds("--duration", self.duration, 12_000, PHASE_MS_MIN)?;
        let constant = Arriving { arrivals, rate_per_s, shape: None, duration_ms, replay: None };
        let shape = match &self.shape {
            Some(asked) => self.shape(asked, &constant)?,
            None => None,
        };
        match (arrivals, shape) {
            (Arrivals::Closed, _) => Ok(Arriving { rate_per_s: 0.0, ..constant }),
            (_, None) => Ok(constant),
            (_, Some(shape)) => {
                let (warmup_ns, steady_ns) = (warmup_ms * 1_000_000, duration_ms * 1_000_000);
                let shape = Some(shape);
                let spec = ScheduleSpec { arrivals, rate_per_s, shape, replay: None, warmup_ns, steady_ns };
                Ok(Arriving { rate_per_s: spec.rate_per_s_mean(), shape: spec.shape, ..constant })
            }
        }
    }

    /// What the rate may be: all parts of a load together offer more than one generator could.
    fn rates(&self) -> Limit<f64> {
        let count = self.shard.map_or(1, |shard| shard.count);
        Limit { max: (RATE.max * f64::from(count)).min(RATE_SHARED_MAX), ..RATE }
    }

    /// Checks the shape of what would be `constant` without it; `None`: the rate does not change.
    fn shape(&self, asked: &AskedShape, constant: &Arriving) -> Result<Option<Shape>, PlanError> {
        let &Arriving { rate_per_s, duration_ms, .. } = constant;
        let refuse = |problem: String, remedy| Err(wrong("--shape", &asked.text, problem, remedy));
        if asked.kind != ShapeKind::Constant && constant.arrivals == Arrivals::Closed {
            return refuse("does not go with --arrivals closed, which has no rate".to_owned(), LEAVE_ONE_OUT);
        }
        if let Some(rate) = self.rate.filter(|_| asked.has_rates()) {
            return refuse(format!("does not go with --rate {rate}: it has rates of its own"), LEAVE_ONE_OUT);
        }
        let (shape, rates) = match &asked.kind {
            ShapeKind::Constant => return Ok(None),
            &ShapeKind::Ramp(from_per_s, to_per_s) => {
                (Shape::Ramp { from_per_s, to_per_s }, vec![from_per_s, to_per_s])
            }
            ShapeKind::Steps { rates, shuffled, mirrored } => {
                let rates_per_s = in_order(rates, shuffled.then_some(self.seed.unwrap_or(1)), *mirrored);
                (Shape::Steps { rates_per_s }, rates.clone())
            }
            &ShapeKind::Burst(height_per_s, Span(length), Span(every)) => {
                let (length_ms, every_ms) = (length.as_millis() as u64, every.as_millis() as u64);
                let whole_ms = [length, every].iter().all(|time| time.subsec_nanos() % 1_000_000 == 0);
                if !whole_ms || length_ms == 0 {
                    return refuse("its times are no whole milliseconds, 1 ms or more".to_owned(), "choose such times");
                }
                (Shape::Burst { base_per_s: rate_per_s, height_per_s, length_ms, every_ms }, vec![height_per_s])
            }
        };
        let allowed = self.rates();
        if let Some(rate) = rates.iter().find(|rate| !(0.0..=allowed.max).contains(*rate)) {
            let problem = format!("the rate {rate} is out of range; allowed: 0 to {} {}", allowed.max, allowed.unit);
            return refuse(problem, "choose rates in that range");
        }
        if !rates.iter().any(|rate| *rate >= RATE.min) {
            return refuse(format!("none of its rates is {} {} or more", RATE.min, RATE.unit), "choose a higher one");
        }
        match shape {
            Shape::Steps { ref rates_per_s } if rates_per_s.len() > STEPS_MAX => {
                refuse(format!("has {} steps; allowed: {STEPS_MAX}", rates_per_s.len()), "leave some out")
            }
            Shape::Steps { ref rates_per_s } if duration_ms < PHASE_MS_MIN * rates_per_s.len() as u64 => refuse(
                format!("{} steps in {duration_ms} ms are less than {PHASE_MS_MIN} ms each", rates_per_s.len()),
                "give a longer --duration",
            ),
            Shape::Burst { length_ms, every_ms, .. } if length_ms >= every_ms => refuse(
                "the burst is as long as its period, or longer".to_owned(),
                "make it shorter, or come less often",
            ),
            Shape::Burst { every_ms, .. } if every_ms > duration_ms => refuse(
                format!("its period is longer than the steady phase of {duration_ms} ms"),
                "give a longer --duration, or let it come more often",
            ),
            shape => Ok(Some(shape)),
        }
    }

    fn replayed(&self, arrivals: Arrivals, path: &Path) -> Result<Arriving, PlanError> {
        let refuse = |problem: String, remedy| Err(wrong("--replay", path.display(), problem, remedy));
        let shape = self.shape.as_ref().filter(|shape| shape.kind != ShapeKind::Constant);
        let other = [
            self.rate.map(|rate| format!("--rate {rate}")),
            shape.map(|shape| format!("--shape '{}'", shape.text)),
            self.duration.map(|Span(length)| format!("--duration {length:?}")),
            (arrivals == Arrivals::Closed).then(|| "--arrivals closed".to_owned()),
        ];
        if let Some(other) = other.into_iter().flatten().next() {
            return refuse(format!("does not go with {other}: the recording says when events are due"), LEAVE_ONE_OUT);
        }
        let speed = REPLAY_SPEED.check("--replay-speed", self.replay_speed.unwrap_or(1.0))?;
        let timeline = Timeline::read(path, speed, PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX)?;
        // The last event belongs to the phase.
        let duration_ms = timeline.last_ns() / 1_000_000 + 1;
        if duration_ms < PHASE_MS_MIN {
            let problem = format!("lasts {duration_ms} ms; a steady phase is at least {PHASE_MS_MIN} ms long");
            return refuse(problem, "slow it down with --replay-speed");
        }
        let rate_per_s = timeline.rows().len() as f64 * 1e3 / duration_ms as f64;
        let Limit { max, .. } = self.rates();
        if rate_per_s > max {
            let problem = format!("has {rate_per_s:.0} events/s on average; allowed: {max}");
            return refuse(problem, "slow it down with --replay-speed");
        }
        let replay = model::Replay {
            file: path.display().to_string(),
            speed,
            events: timeline.rows().len() as u64,
            payload_bytes_median: timeline.payload_bytes_median(),
            payloads_raised: timeline.payloads_raised(),
        };
        Ok(Arriving { arrivals, rate_per_s, shape: None, duration_ms, replay: Some((replay, Arc::new(timeline))) })
    }
}

/// Steps in the order in which they are offered. The order is the plan's, not a repetition's: each second of all repetitions can then
/// be compared.
fn in_order(rates: &[f64], shuffled: Option<u64>, mirrored: bool) -> Vec<f64> {
    let mut ordered = rates.to_vec();
    if let Some(seed) = shuffled {
        ordered.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    }
    if mirrored {
        // The last step is there once: it is where the load turns.
        ordered.extend(ordered.clone().iter().rev().skip(1));
    }
    ordered
}
