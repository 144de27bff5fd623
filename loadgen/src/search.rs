//! The highest rate at which something holds, when each look costs seconds and may err. Pure: it says which rate to try next, and is told
//! whether it held.
//!
//! Up by doubling until a rate fails, then between the two by halving their ratio until it is small enough, then the rate found is
//! confirmed by as many fresh trials as asked for; if one of them fails, the next lower rate is. A failure counts when two of three
//! trials at a rate fail: one stall of a shared machine must not halve a capacity.

/// Trials that have to agree before a rate is called failed or held while narrowing.
const VOTES: u32 = 2;
/// More confirmations than this are not tried: what has not held by then has no capacity that could be told.
const RETREATS_MAX: u32 = 8;

/// Where to look, and how finely.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// First rate to try, per s; greater than 0.
    pub rate_per_s_min: f64,
    /// Highest rate to try, per s.
    pub rate_per_s_max: f64,
    /// The search ends when the lowest failed rate is at most this share above the highest that held: 0.05 is 5 %.
    pub resolution: f64,
    /// Trials at the rate found, all of which must hold.
    pub confirmations: u32,
}

/// What a trial is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Doubling.
    Explore,
    /// Halving.
    Narrow,
    /// The rate found, once more.
    Confirm,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Try this rate.
    Try {
        /// Per s.
        rate_per_s: f64,
        /// What for.
        stage: Stage,
    },
    /// The search is over.
    End(End),
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// This rate held in every confirmation; the failed one, where there is one, did not.
    Found {
        /// Per s.
        held_per_s: f64,
        /// Lowest that failed, per s; `None`: even the highest that may be tried held.
        failed_per_s: Option<f64>,
    },
    /// Not even the lowest rate that may be tried.
    Nothing,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Search {
    bounds: Bounds,
    stage: Stage,
    rate_per_s: f64,
    held_per_s: Option<f64>,
    failed_per_s: Option<f64>,
    /// Trials at `rate_per_s` in this stage.
    held: u32,
    failed: u32,
    retreats: u32,
    end: Option<End>,
}

impl Search {
    /// Nothing tried yet.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            stage: Stage::Explore,
            rate_per_s: bounds.rate_per_s_min.min(bounds.rate_per_s_max),
            held_per_s: None,
            failed_per_s: None,
            held: 0,
            failed: 0,
            retreats: 0,
            end: None,
        }
    }

    /// What to do next.
    pub fn step(&self) -> Step {
        self.end.map_or(Step::Try { rate_per_s: self.rate_per_s, stage: self.stage }, Step::End)
    }

    /// The trial that [`Search::step`] asked for held, or failed.
    pub fn tried(&mut self, held: bool) {
        *(if held { &mut self.held } else { &mut self.failed }) += 1;
        match self.stage {
            Stage::Confirm if self.failed > 0 => self.retreat(),
            Stage::Confirm if self.held >= self.bounds.confirmations => {
                self.end = Some(End::Found { held_per_s: self.rate_per_s, failed_per_s: self.failed_per_s });
            }
            Stage::Confirm => {}
            // While exploring, one trial that holds is enough to go on: narrowing and confirming come after.
            Stage::Explore if self.held > 0 => self.decided(true),
            _ if self.held >= VOTES => self.decided(true),
            _ if self.failed >= VOTES => self.decided(false),
            _ => {}
        }
    }

    /// The rate that [`Search::step`] asked for cannot be tried, for no fault of what is searched: what held so far is confirmed. If that
    /// is what cannot be tried, the search ends with nothing: a lower rate would hold for no reason of its own.
    pub fn cannot_try(&mut self) {
        match self.held_per_s.filter(|_| self.stage != Stage::Confirm) {
            Some(held) => self.go_to(Stage::Confirm, held),
            None => self.end = Some(End::Nothing),
        }
    }

    fn decided(&mut self, held: bool) {
        *(if held { &mut self.held_per_s } else { &mut self.failed_per_s }) = Some(self.rate_per_s);
        match (self.held_per_s, self.failed_per_s) {
            (Some(held), None) if held >= self.bounds.rate_per_s_max => self.go_to(Stage::Confirm, held),
            (Some(held), None) => self.go_to(Stage::Explore, (2.0 * held).min(self.bounds.rate_per_s_max)),
            (None, _) => self.end = Some(End::Nothing),
            (Some(held), Some(failed)) if failed <= held * (1.0 + self.bounds.resolution) => {
                self.go_to(Stage::Confirm, held);
            }
            (Some(held), Some(failed)) => self.go_to(Stage::Narrow, (held * failed).sqrt()),
        }
    }

    /// The rate that was to be confirmed failed: it is the lowest that did, and one step below it is tried.
    fn retreat(&mut self) {
        self.failed_per_s = Some(self.rate_per_s);
        self.retreats += 1;
        let lower = self.rate_per_s / (1.0 + self.bounds.resolution);
        if lower < self.bounds.rate_per_s_min || self.retreats > RETREATS_MAX {
            self.end = Some(End::Nothing);
        } else {
            self.go_to(Stage::Confirm, lower);
        }
    }

    fn go_to(&mut self, stage: Stage, rate_per_s: f64) {
        (self.stage, self.rate_per_s, self.held, self.failed) = (stage, rate_per_s, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds =
        Bounds { rate_per_s_min: 100.0, rate_per_s_max: 100_000.0, resolution: 0.05, confirmations: 3 };

    fn run(bounds: Bounds, mut holds: impl FnMut(f64) -> bool) -> (End, Vec<(f64, Stage)>) {
        let (mut search, mut tried) = (Search::new(bounds), Vec::new());
        loop {
            match search.step() {
                Step::End(end) => return (end, tried),
                Step::Try { rate_per_s, stage } => {
                    tried.push((rate_per_s, stage));
                    assert!(tried.len() < 200, "it does not end: {tried:?}");
                    search.tried(holds(rate_per_s));
                }
            }
        }
    }

    #[test]
    fn it_doubles_then_halves_then_confirms() {
        let (end, tried) = run(BOUNDS, |rate| rate <= 1_000.0);
        let End::Found { held_per_s, failed_per_s: Some(failed) } = end else { panic!("{end:?}") };
        assert!(held_per_s <= 1_000.0 && failed > 1_000.0 && failed <= held_per_s * 1.05, "{end:?}");
        let explored: Vec<f64> =
            tried.iter().filter(|(_, stage)| *stage == Stage::Explore).map(|(rate, _)| *rate).collect();
        assert_eq!(explored, [100.0, 200.0, 400.0, 800.0, 1_600.0, 1_600.0]);
        let confirmed = tried.iter().filter(|(_, stage)| *stage == Stage::Confirm).count();
        assert_eq!(confirmed, 3);
    }

    #[test]
    fn one_bad_trial_at_each_rate_changes_nothing() {
        let mut seen = std::collections::HashSet::new();
        let (end, _) = run(Bounds { confirmations: 1, ..BOUNDS }, |rate| {
            // The first trial at every rate but a confirmed one fails.
            rate <= 1_000.0 && (!seen.insert(rate.to_bits()) || rate < 100.5)
        });
        assert!(matches!(end, End::Found { held_per_s, .. } if held_per_s > 950.0), "{end:?}");
    }

    #[test]
    fn what_does_not_hold_again_is_not_the_capacity() {
        let mut trials = 0;
        let (end, _) = run(BOUNDS, |rate| {
            trials += 1;
            // It tires: what held early on does not later.
            rate <= if trials < 12 { 1_000.0 } else { 900.0 }
        });
        assert!(matches!(end, End::Found { held_per_s, .. } if held_per_s <= 900.0), "{end:?}");
    }

    #[test]
    fn where_nothing_more_can_be_tried_what_held_is_confirmed() {
        let mut search = Search::new(BOUNDS);
        (0..3).for_each(|_| search.tried(true));
        assert_eq!(search.step(), Step::Try { rate_per_s: 800.0, stage: Stage::Explore });
        search.cannot_try();
        assert_eq!(search.step(), Step::Try { rate_per_s: 400.0, stage: Stage::Confirm });
        (0..3).for_each(|_| search.tried(true));
        assert_eq!(search.step(), Step::End(End::Found { held_per_s: 400.0, failed_per_s: None }));
        let mut search = Search::new(BOUNDS);
        search.cannot_try();
        assert_eq!(search.step(), Step::End(End::Nothing), "nothing has held yet");
        let mut search = Search::new(BOUNDS);
        (0..3).for_each(|_| search.tried(true));
        (0..2).for_each(|_| search.cannot_try());
        assert_eq!(search.step(), Step::End(End::Nothing), "what held cannot be confirmed");
    }

    #[test]
    fn its_bounds_are_its_bounds() {
        assert_eq!(run(BOUNDS, |_| true).0, End::Found { held_per_s: 100_000.0, failed_per_s: None });
        assert_eq!(run(BOUNDS, |_| false).0, End::Nothing);
    }

    proptest! {
        #[test]
        fn it_ends_within_its_resolution_of_any_capacity(capacity in 100.0..100_000.0) {
            let (end, tried) = run(BOUNDS, |rate| rate <= capacity);
            let End::Found { held_per_s, .. } = end else { panic!("{end:?}") };
            prop_assert!(held_per_s <= capacity && held_per_s * 1.05 >= capacity.min(100_000.0) * 0.999, "{held_per_s} of {capacity}");
            prop_assert!(tried.len() < 40, "{} trials", tried.len());
        }
    }
}
