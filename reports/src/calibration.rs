//! The floor of a machine, and how fast its generator can honestly go.
//!
//! A generator is honest at a rate when it sends what it was asked for at the time it was asked for it, and reads the answers in time:
//! then what it reports is the server's. What it takes is written down in the constants here; whoever finds them too lax has every number
//! in the result.

use crate::format;
use crate::model::{Calibration, Run};

/// Share of the events asked for that has to be sent, and to be accepted in time, for a rate to be offered honestly.
pub const HONEST_SHARE_MIN: f64 = 0.99;

/// Largest send delay p99 with which a rate is offered honestly, ns: a tenth of the millisecond that good servers promise.
pub const HONEST_SEND_DELAY_NS_MAX: u64 = 100_000;

/// The floor to print beside the numbers: the calibration's, unless the plan has the variant `null`, which then is the floor and has
/// a column of its own.
pub fn floor(run: &Run) -> Option<&Calibration> {
    run.calibration.as_ref().filter(|_| !has_null_variant(run))
}

/// Whether the plan measures the floor itself.
pub fn has_null_variant(run: &Run) -> bool {
    run.plan.variants.iter().any(|variant| variant.mode.as_deref() == Some("null"))
}

/// Whether there are numbers and no floor for them.
pub fn is_missing(run: &Run) -> bool {
    let has_numbers = run.results.iter().any(|result| result.load.outcomes.accepted > 0);
    run.calibration.is_none() && has_numbers && !has_null_variant(run)
}

/// Why the generator was not honest in a judged run of one repetition against the null server; `None`: it was.
pub fn dishonesty(run: &Run) -> Option<String> {
    let Some(result) = run.results.first() else { return Some("nothing was measured".to_owned()) };
    if let Some(failure) = &result.failure {
        return Some(failure.clone());
    }
    let load = &result.load;
    let sent = load.planned.saturating_sub(load.outcomes.not_sent) as f64 / load.planned.max(1) as f64;
    if sent < HONEST_SHARE_MIN {
        return Some(format!("{} of the events were sent", format::percent(sent)));
    }
    if load.send_delay.p99_ns > HONEST_SEND_DELAY_NS_MAX {
        return Some(format!("events left {} late at p99", format::time_ns(load.send_delay.p99_ns)));
    }
    if let Some(ratio) = load.achieved_ratio().filter(|ratio| *ratio < HONEST_SHARE_MIN) {
        return Some(format!("{} of what was offered was accepted in time", format::percent(ratio)));
    }
    run.caveats.iter().find(|caveat| caveat.invalidates).map(|caveat| caveat.detail.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{self, times};
    use crate::verdict;

    type Change = fn(&mut Run);

    fn trial(change: Change) -> Option<String> {
        let mut run = fixtures::small();
        run.results.truncate(1);
        run.plan.variants.truncate(1);
        change(&mut run);
        verdict::assess(&mut run);
        dishonesty(&run)
    }

    #[test]
    fn a_generator_is_honest_until_it_leaves_out_delays_or_misreads() {
        assert_eq!(trial(|_| {}), None);
        let cases: [(&str, Change); 6] = [
            ("nothing was measured", |run| run.results.clear()),
            ("it went away", |run| run.results[0].failure = Some("it went away".to_owned())),
            ("of the events were sent", |run| {
                let outcomes = &mut run.results[0].load.outcomes;
                (outcomes.accepted, outcomes.not_sent) = (outcomes.accepted - 20, 20);
            }),
            ("late at p99", |run| run.results[0].load.send_delay = times(&[(1_000, 1_000), (110_000, 20)])),
            ("was accepted in time", |run| run.results[0].load.achieved_per_s *= 0.98),
            ("answers, too, were read late", |run| {
                run.results[0].health.as_mut().expect("a watch").sender_busy_share = Some(0.95);
            }),
        ];
        for (why, change) in cases {
            let found = trial(change);
            assert!(found.as_deref().is_some_and(|found| found.contains(why)), "{why}: {found:?}");
        }
    }

    #[test]
    fn a_null_variant_is_the_floor_itself() {
        let mut run = fixtures::lying_server();
        assert!(floor(&run).is_some() && !is_missing(&run));
        run.calibration = None;
        assert!(floor(&run).is_none() && is_missing(&run));
        let mut run = fixtures::three_modes();
        assert!(!is_missing(&run));
        run.calibration = fixtures::lying_server().calibration;
        assert!(floor(&run).is_none(), "it has a column of its own");
        assert!(!is_missing(&fixtures::dead_target()), "nothing was measured, so nothing has a floor");
    }
}
