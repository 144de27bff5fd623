//! What is fixed before the first round: the looks and what each may spend, the order of the sides, and when a pair is left out.

use super::model::{Gated, Look, Order, Round, Rule, SpoiledRule};
use super::rank;
use crate::format;

/// Probability of a false alarm of a whole gate run, over all its metrics and looks.
pub const ALPHA: f64 = 0.05;

/// What the first of two looks spends of it; the second has the rest. Little, since a first look is there for what is plain to see.
const ALPHA_FIRST: f64 = 0.01;

/// From so many pairs on there are two looks: the first, at half of them, could not decide anything with fewer than eight.
const PAIRS_OF_TWO_LOOKS_MIN: u32 = 16;

/// Fewest pairs of which a test says anything at all.
pub const PAIRS_MIN: u32 = 6;

/// Most pairs of a gate run: of more, chance is not counted exactly.
pub const PAIRS_MAX: u32 = rank::PAIRS_MAX as u32;

/// Most gated metrics: with more, each has to be so plain that nothing is found any more.
pub const GATED_MAX: usize = 6;

/// Of the pairs that were planned, so many must count in the end.
pub const USED_SHARE_MIN: f64 = 0.75;

/// One core standing still for this long is a stall, ns: see [`SpoiledRule::standstill_share_max`].
pub const STANDSTILL_NS_MIN: u64 = 1_000_000;

/// The rule unless told otherwise: several times what a shared virtual machine with two cores has when nobody else uses it.
pub const SPOILED: SpoiledRule = SpoiledRule {
    standstill_share_max: 0.04,
    steal_share_max: 0.04,
    other_cpu_share_max: 0.1,
    send_delay_ns_p50_max: 20_000.0,
};

impl Rule {
    /// With `rounds` pairs, even and [`PAIRS_MIN`] to [`PAIRS_MAX`]. From 16 pairs on there are two looks: after half of them with
    /// 0.01 of the 0.05, after all with 0.04 (so that the sum bounds the whole: Bonferroni); with fewer there is one.
    pub fn new(gated: Vec<Gated>, rounds: u32, seed: u64) -> Self {
        let looks = match rounds >= PAIRS_OF_TWO_LOOKS_MIN {
            true => {
                vec![Look { pairs: rounds / 2, alpha: ALPHA_FIRST }, Look { pairs: rounds, alpha: ALPHA - ALPHA_FIRST }]
            }
            false => vec![Look { pairs: rounds, alpha: ALPHA }],
        };
        let pairs_extra_max = rounds.div_ceil(2);
        Self { gated, looks, spoiled: SPOILED, pairs_extra_max, confirm: true, identical_allowed: false, seed }
    }

    /// Pairs of the last look.
    pub fn pairs(&self) -> u32 {
        self.looks.last().map_or(0, |look| look.pairs)
    }

    /// Fewest pairs that the last look is content with, when no more may be run.
    pub fn pairs_used_min(&self) -> u32 {
        (f64::from(self.pairs()) * USED_SHARE_MIN).ceil() as u32
    }

    /// The rule of the fresh repetition: the same for these metrics alone, with another seed.
    pub fn of_confirmation(&self, flagged: &[Gated]) -> Self {
        Self { gated: flagged.to_vec(), seed: mixed(self.seed ^ 0x636f_6e66_6972_6d21), ..self.clone() }
    }

    /// Which side begins the pair that is to be the `place`-th that counts (0-based), and the seed of its load. Of each two in a row
    /// one begins with the baseline; which one is drawn.
    pub fn order(&self, place: u32) -> (Order, u64) {
        let block_begins_with_baseline = mixed(self.seed.wrapping_add(u64::from(place / 2))) & 1 == 0;
        let is_first_of_block = place.is_multiple_of(2);
        let order = match block_begins_with_baseline == is_first_of_block {
            true => Order::BaselineFirst,
            false => Order::CandidateFirst,
        };
        (order, mixed(self.seed ^ mixed(u64::from(place) + 1)))
    }
}

/// A number that looks like chance (SplitMix64, Steele, Lea and Flood, 2014): this crate draws nothing else.
pub(crate) fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl SpoiledRule {
    /// Why a pair of rounds is left out; `None`: it counts. Asks for the worse one of the two rounds in everything, and never which it is.
    /// A measure that neither round has spoils nothing.
    pub fn why(&self, one: &Round, other: &Round) -> Option<String> {
        let worse = |read: fn(&Round) -> Option<f64>| match (read(one), read(other)) {
            // Not `max`, which passes over what is no number.
            (Some(one), Some(other)) => Some(if one > other || one.is_nan() { one } else { other }),
            (one, other) => one.or(other),
        };
        let beyond = |value: Option<f64>, max: f64| value.filter(|value| *value > max || value.is_nan());
        // Of two saturated rounds the longer sentence, so that swapping them changes nothing.
        let saturated = [&one.saturated, &other.saturated].into_iter().flatten().max();
        if let Some(why) = saturated {
            return Some(format!("generator saturated: {why}"));
        }
        if let Some(share) = beyond(worse(|r| r.standstill_share), self.standstill_share_max) {
            return Some(format!("a core stood still for over 1 ms in {} of the time", format::percent(share)));
        }
        if let Some(share) = beyond(worse(|r| r.steal_share), self.steal_share_max) {
            return Some(format!("the hypervisor gave {} of the processor time to others", format::percent(share)));
        }
        if let Some(share) = beyond(worse(|r| r.other_cpu_share), self.other_cpu_share_max) {
            return Some(format!("other programs used {} of the processor time", format::percent(share)));
        }
        let delay = beyond(worse(|r| r.send_delay_ns_p50), self.send_delay_ns_p50_max)?;
        Some(format!("the generator was {} late at p50", format::time(delay)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::model::Metric;
    use super::*;

    fn rule(rounds: u32, seed: u64) -> Rule {
        Rule::new(vec![Metric::ResponseTimeP50.gated()], rounds, seed)
    }

    #[test]
    fn looks_spend_five_percent_in_all() {
        for (rounds, expected) in [
            (6, vec![(6, 0.05)]),
            (14, vec![(14, 0.05)]),
            (16, vec![(8, 0.01), (16, 0.04)]),
            (20, vec![(10, 0.01), (20, 0.04)]),
            (30, vec![(15, 0.01), (30, 0.04)]),
        ] {
            let looks = rule(rounds, 1).looks;
            assert_eq!(looks.iter().map(|look| (look.pairs, look.alpha)).collect::<Vec<_>>(), expected);
            assert!((looks.iter().map(|look| look.alpha).sum::<f64>() - ALPHA).abs() < 1e-12);
        }
    }

    #[test]
    fn the_smallest_p_of_the_first_look_can_reject_after_holm() {
        for rounds in [16, 20, 30] {
            let first = rule(rounds, 1).looks[0];
            assert!(2f64.powi(-(first.pairs as i32)) <= first.alpha / 2.0, "{rounds}");
        }
    }

    type Spoil = fn(&mut Round);

    fn spoiled_by() -> [(&'static str, Spoil); 5] {
        [
            ("saturated", |round| round.saturated = Some("busy".to_owned())),
            ("stood still", |round| round.standstill_share = Some(0.05)),
            ("hypervisor", |round| round.steal_share = Some(0.05)),
            ("other programs", |round| round.other_cpu_share = Some(f64::NAN)),
            ("late at p50", |round| round.send_delay_ns_p50 = Some(1e6)),
        ]
    }

    #[test]
    fn a_pair_is_left_out_for_what_the_machine_did_to_either_side() {
        let quiet = Round { steal_share: Some(0.001), other_cpu_share: Some(0.05), ..Round::default() };
        assert_eq!(SPOILED.why(&quiet, &Round::default()), None);
        for (word, spoil) in spoiled_by() {
            let mut round = quiet.clone();
            spoil(&mut round);
            for (one, other) in [(&round, &quiet), (&quiet, &round), (&round, &round)] {
                assert!(SPOILED.why(one, other).is_some_and(|why| why.contains(word)), "{word}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_rule_does_not_know_the_sides(
            a in prop::array::uniform4(prop::option::of(0.0..0.2f64)), b in prop::array::uniform4(prop::option::of(0.0..0.2f64)),
            p50 in 0.0..1e9f64, busy in prop::option::of(Just("busy".to_owned())),
        ) {
            let round = |[standstill_share, steal_share, other_cpu_share, late]: [Option<f64>; 4]| Round {
                standstill_share, steal_share, other_cpu_share, send_delay_ns_p50: late.map(|late| late * 2e5), ..Round::default()
            };
            let (a, b) = (round(a), Round { saturated: busy, ..round(b) });
            prop_assert_eq!(SPOILED.why(&a, &b), SPOILED.why(&b, &a));
            // Nor what is decided about.
            let slow = Round { response_time_ns_p50: Some(p50), lost: 3, ..a.clone() };
            prop_assert_eq!(SPOILED.why(&slow, &b), SPOILED.why(&a, &b));
        }

        #[test]
        fn every_even_prefix_is_balanced_and_another_seed_draws_another_order(seed: u64) {
            let begins = |seed| (0..20).map(|place| rule(20, seed).order(place).0 == Order::BaselineFirst).collect::<Vec<_>>();
            for end in (2..=20).step_by(2) {
                prop_assert_eq!(begins(seed)[..end].iter().filter(|first| **first).count(), end / 2);
            }
            prop_assert!((0..32).any(|other| begins(seed.wrapping_add(other)) != begins(seed)));
            prop_assert_ne!(rule(20, seed).order(3).1, rule(20, seed).order(4).1);
        }
    }
}
