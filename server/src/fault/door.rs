//! When an event request may go in: throttle, service times, the queue before a single server, and stalls. A state machine without a
//! clock; times are nanoseconds after the first event request.
//!
//! The n-th request that is let in takes the n-th draw: the n-th `f64` (53 bits, 0 <= u < 1) of stream 1 of ChaCha8, seeded with
//! `seed_from_u64` of the fault seed. (Not stream 0, from which a load generator may draw its arrivals with the same seed: service
//! times that follow the gaps between arrivals make another queue than the one that was asked for.) Exponential times are by inversion, `-mean * ln(1 - u)`; of two points it is the slow one when `u < share`.
//!
//! A stall stops time: what would happen after it began happens so much later. So there are two times here, the one that passes
//! for everybody and the *running* time, which stands while everything stands still; service goes on in running time.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::spec::{Kind, ServiceTime, Stall};

/// Stream of the generator.
const DRAWS_STREAM: u64 = 1;
/// The throttle counts requests by this.
const WINDOW_NS: u64 = 1_000_000_000;

/// See the module.
#[derive(Debug)]
pub struct Door {
    service_time: Option<ServiceTime>,
    one_at_a_time: bool,
    stall: Option<Stall>,
    throttle_per_s: Option<u64>,
    draws: ChaCha8Rng,
    /// Running time at which the single server is done with all that have come.
    free_at_ns: u64,
    /// Number of the second that the throttle counts, and how many came in it.
    window: u64,
    window_requests: u64,
}

impl Door {
    /// With those of the faults that are about time; `None` when there are none.
    pub fn new(kinds: impl Iterator<Item = Kind>, seed: u64) -> Option<Self> {
        let mut draws = ChaCha8Rng::seed_from_u64(seed);
        draws.set_stream(DRAWS_STREAM);
        let mut door = Self {
            service_time: None,
            one_at_a_time: false,
            stall: None,
            throttle_per_s: None,
            draws,
            free_at_ns: 0,
            window: 0,
            window_requests: 0,
        };
        for kind in kinds {
            match kind {
                Kind::ServiceTime(service_time) => door.service_time = Some(service_time),
                Kind::QueueOne => door.one_at_a_time = true,
                Kind::Stall(stall) => door.stall = Some(stall),
                Kind::Throttle { requests_per_s } => door.throttle_per_s = Some(requests_per_s),
                _ => {}
            }
        }
        (door.service_time.is_some() || door.stall.is_some() || door.throttle_per_s.is_some()).then_some(door)
    }

    /// When a request that comes at `at_ns` may go in (`at_ns` or later); `None` when it is one too many in its second.
    pub fn enter(&mut self, at_ns: u64) -> Option<u64> {
        if !self.let_through(at_ns) {
            return None;
        }
        let service_ns = self.draw_service_ns();
        let arrived_ns = running_ns(self.stall, at_ns);
        let begin_ns = if self.one_at_a_time { arrived_ns.max(self.free_at_ns) } else { arrived_ns };
        let done_ns = begin_ns + service_ns;
        self.free_at_ns = done_ns;
        Some(passed_ns(self.stall, done_ns).max(at_ns))
    }

    fn let_through(&mut self, at_ns: u64) -> bool {
        let Some(allowed) = self.throttle_per_s else { return true };
        // Two threads may come in the other order: what belongs to the second before counts to this one.
        let window = (at_ns / WINDOW_NS).max(self.window);
        if window > self.window {
            (self.window, self.window_requests) = (window, 0);
        }
        self.window_requests += 1;
        self.window_requests <= allowed
    }

    fn draw_service_ns(&mut self) -> u64 {
        let Some(service_time) = self.service_time else { return 0 };
        let u: f64 = self.draws.random();
        match service_time {
            ServiceTime::Constant(always) => ns(always),
            ServiceTime::Exponential(mean) => (ns(mean) as f64 * -(1.0 - u).ln()) as u64,
            ServiceTime::TwoPoint { fast, slow, share } => ns(if u < share { slow } else { fast }),
        }
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Running time at `at_ns`: without the stalls so far.
fn running_ns(stall: Option<Stall>, at_ns: u64) -> u64 {
    let Some(stall) = stall else { return at_ns };
    let (length_ns, begin_ns) = (ns(stall.length), ns(stall.begin));
    let stood_ns = match stall.repeats {
        _ if at_ns < begin_ns => 0,
        false => length_ns.min(at_ns - begin_ns),
        true => (at_ns / begin_ns - 1) * length_ns + length_ns.min(at_ns % begin_ns),
    };
    at_ns - stood_ns
}

/// When running time has come to `running_ns`; where it stands still just there, the end of that stall.
fn passed_ns(stall: Option<Stall>, running_ns: u64) -> u64 {
    let Some(stall) = stall else { return running_ns };
    let (length_ns, begin_ns) = (ns(stall.length), ns(stall.begin));
    let stalls = match stall.repeats {
        _ if running_ns < begin_ns => 0,
        false => 1,
        true => (running_ns - begin_ns) / (begin_ns - length_ns) + 1,
    };
    running_ns + stalls * length_ns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::spec::FaultList;
    use super::*;

    const MS: u64 = 1_000_000;

    fn door(faults: &str) -> Door {
        let list: FaultList = faults.parse().expect(faults);
        Door::new(list.0.iter().map(|fault| fault.kind), 1).expect("a fault of time")
    }

    /// Milliseconds at which requests that come at these may go in.
    fn enter_ms(faults: &str, at_ms: &[u64]) -> Vec<Option<u64>> {
        let mut door = door(faults);
        at_ms.iter().map(|at_ms| door.enter(at_ms * MS).map(|ns| ns / MS)).collect()
    }

    fn times(ms: &[u64]) -> Vec<Option<u64>> {
        ms.iter().map(|ms| Some(*ms)).collect()
    }

    #[test]
    fn there_is_no_door_where_no_fault_is_about_time() {
        let list: FaultList = "drop=0.1,cpu=1us".parse().expect("faults");
        assert!(Door::new(list.0.iter().map(|fault| fault.kind), 1).is_none());
    }

    #[test]
    fn each_request_takes_its_own_time_or_all_queue_for_one_server() {
        let at_ms = [0, 1, 2, 30];
        assert_eq!(enter_ms("service-time=constant:10ms", &at_ms), times(&[10, 11, 12, 40]));
        assert_eq!(enter_ms("service-time=constant:10ms,queue=one", &at_ms), times(&[10, 20, 30, 40]));
    }

    #[test]
    fn a_stall_holds_what_comes_and_what_is_at_work_and_nothing_after() {
        assert_eq!(enter_ms("stall=100ms@50ms", &[0, 49, 50, 149, 150, 500]), times(&[0, 49, 150, 150, 150, 500]));
        let busy = "stall=100ms@50ms,service-time=constant:10ms";
        assert_eq!(enter_ms(busy, &[30, 45, 60, 149, 150]), times(&[40, 155, 160, 160, 160]));
        let queue = "stall=100ms@50ms,service-time=constant:10ms,queue=one";
        assert_eq!(enter_ms(queue, &[30, 45, 60, 149, 200]), times(&[40, 155, 165, 175, 210]));
    }

    #[test]
    fn a_stall_comes_again_and_again() {
        let at_ms = [0, 99, 100, 119, 120, 199, 200, 219, 220, 1_000_010];
        let entered = times(&[0, 99, 120, 120, 120, 199, 220, 220, 220, 1_000_020]);
        assert_eq!(enter_ms("stall=20ms/100ms", &at_ms), entered);
        // 25 ms of work over three stalls of 90 ms with 10 ms between them.
        assert_eq!(enter_ms("stall=90ms/100ms,service-time=constant:25ms", &[95]), times(&[390]));
    }

    #[test]
    fn a_throttle_counts_by_the_second_and_what_it_refuses_takes_no_draw() {
        let at_ms = [0, 1, 2, 999, 1000, 1001, 1002, 3500];
        let through = [true, true, false, false, true, true, false, true];
        let entered: Vec<bool> = enter_ms("throttle=2/s", &at_ms).iter().map(Option::is_some).collect();
        assert_eq!(entered, through);

        let times_of = |faults: &str, at_ms: &[u64]| -> Vec<u64> {
            let mut door = door(faults);
            at_ms.iter().filter_map(|at_ms| Some(door.enter(at_ms * MS)? - at_ms * MS)).collect()
        };
        let exponential = "service-time=exponential:5ms";
        let passed = [0, 1, 1000, 1001, 3500];
        assert_eq!(times_of(&format!("{exponential},throttle=2/s"), &at_ms), times_of(exponential, &passed));
    }

    #[test]
    fn draws_are_those_of_the_seed_and_distributed_as_asked() {
        const DRAWS: usize = 20_000;
        let draws = |faults: &str| -> Vec<f64> {
            let mut door = door(faults);
            (0..DRAWS).filter_map(|_| door.enter(0).map(|ns| ns as f64 / MS as f64)).collect()
        };
        let exponential = draws("service-time=exponential:10ms");
        assert_eq!(exponential, draws("service-time=exponential:10ms"));
        let mean = exponential.iter().sum::<f64>() / DRAWS as f64;
        let above_mean = exponential.iter().filter(|ms| **ms > 10.0).count() as f64 / DRAWS as f64;
        // The standard errors are 0.7 % of the mean and 0.0034 of the share; the seed is fixed.
        assert!((mean - 10.0).abs() < 0.3, "{mean}");
        assert!((above_mean - (-1f64).exp()).abs() < 0.015, "{above_mean}");

        let slow = draws("service-time=two-point:1ms:20ms:0.1").iter().filter(|ms| **ms == 20.0).count();
        assert!((1_800..2_200).contains(&slow), "{slow} of {DRAWS} at 0.1");
    }

    proptest! {
        /// Running time never goes back, and coming to it takes exactly the stalls on the way.
        #[test]
        fn running_time_and_its_inverse_agree(length in 1u64..1_000, free in 1u64..1_000, repeats: bool, at in 0u64..1_000_000) {
            let begin = if repeats { length + free } else { free };
            let stall = Stall { length: Duration::from_nanos(length), begin: Duration::from_nanos(begin), repeats };
            let running = running_ns(Some(stall), at);
            let passed = passed_ns(Some(stall), running);
            prop_assert!(passed >= at && passed - at <= length, "{at} → {running} → {passed}");
            prop_assert_eq!(running_ns(Some(stall), passed), running);
            prop_assert!(running_ns(Some(stall), at + 1) >= running);
        }
    }
}
