//! What `loadgen gate` is asked for: flags, and what they may be.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use reports::gate::model::{Gated, Metric, Rule};
use reports::gate::rule::{GATED_MAX, PAIRS_MAX, PAIRS_MIN};

use super::self_test::Change;
use crate::nearest::did_you_mean;
use crate::plan::limit::{self, Limit};
use crate::plan::spelling::{AskedRealtime, Span};

/// `--decisions`
const DECISIONS: Limit<u32> = Limit { min: 1, max: 10_000, unit: "decisions" };
/// `--minutes`
const MINUTES: Limit<u64> = Limit { min: 1, max: 10_000, unit: "minutes" };

/// Headings of the flags in `--help`.
const COMPARED: &str = "What is compared";
const RULE: &str = "By which rule";
const ROUNDS: &str = "Each round";
const SELF_TEST: &str = "Testing the gate itself";

/// What is decided on with `--quick`: changes that are plainly there, and whose size need not be measured first.
const CHANGES_QUICK: [Change; 3] = [Change::Same, Change::Cpu20, Change::Query];
/// What is gated with `--quick`: neither p99, of which half a second has too few events, nor capacity, which takes another phase.
const METRICS_QUICK: [Metric; 4] = [Metric::ResponseTimeP50, Metric::CpuPerEvent, Metric::MemoryPeak, Metric::IdleSql];

/// Largest margin: ten times as much.
const MARGIN_MAX: f64 = 9.0;

/// The flags that say what is compared, and by which rule.
#[derive(Args, Clone, Debug)]
pub struct Asked {
    /// What there was: a command that starts a server, or a target profile [default: this program's `serve`]
    ///
    /// A command that starts the reference server, such as './old/loadgen serve --mode cache-first' (flags such as --listen and --database
    /// are added); a target profile, or the folder of one; or the command of another server that follows the contract, with {port} in it
    #[arg(long, value_name = "COMMAND|PROFILE", help_heading = COMPARED)]
    pub baseline: Option<String>,

    /// What there is now, in the same way [default: this program's `serve`]
    #[arg(long, value_name = "COMMAND|PROFILE", help_heading = COMPARED)]
    pub candidate: Option<String>,

    /// gate.json of an earlier gate, whose candidate is the baseline now: half the time, and a weak answer
    ///
    /// Whatever changed on the machine since then counts as the candidate's doing. Refused when machine, load or build are not alike
    #[arg(
        long,
        value_name = "gate.json",
        conflicts_with_all = ["baseline", "baseline_fault", "self_test"],
        help_heading = COMPARED
    )]
    pub against: Option<PathBuf>,

    /// Fault that the baseline shall have (`loadgen serve --help` lists them); repeatable
    #[arg(long, value_name = "FAULT", help_heading = COMPARED)]
    pub baseline_fault: Vec<String>,

    /// Fault that the candidate shall have, to see it found; repeatable
    #[arg(long, value_name = "FAULT", help_heading = COMPARED)]
    pub candidate_fault: Vec<String>,

    /// Compare a program with itself, started the same way: what is decided is then only how well the gate works
    #[arg(long, help_heading = COMPARED)]
    pub allow_identical: bool,

    /// Pairs of rounds, even, 6 to 100
    ///
    /// From 16 on the data are looked at twice: after half of them with 0.01 of the false alarms allowed (0.05), after all with 0.04. Pairs
    /// that the machine spoiled are run again, up to half as many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = rounds, help_heading = RULE)]
    pub rounds: u32,

    /// What is gated, and how much worse does not count (0% to 900%): up to six metrics [default: p50,p99,capacity,cpu,memory,idle-sql]
    ///
    /// p50, p99, p99.9, capacity, durable, cpu, memory, idle-sql; with --quick, p50,cpu,memory,idle-sql is the default
    #[arg(long = "metric", value_name = "METRIC[=MARGIN],…", value_delimiter = ',', help_heading = RULE)]
    pub metrics: Vec<AskedMetric>,

    /// Gated metrics that may stay undecided without leaving the gate open (exit 4)
    #[arg(long, value_name = "METRIC,…", value_delimiter = ',', help_heading = RULE)]
    pub optional: Vec<AskedMetric>,

    /// Call a regression one without asking for it again with fresh rounds
    #[arg(long, help_heading = RULE)]
    pub no_confirm: bool,

    /// Mode of the reference server, where a command does not say: null, cache-first, journal-first or db-first
    #[arg(long, value_name = "MODE", default_value = "cache-first", help_heading = COMPARED)]
    pub mode: String,

    /// Polling policy of the reference server, where a command does not say: fixed, adaptive or wake
    #[arg(long, value_name = "POLICY", default_value = "wake", help_heading = COMPARED)]
    pub polling: String,

    /// sqlite, or postgres://USER@HOST:PORT/NAME
    ///
    /// sqlite is a file in a temporary folder; on PostgreSQL a fresh database is made for each round, and dropped
    #[arg(long, value_name = "DATABASE", default_value = "sqlite", help_heading = COMPARED)]
    pub database: String,

    /// Events per second that are offered in every round, 0.1 to 200000 [default: 4000; with --self-test 8000, --quick 4000]
    ///
    /// About two thirds of what the baseline can do, or less
    #[arg(long, value_name = "PER_S", value_parser = limit::RATE.number(), help_heading = ROUNDS)]
    pub rate: Option<f64>,

    /// Length of the warm-up of a round, 0s to 24h [default: 1s; with --self-test 300ms, --quick 100ms]
    #[arg(long, value_name = "TIME", help_heading = ROUNDS)]
    pub warmup: Option<Span>,

    /// Length of the measured window of a round, 100ms to 24h [default: 3s; with --self-test 1300ms, --quick 500ms]
    ///
    /// p99 takes 10,000 events in it, p99.9 100,000
    #[arg(long, value_name = "TIME", help_heading = ROUNDS)]
    pub duration: Option<Span>,

    /// Window in which SQL statements are counted while nothing comes; 0s leaves it out [default: 2s; with --self-test 500ms, --quick 300ms]
    #[arg(long, value_name = "TIME", help_heading = ROUNDS)]
    pub idle: Option<Span>,

    /// Length of the closed loop that says how much a server can do; 0s leaves it out [default: 1s; with --self-test 400ms, --quick 0s]
    #[arg(long, value_name = "TIME", help_heading = ROUNDS)]
    pub capacity: Option<Span>,

    /// Who gets a processor before every other thread of the machine: the sender, servers that are the reference server, or both [default: nobody]
    ///
    /// On a machine that is shared, the slowest answers wait for a processor, by chance. Takes root, CAP_SYS_NICE or an rtprio limit of 3 (Linux,
    /// SCHED_RR)
    #[arg(long, value_enum, value_name = "WHO", help_heading = ROUNDS)]
    pub realtime: Option<AskedRealtime>,

    /// Connections, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = limit::CONNECTIONS.number(), help_heading = ROUNDS)]
    pub connections: u32,

    /// Size of each event's JSON payload in bytes, 37 to 262144
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = limit::PAYLOAD_BYTES.number(), help_heading = ROUNDS)]
    pub payload_bytes: u32,

    /// Seed of the order of the sides, the schedules and the payloads, a whole number
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = limit::SEED.number(), help_heading = ROUNDS)]
    pub seed: u64,

    /// Test the gate itself: decide again and again on what is known; prints how often it is right, with exact bounds
    ///
    /// By the same rule on shorter rounds, on the reference server against itself and against itself with faults that make it worse by known
    /// amounts
    #[arg(
        long,
        conflicts_with_all = ["baseline", "candidate", "baseline_fault", "candidate_fault"],
        help_heading = SELF_TEST
    )]
    pub self_test: bool,

    /// The same in a few minutes, with fewer decisions and shorter rounds
    ///
    /// Of half a second: with those metrics that so short a round can tell, and those changes whose size need not be measured first
    #[arg(long, requires = "self_test", help_heading = SELF_TEST)]
    pub quick: bool,

    /// Decisions on one program against itself, 1 to 10000 [default: 60; with --quick 6]
    ///
    /// A sixth or a twelfth of them on each fault
    #[arg(long, value_name = "N", requires = "self_test", value_parser = DECISIONS.within(), help_heading = SELF_TEST)]
    pub decisions: Option<u32>,

    /// Changes that are decided on [default: each whose metric is gated; with --quick same,cpu-20,query]
    #[arg(long = "change", value_name = "CHANGE,…", value_delimiter = ',', requires = "self_test", help_heading = SELF_TEST)]
    pub changes: Vec<Change>,

    /// No decision begins that would not end in so many minutes, 1 to 10000 [default: 10000; with --quick 4]
    #[arg(long, value_name = "N", requires = "self_test", value_parser = MINUTES.within(), help_heading = SELF_TEST)]
    pub minutes: Option<u64>,

    /// self-test.json of an earlier self-test by the same rule, whose decisions are counted too; repeatable
    #[arg(long, value_name = "FILE", requires = "self_test", help_heading = SELF_TEST)]
    pub add: Vec<PathBuf>,

    /// File that the result is added to as Markdown, such as $GITHUB_STEP_SUMMARY
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub summary: Option<PathBuf>,
}

/// How each round is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    /// Offered, per second.
    pub rate_per_s: f64,
    /// Not measured.
    pub warmup: Span,
    /// Measured.
    pub duration: Span,
    /// Measured while nothing comes.
    pub idle: Span,
    /// In a closed loop.
    pub capacity: Span,
}

impl Asked {
    /// What was asked for, and the defaults for the rest.
    pub fn lengths(&self) -> Lengths {
        let ms = |asked: Option<Span>, gate: u64, self_test: u64, quick: u64| {
            asked.unwrap_or(Span(Duration::from_millis(self.usual(gate, self_test, quick))))
        };
        Lengths {
            rate_per_s: self.rate.unwrap_or(self.usual(4_000.0, 8_000.0, 4_000.0)),
            warmup: ms(self.warmup, 1_000, 300, 100),
            duration: ms(self.duration, 3_000, 1_300, 500),
            idle: ms(self.idle, 2_000, 500, 300),
            capacity: ms(self.capacity, 1_000, 400, 0),
        }
    }

    /// What the self-test decides on; none: all whose metric is gated.
    pub fn changes(&self) -> &[Change] {
        if self.changes.is_empty() && self.quick { &CHANGES_QUICK } else { &self.changes }
    }

    /// That of three which fits what is asked for.
    fn usual<T>(&self, gate: T, self_test: T, quick: T) -> T {
        match (self.self_test, self.quick) {
            (_, true) => quick,
            (true, false) => self_test,
            (false, false) => gate,
        }
    }

    fn metrics(&self) -> Vec<AskedMetric> {
        if !self.metrics.is_empty() {
            return self.metrics.clone();
        }
        let metrics = self.usual(&Metric::DEFAULT[..], &Metric::DEFAULT, &METRICS_QUICK);
        metrics.iter().map(|&metric| AskedMetric { metric, margin: None }).collect()
    }

    /// By which rule is decided; what is wrong with it, as a sentence.
    pub fn rule(&self) -> Result<Rule, String> {
        let mut gated: Vec<Gated> = Vec::new();
        for AskedMetric { metric, margin } in self.metrics() {
            if gated.iter().any(|known| known.metric == metric) {
                return Err(format!("--metric = {}: it is there twice; leave one out", metric.name()));
            }
            let required = self.optional.iter().all(|optional| optional.metric != metric);
            gated.push(Gated { metric, margin: margin.unwrap_or(metric.margin_default()), required });
        }
        if !(1..=GATED_MAX).contains(&gated.len()) {
            return Err(format!(
                "--metric: {} are gated; allowed: 1 to {GATED_MAX}, since each costs the others some power; leave some out",
                gated.len()
            ));
        }
        let lengths = self.lengths();
        let measured = |metric: &Metric| match metric {
            Metric::Capacity => !lengths.capacity.0.is_zero(),
            Metric::IdleSql => !lengths.idle.0.is_zero(),
            _ => true,
        };
        if let Some(unmeasured) = gated.iter().find(|gated| !measured(&gated.metric)) {
            let (name, phase) =
                (unmeasured.metric.name(), if unmeasured.metric == Metric::Capacity { "capacity" } else { "idle" });
            return Err(format!(
                "--metric = {name}: needs the phase that --{phase} 0s leaves out, and --quick, too; leave it out, or give --{phase} a length"
            ));
        }
        if let Some(unknown) = self.optional.iter().find(|asked| gated.iter().all(|gated| gated.metric != asked.metric))
        {
            return Err(format!("--optional = {}: it is not gated; name it in --metric too", unknown.metric.name()));
        }
        for change in &self.changes {
            let worsens = change.worsens();
            if let Some(metric) = worsens.filter(|metric| gated.iter().all(|gated| gated.metric != *metric)) {
                let (change, metric) = (change.name(), metric.name());
                return Err(format!(
                    "--change = {change}: makes {metric} worse, which is not gated; name it in --metric too"
                ));
            }
        }
        let rule = Rule::new(gated, self.rounds, self.seed);
        Ok(Rule { confirm: !self.no_confirm, identical_allowed: self.allow_identical, ..rule })
    }
}

fn rounds(text: &str) -> Result<u32, String> {
    let rounds =
        text.parse::<u32>().ok().filter(|rounds| (PAIRS_MIN..=PAIRS_MAX).contains(rounds) && rounds.is_multiple_of(2));
    rounds.ok_or_else(|| {
        format!("is no number of rounds; allowed: even, {PAIRS_MIN} to {PAIRS_MAX}; choose such a number")
    })
}

/// `p99` or `p99=10%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AskedMetric {
    /// Which.
    pub metric: Metric,
    /// How much worse does not count; `None`: its default.
    pub margin: Option<f64>,
}

impl FromStr for AskedMetric {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, margin) = match text.split_once('=') {
            Some((name, margin)) => (name.trim(), Some(margin.trim())),
            None => (text.trim(), None),
        };
        let metric = Metric::ALL.into_iter().find(|metric| metric.name() == name).ok_or_else(|| {
            let remedy =
                did_you_mean(name, Metric::ALL.map(Metric::name), "choose one or more of these, separated by commas");
            format!("is no metric; allowed: {}; {remedy}", Metric::ALL.map(Metric::name).join(", "))
        })?;
        let share = |text: &str| match text.strip_suffix('%') {
            Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
            None => text.parse(),
        };
        let margin = margin.map(|text| {
            let share = share(text).ok().filter(|share| (0.0..=MARGIN_MAX).contains(share));
            share.ok_or_else(|| {
                format!("is no margin; allowed: 0% to {}%; write one such as {name}=5%", MARGIN_MAX * 100.0)
            })
        });
        Ok(Self { metric, margin: margin.transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        asked: Asked,
    }

    fn rule(flags: &str) -> Result<Rule, String> {
        let arguments = std::iter::once("gate").chain(flags.split_whitespace());
        Flags::try_parse_from(arguments).map_err(|error| error.to_string())?.asked.rule()
    }

    #[test]
    fn metrics_and_margins_are_what_was_asked_for() {
        let defaults = rule("").unwrap();
        assert_eq!(defaults.gated.iter().map(|gated| gated.metric).collect::<Vec<_>>(), Metric::DEFAULT);
        assert!(defaults.gated.iter().all(|gated| gated.required) && defaults.confirm && !defaults.identical_allowed);
        let asked = rule("--metric p50=10%,p99=0.2,durable --optional p99 --rounds 30 --no-confirm").unwrap();
        let expected = [
            (Metric::ResponseTimeP50, 0.1, true),
            (Metric::ResponseTimeP99, 0.2, false),
            (Metric::TimeToDurableP50, 0.2, true),
        ];
        assert_eq!(
            asked.gated.iter().map(|gated| (gated.metric, gated.margin, gated.required)).collect::<Vec<_>>(),
            expected
        );
        assert_eq!((asked.pairs(), asked.confirm), (30, false));
    }

    #[test]
    fn a_quick_self_test_gates_what_its_short_rounds_can_tell() {
        let asked = |flags: &str| {
            let arguments = ["gate", "--self-test"].into_iter().chain(flags.split_whitespace());
            let asked = Flags::try_parse_from(arguments).unwrap().asked;
            let gated =
                asked.rule().unwrap().gated.iter().map(|gated| gated.metric.name()).collect::<Vec<_>>().join(",");
            let lengths = asked.lengths();
            (gated, lengths.duration.0.as_millis(), lengths.capacity.0.as_millis(), asked.changes().len())
        };
        for (flags, expected) in [
            ("", ("p50,p99,capacity,cpu,memory,idle-sql", 1_300, 400, 0)),
            ("--quick", ("p50,cpu,memory,idle-sql", 500, 0, 3)),
            ("--quick --metric capacity --capacity 1s --change same", ("capacity", 500, 1_000, 1)),
        ] {
            let (gated, duration_ms, capacity_ms, changes) = expected;
            assert_eq!(asked(flags), (gated.to_owned(), duration_ms, capacity_ms, changes), "{flags:?}");
        }
    }

    #[test]
    fn the_help_tells_the_metrics_and_changes_that_are_there_unless_told_otherwise() {
        let flags = <Flags as clap::CommandFactory>::command();
        let help_of = |arg: &clap::Arg| arg.get_long_help().or(arg.get_help()).map(ToString::to_string);
        let help = flags.get_arguments().filter_map(help_of).collect::<Vec<_>>().join("\n");
        let metrics = |metrics: &[Metric]| metrics.iter().map(|metric| metric.name()).collect::<Vec<_>>().join(",");
        let changes = CHANGES_QUICK.map(Change::name).join(",");
        for part in [
            format!("[default: {}]", metrics(&Metric::DEFAULT)),
            format!("with --quick, {} is the default", metrics(&METRICS_QUICK)),
            format!("with --quick {changes}]"),
        ] {
            assert!(help.contains(&part), "{part}: {help}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        for (flags, part) in [
            ("--rounds 7", "even, 6 to 100"),
            ("--rounds 4", "even, 6 to 100"),
            ("--rounds 102", "even, 6 to 100"),
            ("--metric p98", "allowed: p50, p99, p99.9, capacity"),
            ("--metric p50=x", "allowed: 0% to 900%; write one such as p50=5%"),
            ("--metric p50=NaN", "allowed: 0%"),
            ("--metric p50,p50", "it is there twice"),
            ("--metric p50,p99,p99.9,capacity,durable,cpu,memory", "7 are gated; allowed: 1 to 6"),
            ("--metric capacity --capacity 0s", "needs the phase that --capacity 0s leaves out"),
            (
                "--self-test --quick --metric capacity",
                "leaves out, and --quick, too; leave it out, or give --capacity a length",
            ),
            ("--self-test --metric p50 --change p99", "makes p99 worse, which is not gated; name it in --metric too"),
            ("--self-test --change p90", "[possible values: same, p50, cpu-5"),
            ("--metric p50 --optional p99", "it is not gated; name it in --metric too"),
        ] {
            let told = rule(flags).unwrap_err();
            assert!(told.contains(part), "{flags} should be told {part:?}: {told}");
        }
    }
}
