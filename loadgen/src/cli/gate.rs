//! `loadgen gate`: one run against objectives, a candidate against a baseline, or the gate against itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use reports::gate::model::Rule;
use reports::gate::rule::PAIRS_MIN;
use reports::gate::trials::SelfTest;
use reports::gate::{file as gate_file, show, stored};
use reports::{html, objective, schema, table, verdict};

use super::output::{Output, OutputArgs, append, write_file};
use super::{EXIT_INTERNAL, EXIT_USAGE, Failure, resolve, usage};
use crate::gate::{self, side::Side};
use crate::measure;
use crate::observe::machine;
use crate::plan::Asked;
use crate::plan::spelling::AskedSizes;

pub(super) const EXAMPLES: &str = "Examples:
  loadgen gate run.json --slo 'response_time.p99 < 1ms'                        one run against objectives
  loadgen gate --baseline './old/loadgen serve' --candidate 'loadgen serve'    a change against what there was, in about 6 minutes
  loadgen gate --baseline 'loadgen serve --mode cache-first' --candidate 'loadgen serve --mode journal-first' --metric p50,p99
  loadgen gate --candidate-fault cpu=10%                                       a slow-down on purpose, to see it found";

/// Flags.
#[derive(Debug, Args)]
pub(super) struct Arguments {
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

const GATE_PLAN: &str = "
name = 'gate'
no_calibration = true
";

/// Decides; the exit code.
pub(super) fn run(arguments: Arguments) -> Result<u8, Failure> {
    if let Some(run) = &arguments.run {
        return judge_run(run, &arguments);
    }
    let wanted = wanted(&arguments.asked)?;
    let (json, quiet) = (arguments.json, arguments.quiet);
    let output = Output::prepare(OutputArgs { out: arguments.out, samples: None, json, quiet, tui: false })?;
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
fn wanted(asked: &gate::asked::Asked) -> Result<gate::Wanted, Failure> {
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
fn judge_run(path: &Path, arguments: &Arguments) -> Result<u8, Failure> {
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
