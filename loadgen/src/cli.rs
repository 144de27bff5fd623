//! Commands, flags and exit codes. Reads arguments, calls what does the work, writes what came out.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "results go to stdout, talk to stderr")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use rand::Rng;
use reports::export::Format;
use reports::gate::model::Rule;
use reports::gate::rule::PAIRS_MIN;
use reports::gate::trials::SelfTest;
use reports::gate::{file as gate_file, show, stored};
use reports::model::Run;
use reports::{comparison, export, html, objective, schema, table, verdict};
use tokio::task::LocalSet;

use crate::calibrate;
use crate::capacity::{self, Wanted};
use crate::compare::{self, CompareArgs};
use crate::conform;
use crate::crash;
use crate::gate::{self, side::Side};
use crate::measure::{self, Context};
use crate::observe::machine;
use crate::plan::spelling::{Arrivals, AskedSizes, Span};
use crate::plan::{Asked, BUILT_IN, PlanError, Resolved};
use crate::run;
use crate::samples::SampleFile;
use crate::search::Bounds;
use crate::serve;

/// Exit code of a defect of this program or of the machine under it.
const EXIT_INTERNAL: u8 = 1;
/// Exit code of a command line or a plan that cannot be followed.
const EXIT_USAGE: u8 = 2;

const EXIT_CODES: &str = "Exit codes: 0 pass · 1 internal error · 2 usage · 3 objective missed, or an acknowledged event lost or \
duplicated · 4 inconclusive · 5 invalid (no data, dead target, generator could not keep up, interrupted)";

const RUN_EXAMPLES: &str = "Examples:
  loadgen run                                          the reference server in three modes, on SQLite, under two minutes
  loadgen run --slo 'response_time.p99 < 1ms'          the same, and exit 3 when a mode misses the objective
  loadgen run --mode cache-first --rate 10000 --idle 0s --repeat 5
  loadgen run --mode cache-first --shape 'ramp 100..20000' --duration 60s
  loadgen run --mode cache-first --replay monday.csv --replay-speed 2
  loadgen run --database postgres://me@localhost/postgres
  loadgen run --target http://127.0.0.1:8080           a server that already runs
  loadgen run --plan before-after                      the old design against the new";

const CAPACITY_EXAMPLES: &str = "Examples:
  loadgen capacity                                         the reference server, cache-first and db-first, p99 below 10 ms
  loadgen capacity --mode cache-first --slo 'response_time.p99 < 1ms' --fail-under 5000
  loadgen capacity --target http://127.0.0.1:8080 --rate-min 50 --rate-max 5000 --probe 10s";

const CRASH_EXAMPLES: &str = "Examples:
  loadgen crash                                                       every mode on SQLite, its process killed 20 times each
  loadgen crash --mode cache-first,db-first --database sqlite,postgres --kills 100
  sudo loadgen crash --kill power --mode db-first --kills 20          the power of the disk under its data is cut
  sudo loadgen crash --kill power --mode db-first --fault store-sync=off --expect-losses

What a loadgen leaves that was killed itself: folders named millrace-crash-* in --data-dir or the temporary folder, and nothing else \
(mounts and processes end with it); remove them with rm -r.";

const COMPARE_EXAMPLES: &str = "Examples:
  loadgen compare run.json                                  the variants or targets of one run
  loadgen compare old/run.json new/run.json                 the same plan on two days: named after the folders
  loadgen compare all/run.json capacities/run.json          with the response time against the rate
  loadgen compare all/run.json --reference cache-first --out comparison

Results of unlike plans or machines are refused with the fields that differ. Exit codes: 0 compared · 2 refused.";

const EXPORT_EXAMPLES: &str = "Examples:
  loadgen export run.json --format markdown >> $GITHUB_STEP_SUMMARY
  loadgen export run.json --format junit --out run.xml";

const CONFORM_EXAMPLES: &str = "Examples:
  loadgen conform                                                     the reference server, every mode that keeps events, on SQLite
  loadgen conform --mode cache-first --database sqlite,postgres://me@localhost/postgres
  loadgen conform --target http://127.0.0.1:8080 --junit conform.xml  a server that already runs
  loadgen conform --target targets/python --database postgres://me@localhost/postgres
  loadgen conform --rule I2,O5 --server ./ingest-server

Rules that need a server of their own (I6, O5, parts of D1 and I2) are tested where loadgen starts the target; on others they are \
\"not testable here\", which is no pass.";

const GATE_EXAMPLES: &str = "Examples:
  loadgen gate run.json --slo 'response_time.p99 < 1ms'                        one run against objectives
  loadgen gate --baseline './old/loadgen serve' --candidate 'loadgen serve'    a change against what there was, in about 6 minutes
  loadgen gate --baseline 'loadgen serve --mode cache-first' --candidate 'loadgen serve --mode journal-first' --metric p50,p99
  loadgen gate --candidate-fault cpu=10%                                       a slow-down on purpose, to see it found";

/// Measures event-ingestion servers so that nobody can argue with the result.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure: load, ledger, idle; writes run.json and report.html
    #[command(after_help = RUN_EXAMPLES, args_override_self = true)]
    Run(Box<RunArgs>),
    /// The highest rate at which the objectives hold, nothing is lost, and what is acknowledged is persisted as fast
    #[command(after_help = CAPACITY_EXAMPLES, args_override_self = true)]
    Capacity(Box<CapacityArgs>),
    /// What the reference server keeps of what it acknowledged when it is killed under load, again and again
    #[command(after_help = CRASH_EXAMPLES, args_override_self = true)]
    Crash(Box<CrashArgs>),
    /// Several results side by side: ratios with intervals, and who cannot be told apart; writes compare.json and compare.html
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(CompareArgs),
    /// Which rules of the contract (CONTRACT.md) a server keeps
    #[command(after_help = CONFORM_EXAMPLES, args_override_self = true)]
    Conform(Box<ConformArgs>),
    /// Whether a change made a server worse: exit 0 pass or improved, 3 regressed, 4 inconclusive, 5 invalid
    #[command(after_help = GATE_EXAMPLES, args_override_self = true)]
    Gate(Box<GateArgs>),
    /// What this machine can do at best: a server that does nothing, a timer, and the highest rate the generator can honestly offer
    #[command(args_override_self = true)]
    Calibrate(CalibrateArgs),
    /// Run the reference server (the same flags as ingest-server)
    #[command(args_override_self = true)]
    Serve(Box<serve::Settings>),
    /// Make report.html from a run.json
    Report(ReportArgs),
    /// Write a run.json in the format of another tool
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Plan file (TOML); flags win over it
    #[arg(value_name = "PLAN.toml", conflicts_with = "plan")]
    plan_file: Option<PathBuf>,

    /// Built-in plan
    #[arg(long, value_name = "NAME", value_parser = BUILT_IN.map(|(name, _)| name))]
    plan: Option<String>,

    #[command(flatten)]
    asked: Asked,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct CapacityArgs {
    #[command(flatten)]
    asked: Asked,

    /// First rate to try, events per second, 1 to 200000
    #[arg(long, value_name = "PER_S", default_value_t = 500.0)]
    rate_min: f64,

    /// Highest rate to try, events per second, up to 200000
    #[arg(long, value_name = "PER_S", default_value_t = 50_000.0)]
    rate_max: f64,

    /// How close the lowest rate that failed has to be to the highest that held, 0.5% to 100%
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = resolution)]
    resolution: f64,

    /// Length of a trial; it is longer where an objective's quantile needs more samples, up to 60 s
    #[arg(long, value_name = "TIME", default_value = "4s")]
    probe: Span,

    /// Trials at the rate found, all of which must hold, 1 to 100
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    confirm: u32,

    /// Exit 3 when the capacity is below this rate, events per second
    #[arg(long, value_name = "PER_S")]
    fail_under: Option<f64>,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct CrashArgs {
    #[command(flatten)]
    asked: crash::asked::Asked,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct ConformArgs {
    #[command(flatten)]
    asked: conform::asked::Asked,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct GateArgs {
    /// A run.json, to be judged by the objectives that it was run with and those of --slo: nothing is measured
    #[arg(value_name = "RUN.json")]
    run: Option<PathBuf>,

    /// Objective for RUN.json, such as 'response_time.p99 < 1ms'; repeatable
    #[arg(long, value_name = "OBJECTIVE", requires = "run")]
    slo: Vec<String>,

    #[command(flatten)]
    asked: gate::asked::Asked,

    /// Folder for gate.json and report.html [default: millrace-results/RUN_ID]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Print gate.json to stdout in place of the table
    #[arg(long)]
    json: bool,

    /// No progress
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct CalibrateArgs {
    /// Events per second at which the floor is taken, 0.1 to 200000
    #[arg(long, value_name = "PER_S", default_value_t = 1_000.0)]
    rate: f64,

    /// For how long it is taken
    #[arg(long, value_name = "TIME", default_value = "10s")]
    duration: Span,

    /// Highest rate to try, 1000 to 200000
    #[arg(long, value_name = "PER_S", default_value_t = calibrate::SEARCH.rate_per_s_max,
        value_parser = calibrate::rate_per_s_max)]
    rate_max: f64,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct OutputArgs {
    /// Folder for run.json and report.html [default: millrace-results/RUN_ID]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// File for every request of every repetition, one a row: when it was due, could be sent, was sent and was done, and what came of it
    #[arg(long, value_name = "FILE.csv")]
    samples: Option<PathBuf>,

    /// Print run.json to stdout in place of the table
    #[arg(long)]
    json: bool,

    /// No progress
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct ReportArgs {
    /// A run.json
    run: PathBuf,

    /// Where the page goes [default: report.html beside it]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// A run.json
    run: PathBuf,

    /// markdown (for the summary of a CI job), markdown-comment (for a pull request), junit, bmf (Bencher), github-smaller, github-bigger
    /// (github-action-benchmark), csv, hlog (HdrHistogram) or openmetrics
    #[arg(long, value_parser = Format::ALL.map(Format::name))]
    format: String,

    /// Where it goes [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A failure, and the exit code that goes with it.
struct Failure(u8, String);

/// The whole program.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(settings) => return serve::serve(*settings),
        Command::Run(arguments) => measure(*arguments),
        Command::Capacity(arguments) => seek_capacity(*arguments),
        Command::Crash(arguments) => kill(*arguments),
        Command::Conform(arguments) => test_contract(*arguments),
        Command::Gate(arguments) => decide(*arguments),
        Command::Calibrate(arguments) => calibrate(arguments),
        Command::Compare(arguments) => compare_results(&arguments).map(|()| 0),
        Command::Report(arguments) => report(&arguments).map(|()| 0),
        Command::Export(arguments) => write_export(&arguments).map(|()| 0),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(Failure(code, message)) => {
            eprintln!("error: {message}");
            ExitCode::from(code)
        }
    }
}

fn measure(arguments: RunArgs) -> Result<u8, Failure> {
    let base = match (&arguments.plan_file, &arguments.plan) {
        (Some(path), _) => Asked::from_file(path),
        (None, name) => Asked::built_in(name.as_deref().unwrap_or("default")),
    };
    let resolved = resolve(arguments.asked.over(base.map_err(usage)?))?;
    let plan = &resolved.plan;
    let output = Output::prepare(arguments.output)?;
    let seconds = run::expected_duration(plan).as_secs();
    output.announce(&format!(
        "plan '{}': {} variants × {}, about {seconds} s",
        plan.name,
        plan.variants.len(),
        plan.repeat
    ));
    output.finish(run::run(&resolved, &output.context))
}

const CAPACITY_PLAN: &str = "
name = 'capacity'
mode = ['cache-first', 'db-first']
warmup = '1s'
idle = '0s'
slo = ['response_time.p99 < 10ms']
";

fn seek_capacity(arguments: CapacityArgs) -> Result<u8, Failure> {
    let refuse = |text: String| Err(Failure(EXIT_USAGE, text));
    if let Some(key) = unfit_flag(&arguments.asked) {
        return refuse(format!(
            "{key} does not go with capacity, which chooses rate, length and number of its trials; leave it out"
        ));
    }
    let (rate_min, rate_max) = (arguments.rate_min, arguments.rate_max);
    if !(1.0..=rate_max).contains(&rate_min) || rate_max > calibrate::SEARCH.rate_per_s_max {
        return refuse(format!(
            "--rate-min {rate_min} --rate-max {rate_max}: allowed: 1 to {} events per second, the smaller one first",
            calibrate::SEARCH.rate_per_s_max
        ));
    }
    let base = Asked::from_toml(CAPACITY_PLAN, Path::new("capacity")).map_err(usage)?;
    let asked = Asked { rate: Some(rate_min), duration: Some(arguments.probe), ..arguments.asked };
    let resolved = resolve(asked.over(base))?;
    if let Some((objective, why)) = capacity::unfit_objective(&resolved.plan.objectives) {
        return refuse(format!("--slo '{objective}' {why}; give a bound in its own unit"));
    }
    let wanted = Wanted {
        bounds: Bounds {
            rate_per_s_min: rate_min,
            rate_per_s_max: rate_max,
            resolution: arguments.resolution,
            confirmations: arguments.confirm,
        },
        probe: arguments.probe.0,
        fail_under_per_s: arguments.fail_under,
    };
    let output = Output::prepare(arguments.output)?;
    let minutes = (wanted.expected_duration(&resolved.plan).as_secs_f64() / 60.0).ceil();
    output.announce(&format!(
        "the capacity of {}: rates from {rate_min} to {rate_max} per second, about {minutes} min",
        resolved.plan.variants.iter().map(|variant| variant.name.as_str()).collect::<Vec<_>>().join(", ")
    ));
    output.finish(capacity::run(&resolved, &wanted, &output.context))
}

/// A flag of a plan that says what the search decides.
fn unfit_flag(asked: &Asked) -> Option<&'static str> {
    let given = [
        ("--rate", asked.rate.is_some()),
        ("--duration", asked.duration.is_some()),
        ("--shape", asked.shape.is_some()),
        ("--replay", asked.replay.is_some()),
        ("--repeat", asked.repeat.is_some()),
        ("--idle", asked.idle.is_some()),
        ("--arrivals closed", asked.arrivals == Some(Arrivals::Closed)),
        ("--mode null", asked.mode.iter().any(|mode| mode == "null")),
    ];
    given.into_iter().find(|(_, given)| *given).map(|(key, _)| key)
}

/// `5%` or `0.05`.
fn resolution(text: &str) -> Result<f64, String> {
    let share = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    let share = share.ok().filter(|share| (0.005..=1.0).contains(share));
    share.ok_or_else(|| "allowed: 0.5% to 100%".to_owned())
}

const CRASH_PLAN: &str = "
name = 'crash'
warmup = '0s'
idle = '0s'
pacing = 'sleep'
no_calibration = true
";

/// A load lasts longer than any kill takes to come, by so much.
const LOAD_AFTER_KILL: Duration = Duration::from_secs(2);

fn kill(arguments: CrashArgs) -> Result<u8, Failure> {
    let refuse = |text: String| Failure(EXIT_USAGE, text);
    let asked = arguments.asked;
    let stores = asked.checked().map_err(refuse)?;
    if arguments.output.samples.is_some() {
        return Err(refuse("--samples does not go with crash, whose loads are not measured; leave it out".to_owned()));
    }
    let keeping = || serve::modes().into_iter().filter(|mode| mode != "null").collect();
    let modes: Vec<String> = if asked.mode.is_empty() { keeping() } else { asked.mode.clone() };
    let base = Asked::from_toml(CRASH_PLAN, Path::new("crash")).map_err(usage)?;
    let load = Asked {
        mode: modes.clone(),
        polling: vec![asked.polling.clone()],
        fault: asked.fault.clone(),
        rate: Some(asked.rate),
        duration: Some(Span(asked.load_max.0 + LOAD_AFTER_KILL)),
        drain_timeout: Some(asked.drain_timeout),
        connections: Some(asked.connections),
        payload_bytes: Some(AskedSizes::Fixed(asked.payload_bytes)),
        seed: Some(asked.seed),
        ..Asked::default()
    };
    let mut resolved = resolve(load.over(base))?;
    resolved.plan.database = Some(stores.iter().map(|store| store.name()).collect::<Vec<_>>().join(", "));
    if asked.kill == crash::asked::AskedKill::Power {
        crash::disk::take_own_mounts().map_err(|error| refuse(error.to_string()))?;
    }
    let output = Output::prepare(arguments.output)?;
    let minutes = (crash::expected_duration(&asked, modes.len(), &stores).as_secs_f64() / 60.0).ceil();
    output.announce(&format!(
        "{} kills of each of {} on {}, seed {}, about {minutes} min",
        asked.kills,
        modes.join(", "),
        stores.iter().map(|store| store.name()).collect::<Vec<_>>().join(", "),
        asked.seed
    ));
    output.finish(crash::run(&asked, &modes, &stores, &resolved.plan, &output.context))
}

const CONFORM_PLAN: &str = "
name = 'conform'
warmup = '0s'
idle = '0s'
pacing = 'sleep'
no_calibration = true
no_ledger = true
";

fn test_contract(arguments: ConformArgs) -> Result<u8, Failure> {
    let refuse = |text: String| Failure(EXIT_USAGE, text);
    let asked = arguments.asked;
    let stores = asked.stores().map_err(refuse)?;
    if arguments.output.samples.is_some() {
        return Err(refuse("--samples does not go with conform, which measures nothing; leave it out".to_owned()));
    }
    let keeping = || serve::modes().into_iter().filter(|mode| mode != "null").collect();
    let modes: Vec<String> = match (asked.target.is_empty(), asked.mode.is_empty()) {
        (true, true) => keeping(),
        _ => asked.mode.clone(),
    };
    let base = Asked::from_toml(CONFORM_PLAN, Path::new("conform")).map_err(usage)?;
    let database = conform::asked::Asked::postgres_url(&stores);
    let plan = Asked { target: asked.target.clone(), mode: modes, database, ..Asked::default() };
    let mut resolved = resolve(plan.over(base))?;
    if asked.target.is_empty() {
        resolved.plan.database = Some(stores.iter().map(|store| store.name()).collect::<Vec<_>>().join(", "));
    }
    let junit = asked.junit.clone();
    let output = Output::prepare(arguments.output)?;
    let targets = resolved.plan.variants.len() * if asked.target.is_empty() { stores.len() } else { 1 };
    output.announce(&format!(
        "{} rules of the contract on {} targets, about {} s",
        asked.rules().len(),
        targets,
        conform::expected_duration(targets).as_secs()
    ));
    output.finish_with(conform::run(&asked, &stores, &resolved, &output.context), |run| match &junit {
        None => Ok(()),
        Some(path) => std::fs::write(path, export::junit(run))
            .map_err(|error| Failure(EXIT_INTERNAL, format!("--junit {}: {error}", path.display()))),
    })
}

const GATE_PLAN: &str = "
name = 'gate'
no_calibration = true
";

fn decide(arguments: GateArgs) -> Result<u8, Failure> {
    if let Some(run) = &arguments.run {
        return judge_run(run, &arguments);
    }
    let wanted = gate_wanted(&arguments.asked)?;
    let (json, quiet) = (arguments.json, arguments.quiet);
    let output = Output::prepare(OutputArgs { out: arguments.out, samples: None, json, quiet })?;
    if arguments.asked.self_test {
        return test_gate(&arguments.asked, wanted, &output);
    }
    let (pairs, minutes) = (wanted.rule.pairs(), wanted.expected_duration().as_secs_f64() / 60.0);
    output.announce(&format!(
        "{} against {}: up to {pairs} pairs of rounds, about {} min",
        wanted.candidate.shown.name,
        wanted.baseline.shown.name,
        minutes.ceil()
    ));
    let found = output.block_on(gate::run(&wanted, &output.context))?;
    let folder = &output.folder;
    write_file(&folder.join("gate.json"), &gate_file::write(&found))?;
    write_file(&folder.join("report.html"), &html::gate::render(&found))?;
    if let Some(summary) = &arguments.asked.summary {
        append(summary, &show::markdown(&found))?;
    }
    if output.json {
        println!("{}", gate_file::write(&found));
    } else {
        println!("{}", show::terminal(&found));
    }
    eprintln!("{} and {}", folder.join("gate.json").display(), folder.join("report.html").display());
    Ok(found.verdict.exit_code)
}

/// What a gate is to compare, and how.
fn gate_wanted(asked: &gate::asked::Asked) -> Result<gate::Wanted, Failure> {
    let refuse = |text: String| Failure(EXIT_USAGE, text);
    let rule = asked.rule().map_err(refuse)?;
    let unsaid = (asked.mode.as_str(), asked.polling.as_str());
    let side = |name, text: &Option<String>, faults: &[String]| {
        Side::of(name, text.as_deref(), faults, unsaid).map_err(|error| refuse(error.to_string()))
    };
    let baseline = side("baseline", &asked.baseline, &asked.baseline_fault)?;
    let candidate = side("candidate", &asked.candidate, &asked.candidate_fault)?;
    let of_sides = |read: fn(&Side) -> Option<String>| [&baseline, &candidate].into_iter().filter_map(read).collect();
    let load = Asked {
        mode: of_sides(|side| side.variant.mode.clone()),
        polling: of_sides(|side| side.variant.polling.clone()),
        database: Some(asked.database.clone()),
        connections: Some(asked.connections),
        payload_bytes: Some(AskedSizes::Fixed(asked.payload_bytes)),
        seed: Some(asked.seed),
        ..Asked::default()
    };
    let lengths = asked.lengths();
    let load = Asked {
        rate: Some(lengths.rate_per_s),
        warmup: Some(lengths.warmup),
        duration: Some(lengths.duration),
        idle: Some(lengths.idle),
        ..load
    };
    let mut resolved = resolve(load.over(Asked::from_toml(GATE_PLAN, Path::new("gate")).map_err(usage)?))?;
    resolved.plan.variants = vec![baseline.variant.clone(), candidate.variant.clone()];
    resolved.plan.ledger = candidate.variant.mode.as_deref() != Some("null");
    let wanted = gate::Wanted { resolved, capacity: lengths.capacity.0, baseline, candidate, rule, stored: None };
    match &asked.against {
        Some(path) => against(path, wanted),
        None => Ok(wanted),
    }
}

/// With a baseline from a file.
fn against(path: &Path, mut wanted: gate::Wanted) -> Result<gate::Wanted, Failure> {
    let fail = |error: &dyn std::fmt::Display| Failure(EXIT_USAGE, format!("--against {}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| fail(&error))?;
    let stored = gate_file::read(&text).map_err(|error| fail(&error))?;
    let plan = &wanted.resolved.plan;
    let here = machine::environment(true, None, plan.pacing);
    let unlike =
        stored::unlike(&stored, &here, plan, wanted.capacity.as_millis() as u64, &measure::tool().build_profile);
    if !unlike.is_empty() {
        let differences = unlike.join("\n  ");
        return Err(fail(&format!(
            "it cannot be compared with what is measured here and now:\n  {differences}\nmeasure the baseline beside the candidate, with --baseline"
        )));
    }
    let rounds = stored::rounds(&stored);
    // Fewer where it stopped at its first look; a pair that is left out takes no round of it.
    let pairs = (rounds.len() as u32).min(wanted.rule.pairs()) / 2 * 2;
    if pairs < PAIRS_MIN {
        let found = rounds.len();
        return Err(fail(&format!("it has {found} rounds that count; it takes {PAIRS_MIN}; measure a longer one")));
    }
    let rule = Rule::new(wanted.rule.gated.clone(), pairs, wanted.rule.seed);
    // What cannot be measured again cannot be confirmed.
    wanted.rule = Rule { confirm: false, ..rule };
    wanted.baseline.shown = stored.candidate.clone();
    wanted.stored = Some(gate::Stored { path: path.display().to_string(), rounds });
    Ok(wanted)
}

/// Decisions of a self-test unless told otherwise, and in a quick one.
const DECISIONS: (u32, u32) = (60, 6);
/// Minutes of it.
const MINUTES: (u64, u64) = (10_000, 4);

fn test_gate(asked: &gate::asked::Asked, wanted: gate::Wanted, output: &Output) -> Result<u8, Failure> {
    let usual = |(full, quick)| if asked.quick { quick } else { full };
    let minutes = asked.minutes.unwrap_or(if asked.quick { MINUTES.1 } else { MINUTES.0 });
    let wish = gate::self_test::Wish {
        decisions: asked.decisions.unwrap_or(usual(DECISIONS)),
        time_max: Duration::from_secs(60 * minutes),
        server: (asked.mode.clone(), asked.polling.clone()),
        resolved: wanted.resolved,
        capacity: wanted.capacity,
        rule: wanted.rule,
    };
    let earlier = asked.add.iter().map(|path| Ok((path.display().to_string(), read_self_test(path)?)));
    let earlier = earlier.collect::<Result<_, _>>()?;
    let test = output
        .block_on(gate::self_test::test(&wish, earlier, &output.context))?
        .map_err(|error| Failure(EXIT_USAGE, error.to_string()))?;
    let json = serde_json::to_string(&test).map_err(|error| Failure(EXIT_INTERNAL, error.to_string()))?;
    write_file(&output.folder.join("self-test.json"), &json)?;
    write_file(&output.folder.join("self-test.md"), &test.markdown())?;
    if let Some(summary) = &asked.summary {
        append(summary, &test.markdown())?;
    }
    println!("{}", if output.json { json } else { test.terminal() });
    eprintln!("{}", output.folder.join("self-test.json").display());
    Ok(test.verdict().0)
}

fn read_self_test(path: &Path) -> Result<SelfTest, Failure> {
    let fail = |error: &dyn std::fmt::Display| Failure(EXIT_USAGE, format!("--add {}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| fail(&error))?;
    serde_json::from_str(&text).map_err(|error| fail(&error))
}

/// One run against objectives, its own and more.
fn judge_run(path: &Path, arguments: &GateArgs) -> Result<u8, Failure> {
    let fail = |error: &dyn std::fmt::Display| Failure(EXIT_USAGE, format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| fail(&error))?;
    let mut run = schema::read(&text).map_err(|error| fail(&error))?;
    let names: Vec<&str> = run.plan.variants.iter().map(|variant| variant.name.as_str()).collect();
    for text in &arguments.slo {
        objective::parse_for(text, &names).map_err(|error| Failure(EXIT_USAGE, format!("--slo: {error}")))?;
    }
    run.plan.objectives.extend(arguments.slo.iter().cloned());
    if run.plan.objectives.is_empty() {
        return Err(fail(&"it has no objective, and none was given: nothing could fail; give --slo"));
    }
    verdict::assess(&mut run);
    if arguments.json {
        println!("{}", schema::write(&run));
    } else {
        println!("{}", table::render(&run));
    }
    Ok(run.verdict.exit_code)
}

const CALIBRATE_PLAN: &str = "
name = 'calibrate'
mode = ['null']
warmup = '2s'
idle = '0s'
no_ledger = true
";

fn calibrate(arguments: CalibrateArgs) -> Result<u8, Failure> {
    let base = Asked::from_toml(CALIBRATE_PLAN, Path::new("calibrate")).map_err(usage)?;
    let (rate, duration) = (Some(arguments.rate), Some(arguments.duration));
    let resolved = resolve(Asked { rate, duration, ..Asked::default() }.over(base))?;
    let output = Output::prepare(arguments.output)?;
    let seconds = calibrate::expected_duration_full(&resolved.plan).as_secs();
    output.announce(&format!("the floor of this machine, and how fast it can go: about {seconds} s"));
    output.finish(calibrate::full(&resolved, &output.context, arguments.rate_max))
}

fn usage(error: PlanError) -> Failure {
    Failure(EXIT_USAGE, error.to_string())
}

fn resolve(asked: Asked) -> Result<Resolved, Failure> {
    asked.resolve(&serve::modes(), &serve::pollings()).map_err(usage)
}

/// Where a measurement goes.
struct Output {
    folder: PathBuf,
    json: bool,
    context: Context,
}

impl Output {
    fn prepare(arguments: OutputArgs) -> Result<Self, Failure> {
        let run_id = new_run_id();
        let folder = arguments.out.unwrap_or_else(|| Path::new("millrace-results").join(&run_id));
        // Before the run: a path that cannot be written must not cost two minutes.
        std::fs::create_dir_all(&folder)
            .map_err(|error| Failure(EXIT_USAGE, format!("--out {}: {error}", folder.display())))?;
        let samples = arguments.samples.as_ref().map(|path| {
            SampleFile::create(path)
                .map_err(|error| Failure(EXIT_USAGE, format!("--samples {}: {error}", path.display())))
        });
        let context = Context {
            run_id,
            samples: samples.transpose()?,
            command: without_secrets(std::env::args()),
            stop: Arc::new(AtomicBool::new(false)),
            quiet: arguments.quiet,
        };
        Ok(Self { folder, json: arguments.json, context })
    }

    fn announce(&self, sentence: &str) {
        if !self.context.quiet {
            eprintln!("{sentence}");
        }
    }

    /// Waits for what is measured, or for a signal to end it early.
    fn block_on<T>(&self, measuring: impl Future<Output = T>) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure(EXIT_INTERNAL, format!("no async runtime: {error}")))?;
        Ok(LocalSet::new().block_on(&runtime, async {
            tokio::spawn(stop_on_signal(Arc::clone(&self.context.stop)));
            measuring.await
        }))
    }

    /// Measures, judges, writes and prints; the exit code.
    fn finish(&self, measuring: impl Future<Output = Run>) -> Result<u8, Failure> {
        self.finish_with(measuring, |_| Ok(()))
    }

    /// The same, and writes what else was asked for.
    fn finish_with(
        &self,
        measuring: impl Future<Output = Run>,
        also: impl FnOnce(&Run) -> Result<(), Failure>,
    ) -> Result<u8, Failure> {
        let mut run = self.block_on(measuring)?;
        verdict::assess(&mut run);
        write(&run, &self.folder)?;
        also(&run)?;
        if self.json {
            println!("{}", schema::write(&run));
        } else {
            println!("{}", table::render(&run));
        }
        eprintln!("{} and {}", self.folder.join("run.json").display(), self.folder.join("report.html").display());
        Ok(run.verdict.exit_code)
    }
}

fn write(run: &Run, out: &Path) -> Result<(), Failure> {
    for (name, text) in [("run.json", schema::write(run)), ("report.html", html::render(run))] {
        write_file(&out.join(name), &text)?;
    }
    Ok(())
}

fn compare_results(arguments: &CompareArgs) -> Result<(), Failure> {
    let (comparison, files) = compare::compare(arguments).map_err(|error| Failure(EXIT_USAGE, error.to_string()))?;
    match arguments.json {
        true => println!("{}", comparison::write(&comparison)),
        false => println!("{}", comparison::terminal(&comparison)),
    }
    eprintln!("{} and {}", files[0].display(), files[1].display());
    Ok(())
}

fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure(EXIT_INTERNAL, format!("cannot write {}: {error}", path.display())))
}

fn append(path: &Path, text: &str) -> Result<(), Failure> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure(EXIT_INTERNAL, format!("--summary {}: {error}", path.display())))
}

fn report(arguments: &ReportArgs) -> Result<(), Failure> {
    let fail = |error: &dyn std::fmt::Display| Failure(EXIT_USAGE, format!("{}: {error}", arguments.run.display()));
    let text = std::fs::read_to_string(&arguments.run).map_err(|error| fail(&error))?;
    let run = schema::read(&text).map_err(|error| fail(&error))?;
    let out = arguments.out.clone().unwrap_or_else(|| arguments.run.with_file_name("report.html"));
    std::fs::write(&out, html::render(&run))
        .map_err(|error| Failure(EXIT_USAGE, format!("{}: {error}", out.display())))?;
    println!("{}", out.display());
    Ok(())
}

fn write_export(arguments: &ExportArgs) -> Result<(), Failure> {
    let fail = |error: &dyn std::fmt::Display| Failure(EXIT_USAGE, format!("{}: {error}", arguments.run.display()));
    let text = std::fs::read_to_string(&arguments.run).map_err(|error| fail(&error))?;
    let run = schema::read(&text).map_err(|error| fail(&error))?;
    let format = Format::from_name(&arguments.format).ok_or_else(|| fail(&"no such format"))?;
    let text = export::export(&run, format).map_err(|error| fail(&error))?;
    match &arguments.out {
        Some(path) => std::fs::write(path, text)
            .map_err(|error| Failure(EXIT_USAGE, format!("--out {}: {error}", path.display()))),
        None => {
            print!("{text}");
            Ok(())
        }
    }
}

/// The command line for the result, which is meant to be shown around: keys and passwords are struck out.
fn without_secrets(arguments: impl Iterator<Item = String>) -> Vec<String> {
    const STRUCK_OUT: &str = "***";
    let mut key_follows = false;
    let strike_out = |argument: String| {
        if std::mem::replace(&mut key_follows, argument == "--api-key") {
            return STRUCK_OUT.to_owned();
        }
        if argument.starts_with("--api-key=") {
            return format!("--api-key={STRUCK_OUT}");
        }
        let (flag, value) = argument.split_at(argument.find("=postgres").map_or(0, |at| at + 1));
        let mut url = value.parse::<url::Url>().ok().filter(|url| url.password().is_some());
        if let Some(url) = &mut url {
            // It has a password, so it can have another.
            let _ = url.set_password(Some(STRUCK_OUT));
        }
        url.map_or_else(|| argument.clone(), |url| format!("{flag}{url}"))
    };
    arguments.map(strike_out).collect()
}

/// The first signal ends the run early, with a report; the second ends the program.
async fn stop_on_signal(stop: Arc<AtomicBool>) {
    while tokio::signal::ctrl_c().await.is_ok() {
        if stop.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\ninterrupted: ending this phase and writing what there is (once more to quit at once)");
    }
}

/// Sorts by time, and two runs begun in the same second still differ.
fn new_run_id() -> String {
    let now = jiff::Timestamp::now();
    format!("{}-{:04x}", now.strftime("%Y%m%dt%H%M%S"), rand::rng().random::<u16>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_passwords_do_not_reach_the_result() {
        for (given, shown) in [
            ("loadgen run --api-key mr_live_x --rate 5", "loadgen run --api-key *** --rate 5"),
            ("loadgen run --api-key=mr_live_x", "loadgen run --api-key=***"),
            ("--database postgres://me:secret@h/db", "--database postgres://me:***@h/db"),
            ("--database=postgres://me:secret@h/db", "--database=postgres://me:***@h/db"),
            (
                "--target http://127.0.0.1:1 --database postgres://me@h/db",
                "--target http://127.0.0.1:1 --database postgres://me@h/db",
            ),
        ] {
            let arguments = given.split(' ').map(str::to_owned);
            assert_eq!(without_secrets(arguments).join(" "), shown);
        }
    }
}
