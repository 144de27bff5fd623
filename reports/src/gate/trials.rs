//! The gate's own test: many decisions of which it is known what is right, how often the gate was, and what may be claimed from so many.
//!
//! Each decision has rounds of its own, and is made by the rule that every gate run uses.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::judge::is_same_rule;
use super::model::{Gate, GateOutcome, Metric, Pair, Rule};
use super::rank::share_bounds;
use super::rule::ALPHA;
use crate::format;
use crate::model::{Environment, Plan, Tool};

/// The value of [`SelfTest::schema`] that this code writes.
pub const SCHEMA: &str = "gate-self-test.v1";

/// Of what is plainly there, so much must be found.
pub const POWER_MIN: f64 = 0.9;

/// Confidence of the bounds, on each side.
const BOUND_ALPHA: f64 = 0.05;

/// All decisions, with their rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SelfTest {
    /// `"gate-self-test.v1"`.
    pub schema: String,
    /// What measured.
    pub tool: Tool,
    /// The command line.
    pub command: Vec<String>,
    /// When it began.
    pub started_at: String,
    /// How long it took, s.
    pub seconds: f64,
    /// Stopped before its end: what is there is whole, but less than was asked for.
    pub interrupted: bool,
    /// The machine.
    pub environment: Option<Environment>,
    /// How each round was loaded.
    pub plan: Plan,
    /// The rule of every decision, but for its seed.
    pub rule: Rule,
    /// What was compared, and each decision on it.
    pub trials: Vec<Trial>,
}

/// One change, and every decision on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trial {
    /// What it is, for people.
    pub name: String,
    /// Mode of the reference server, on both sides.
    pub mode: String,
    /// Faults of the candidate; where their size is measured first, those of the newest decisions.
    pub faults: Vec<String>,
    /// What it makes worse; `null`: nothing, it is the same program.
    pub worsens: Option<Metric>,
    /// It is so plain that [`POWER_MIN`] of the decisions must find it.
    pub must_be_found: bool,
    /// Each decision.
    pub decisions: Vec<Decision>,
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Decision {
    /// Faults that the candidate had.
    #[serde(default)]
    pub faults: Vec<String>,
    /// In one word.
    pub outcome: GateOutcome,
    /// The look at which it was made.
    pub look: u32,
    /// Metrics that had regressed before they were asked for again.
    pub flagged: Vec<Metric>,
    /// Metrics that had regressed in the end.
    pub regressed: Vec<Metric>,
    /// Metrics that stayed undecided.
    pub inconclusive: Vec<Metric>,
    /// How long it took, s.
    pub seconds: f64,
    /// Reasons, most important first.
    pub reasons: Vec<String>,
    /// By how much each gated metric was found to be worse, in the order of the rule.
    pub worse_by: Vec<Option<f64>>,
    /// Every pair of rounds.
    pub pairs: Vec<Pair>,
    /// Every pair of the confirmation.
    pub pairs_again: Vec<Pair>,
}

impl Decision {
    /// What a gate run came to whose candidate had faults on purpose.
    pub fn of(gate: Gate) -> Self {
        let faults = gate.candidate.faults.clone();
        let with = |outcome: GateOutcome| {
            let of = gate.metrics.iter().filter(move |result| result.gated && result.outcome == Some(outcome));
            of.map(|result| result.metric).collect::<Vec<_>>()
        };
        Self {
            faults,
            outcome: gate.verdict.outcome,
            look: gate.verdict.look,
            flagged: gate.confirmation.as_ref().map(|again| again.flagged.clone()).unwrap_or_default(),
            regressed: with(GateOutcome::Regressed),
            inconclusive: with(GateOutcome::Inconclusive),
            seconds: gate.seconds,
            worse_by: gate.metrics.iter().filter(|result| result.gated).map(|result| result.worse_by).collect(),
            reasons: gate.verdict.reasons,
            pairs: gate.pairs,
            pairs_again: gate.confirmation.map(|again| again.pairs).unwrap_or_default(),
        }
    }
}

/// How many of how many, and between what the share lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// So many.
    pub hits: u64,
    /// Of so many.
    pub count: u64,
    /// Lower bound of the share, exact.
    pub low: f64,
    /// Upper bound, exact.
    pub high: f64,
}

impl Share {
    fn of(hits: usize, count: usize) -> Self {
        let (low, high) = share_bounds(hits as u64, count as u64, BOUND_ALPHA);
        Self { hits: hits as u64, count: count as u64, low, high }
    }

    /// `1 of 60 (0.1 % to 7.7 %)`.
    pub fn text(&self) -> String {
        format!("{} of {} ({} to {})", self.hits, self.count, format::percent(self.low), format::percent(self.high))
    }
}

impl Trial {
    /// Whether the two try the same thing. The size of the fault may differ: it is measured anew each time.
    pub fn is_like(&self, other: &Self) -> bool {
        self.name == other.name && self.mode == other.mode
    }

    /// Decisions that were made: an invalid one (a machine too busy) says neither that something is worse nor that nothing is.
    pub fn decided(&self) -> Vec<&Decision> {
        self.decisions.iter().filter(|decision| decision.outcome != GateOutcome::Invalid).collect()
    }

    /// Decisions that say `regressed`.
    pub fn regressed(&self) -> Share {
        let decided = self.decided();
        Share::of(decided.iter().filter(|decision| decision.outcome == GateOutcome::Regressed).count(), decided.len())
    }

    /// Decisions that say so of the very metric that is worse.
    pub fn found(&self) -> Option<Share> {
        let worse = self.worsens?;
        let decided = self.decided();
        Some(Share::of(decided.iter().filter(|decision| decision.regressed.contains(&worse)).count(), decided.len()))
    }

    /// Decisions that say so of another metric.
    fn found_elsewhere(&self) -> usize {
        let elsewhere = |decision: &&&Decision| decision.regressed.iter().any(|metric| Some(*metric) != self.worsens);
        self.decided().iter().filter(elsewhere).count()
    }

    fn with(&self, outcome: GateOutcome) -> usize {
        self.decisions.iter().filter(|decision| decision.outcome == outcome).count()
    }
}

impl SelfTest {
    /// Takes in the decisions of another test by the same rule; what does not fit, as a sentence.
    ///
    /// # Errors
    /// When rule, load or machine differ.
    pub fn add(&mut self, other: Self) -> Result<(), String> {
        if !is_same_rule(&self.rule, &other.rule) {
            return Err("its rule is another one".to_owned());
        }
        let load = |plan: &Plan| Plan { seed: 0, variants: Vec::new(), ..plan.clone() };
        if load(&self.plan) != load(&other.plan) {
            return Err("its rounds were loaded otherwise".to_owned());
        }
        for mut trial in other.trials {
            // Self-tests before each decision had its own told only what the first had.
            for decision in trial.decisions.iter_mut().filter(|decision| decision.faults.is_empty()) {
                decision.faults.clone_from(&trial.faults);
            }
            match self.trials.iter_mut().find(|known| known.is_like(&trial)) {
                Some(known) => known.decisions.extend(trial.decisions),
                None => self.trials.push(trial),
            }
        }
        self.seconds += other.seconds;
        Ok(())
    }

    /// Whether the gate is what it claims to be: the exit code, and why. 3: it is proven to cry wolf, or to be blind; 5: nothing was decided.
    pub fn verdict(&self) -> (u8, Vec<String>) {
        let mut reasons = Vec::new();
        if self.trials.iter().all(|trial| trial.decided().is_empty()) {
            return (GateOutcome::Invalid.exit_code(), vec!["no decision could be made".to_owned()]);
        }
        for trial in &self.trials {
            match trial.found() {
                None if trial.regressed().low > ALPHA => {
                    reasons.push(format!("{}: false alarms in {}", trial.name, trial.regressed().text()));
                }
                Some(found) if trial.must_be_found && found.high < POWER_MIN => {
                    reasons.push(format!("{}: found in {}", trial.name, found.text()));
                }
                _ => {}
            }
        }
        (if reasons.is_empty() { 0 } else { GateOutcome::Regressed.exit_code() }, reasons)
    }

    fn rows(&self) -> Vec<[String; 8]> {
        let row = |trial: &Trial| {
            let decided = trial.decided().len() as f64;
            let pairs: usize =
                trial.decided().iter().map(|decision| decision.pairs.len() + decision.pairs_again.len()).sum();
            let seconds: f64 = trial.decided().iter().map(|decision| decision.seconds).sum();
            [
                trial.name.clone(),
                trial.regressed().text(),
                match (trial.worsens, trial.found()) {
                    (Some(metric), Some(found)) => format!("{}: {}", metric.name(), found.text()),
                    _ => String::new(),
                },
                trial.found_elsewhere().to_string(),
                (trial.with(GateOutcome::Pass) + trial.with(GateOutcome::Improved)).to_string(),
                trial.with(GateOutcome::Inconclusive).to_string(),
                trial.with(GateOutcome::Invalid).to_string(),
                match decided > 0.0 {
                    true => format!("{:.1} pairs, {:.0} s", pairs as f64 / decided, seconds / decided),
                    false => String::new(),
                },
            ]
        };
        self.trials.iter().map(row).collect()
    }

    /// For a terminal.
    pub fn terminal(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(HEADINGS);
        for row in self.rows() {
            table.add_row(row);
        }
        for column in 3..HEADINGS.len() {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let (code, reasons) = self.verdict();
        let reasons: String = reasons.iter().map(|reason| format!("\n  {reason}")).collect();
        format!("{}\n\n{}\n\nexit code {code}{reasons}\n", table.trim_fmt().trim_end(), BASIS)
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rows: String = self.rows().iter().map(|row| line(row)).collect();
        format!("{}|---|---|---|--:|--:|--:|--:|--:|\n{rows}\n{BASIS}\n", line(&HEADINGS.map(str::to_owned)))
    }
}

const HEADINGS: [&str; 8] = [
    "change",
    "said regressed",
    "of the metric that is worse",
    "of others",
    "pass",
    "inconclusive",
    "invalid",
    "a decision takes",
];

const BASIS: &str = "Shares are of the decisions that were not invalid, with exact bounds (Clopper–Pearson, 95 % on each side). Every decision has \
                     rounds of its own and the whole rule: looks, Holm, confirmation.";

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(outcome: GateOutcome, regressed: &[Metric]) -> Decision {
        Decision {
            faults: Vec::new(),
            outcome,
            look: 1,
            flagged: Vec::new(),
            regressed: regressed.to_vec(),
            inconclusive: Vec::new(),
            seconds: 30.0,
            reasons: Vec::new(),
            worse_by: Vec::new(),
            pairs: Vec::new(),
            pairs_again: Vec::new(),
        }
    }

    fn test(same: &[(usize, GateOutcome)], slower: &[(usize, GateOutcome, &[Metric])]) -> SelfTest {
        let run = crate::fixtures::three_modes();
        let trial = |name: &str, worsens, decisions| Trial {
            name: name.to_owned(),
            mode: "cache-first".to_owned(),
            faults: Vec::new(),
            worsens,
            must_be_found: worsens.is_some(),
            decisions,
        };
        let same = same.iter().flat_map(|(n, outcome)| vec![decision(*outcome, &[]); *n]).collect();
        let slower = slower.iter().flat_map(|(n, outcome, found)| vec![decision(*outcome, found); *n]).collect();
        SelfTest {
            schema: SCHEMA.to_owned(),
            tool: run.tool,
            command: Vec::new(),
            started_at: run.started_at,
            seconds: 1.0,
            interrupted: false,
            environment: None,
            plan: run.plan,
            rule: Rule::new(vec![Metric::ResponseTimeP50.gated()], 20, 1),
            trials: vec![trial("the same", None, same), trial("slower", Some(Metric::ResponseTimeP50), slower)],
        }
    }

    const SLOW: &[Metric] = &[Metric::ResponseTimeP50];

    #[test]
    fn it_fails_when_the_gate_is_proven_to_cry_wolf_or_to_be_blind() {
        use GateOutcome::{Inconclusive, Invalid, Pass, Regressed};
        for (name, test, code) in [
            ("as it should be", test(&[(60, Pass)], &[(10, Regressed, SLOW)]), 0),
            ("within chance", test(&[(58, Pass), (2, Regressed)], &[(9, Regressed, SLOW), (1, Pass, &[])]), 0),
            ("cries wolf", test(&[(50, Pass), (10, Regressed)], &[(10, Regressed, SLOW)]), 3),
            ("blind", test(&[(60, Pass)], &[(4, Regressed, SLOW), (6, Inconclusive, &[])]), 3),
            ("blames another", test(&[(60, Pass)], &[(10, Regressed, &[Metric::MemoryPeak])]), 3),
            ("nothing decided", test(&[(60, Invalid)], &[]), 5),
        ] {
            assert_eq!(test.verdict().0, code, "{name}: {:?}", test.verdict());
        }
    }

    #[test]
    fn invalid_decisions_count_neither_way() {
        let test = test(&[(59, GateOutcome::Pass), (7, GateOutcome::Invalid)], &[]);
        assert_eq!(test.trials[0].regressed().text(), "0 of 59 (0 % to 4.95 %)");
        assert!(
            test.markdown().contains("| the same | 0 of 59 (0 % to 4.95 %) |  | 0 | 59 | 0 | 7 |"),
            "{}",
            test.markdown()
        );
        let undecided = "| slower | 0 of 0 (0 % to 100 %) | p50: 0 of 0 (0 % to 100 %) | 0 | 0 | 0 | 0 |  |";
        assert!(test.markdown().contains(undecided), "no time and no pairs: {}", test.markdown());
    }

    #[test]
    fn decisions_of_several_tests_add_up_when_rule_and_load_are_the_same() {
        let pass = test(&[(30, GateOutcome::Pass)], &[]);
        let mut sum = pass.clone();
        assert_eq!(sum.add(pass.clone()), Ok(()));
        assert_eq!(sum.trials[0].decisions.len(), 60);
        let mut slower = test(&[], &[(1, GateOutcome::Pass, &[])]);
        slower.trials[1].faults = vec!["cpu=3us".to_owned()];
        assert_eq!(sum.add(slower.clone()), Ok(()));
        slower.trials[1].decisions[0].faults = vec!["cpu=2us".to_owned()];
        assert_eq!(sum.add(slower), Ok(()));
        let doses = sum.trials[1].decisions.iter().map(|decision| decision.faults.join(" "));
        assert_eq!(doses.collect::<Vec<_>>(), ["cpu=3us", "cpu=2us"], "each its own, or that of its test");
        let mut other = pass.clone();
        other.rule.seed = 99;
        assert_eq!(sum.clone().add(other.clone()), Ok(()), "each has its own seed");
        other.rule.gated[0].margin = 0.5;
        assert!(sum.clone().add(other).is_err());
        let slower = SelfTest { plan: Plan { rate_per_s: 1.0, ..pass.plan.clone() }, ..pass };
        assert!(sum.add(slower).is_err());
    }
}
