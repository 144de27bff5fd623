//! `loadgen gate`: one run against objectives, a candidate against a baseline, or the gate against itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use reports::gate::model::Rule;
use reports::gate::rule::PAIRS_MIN;
use reports::gate::trials::SelfTest;
use reports::gate::{file as gate_file, show, stored};
use reports::model::Realtime;
use reports::{format, html, objective, schema, table, verdict};

use super::forecast::{Forecast, Step, judged_by, load};
use super::invocation::Invocation;
use super::output::{Output, OutputArgs, append};
use super::terminal::{print_result, print_text};
use super::{EXIT_INTERNAL, EXIT_USAGE, Failure, read_run, resolve, usage};
use crate::gate::{self, side::Side};
use crate::measure;
use crate::observe::machine;
use crate::plan::Asked;
use crate::plan::spelling::AskedSizes;

pub(super) const EXAMPLES: &str = "Examples:
  # one run against objectives: nothing is measured
  loadgen gate run.json --slo 'response_time.p99 < 1ms'
  # a change against what there was, in about 6 minutes
  loadgen gate --baseline './old/loadgen serve' --candidate 'loadgen serve'
  # one mode against another, by two metrics
  loadgen gate --baseline 'loadgen serve --mode cache-first' \\
    --candidate 'loadgen serve --mode journal-first' --metric p50,p99
  # against the candidate of an earlier gate, with a summary for CI
  loadgen gate --against gate.json --summary $GITHUB_STEP_SUMMARY
  # a slow-down on purpose, to see it found
  loadgen gate --candidate-fault cpu=10%
  # how often is this gate wrong on this machine?
  loadgen gate --self-test --quick";

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

    #[command(flatten)]
    output: OutputArgs,
}

const GATE_PLAN: &str = "
name = 'gate'
no_calibration = true
";

/// Decides; the exit code.
pub(super) fn run(arguments: Arguments, invocation: &Invocation) -> Result<u8, Failure> {
    let Arguments { run, slo, asked, output } = arguments;
    if let Some(run) = &run {
        return judge_run(run, &slo, &output);
    }
    let wanted = wanted(&asked)?;
    let forecast = if asked.self_test { forecast_of_test(&asked, &wanted) } else { forecast(&wanted) };
    let Some(output) = Output::begin(output, None, &forecast, invocation)? else { return Ok(0) };
    if asked.self_test {
        return test_gate(&asked, wanted, &output);
    }
    let found = output.block_on(gate::run(&wanted, &output.context))?;
    let json = gate_file::write(&found);
    output.write("gate.json", &json)?;
    output.write("report.html", &html::gate::render(&found))?;
    if let Some(summary) = &asked.summary {
        append(summary, &show::markdown(&found))?;
    }
    if output.json {
        print_text(&(json + "\n"))
    } else {
        print_result(&(show::terminal(&found) + "\n"))
    }
    let file = output.folder.join("gate.json");
    let next = format!("loadgen gate --against {} decides against this candidate the next time", file.display());
    output.end(&["gate.json", "report.html"], &next);
    Ok(found.verdict.exit_code)
}

fn forecast(wanted: &gate::Wanted) -> Forecast {
    let (baseline, candidate) = (&wanted.baseline.shown.name, &wanted.candidate.shown.name);
    let pairs = wanted.rule.pairs();
    if wanted.is_vain() {
        let why = "nothing: baseline and candidate are the same program with the same flags; name two, or give --allow-identical";
        return Forecast {
            command: "gate",
            summary: format!("{candidate} against itself"),
            seconds: 0.0,
            steps: vec![Step::new(why, Duration::ZERO)],
            files: vec!["gate.json", "report.html"],
        };
    }
    let closed = match wanted.capacity.is_zero() {
        true => String::new(),
        false => format!(", {} of a closed loop", format::seconds(wanted.capacity.as_secs_f64())),
    };
    let sides = if wanted.stored.is_some() {
        "the candidate alone"
    } else {
        "baseline and candidate, in an order that the seed draws"
    };
    let round = format!("up to {pairs} pairs of rounds ({sides}): {}{closed}", load(&wanted.resolved.plan, None));
    let metrics: Vec<&str> = wanted.rule.gated.iter().map(|gated| gated.metric.name()).collect();
    let mut steps = vec![
        Step::new(round, wanted.expected_duration()),
        Step::new(format!("decided: {}; as soon as the answer is certain", metrics.join(", ")), Duration::ZERO),
    ];
    if wanted.rule.confirm {
        steps.push(Step::new(
            "a metric that regressed is asked for once more, with fresh rounds: as long again at most",
            Duration::ZERO,
        ));
    }
    Forecast {
        command: "gate",
        summary: format!("{candidate} against {baseline}: up to {pairs} pairs of rounds"),
        seconds: wanted.expected_duration().as_secs_f64(),
        steps,
        files: vec!["gate.json", "report.html"],
    }
}

fn forecast_of_test(asked: &gate::asked::Asked, wanted: &gate::Wanted) -> Forecast {
    let (decisions, time_max) = (decisions(asked), time_max(asked));
    // Beside those on one program against itself there are about as many on the faults.
    let all = wanted.expected_duration() * decisions * 2;
    Forecast {
        command: "gate",
        summary: format!("the gate against itself: {decisions} decisions on one program, and some on each fault"),
        seconds: all.min(time_max).as_secs_f64(),
        steps: vec![Step::new(
            format!(
                "decisions of up to {} pairs each, none that would not end in {}",
                wanted.rule.pairs(),
                format::seconds(time_max.as_secs_f64())
            ),
            all.min(time_max),
        )],
        files: vec!["self-test.json", "self-test.md"],
    }
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
    let is_foreign = baseline.profile.is_some() && candidate.profile.is_some();
    if is_foreign && asked.realtime.is_some_and(|who| Realtime::from(who).has_server()) {
        return Err(refuse("--realtime: neither side is the reference server; give --realtime sender".to_owned()));
    }
    let of_sides = |read: fn(&Side) -> Option<String>| [&baseline, &candidate].into_iter().filter_map(read).collect();
    let load = Asked {
        mode: of_sides(|side| side.variant.mode.clone()),
        polling: of_sides(|side| side.variant.polling.clone()),
        database: Some(asked.database.clone()),
        connections: Some(asked.connections),
        realtime: asked.realtime,
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
    let fail = |error: &dyn std::fmt::Display| Failure::reading("--against", path, error);
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

fn decisions(asked: &gate::asked::Asked) -> u32 {
    asked.decisions.unwrap_or(if asked.quick { DECISIONS.1 } else { DECISIONS.0 })
}

fn time_max(asked: &gate::asked::Asked) -> Duration {
    Duration::from_secs(60 * asked.minutes.unwrap_or(if asked.quick { MINUTES.1 } else { MINUTES.0 }))
}

fn test_gate(asked: &gate::asked::Asked, wanted: gate::Wanted, output: &Output) -> Result<u8, Failure> {
    let wish = gate::self_test::Wish {
        decisions: decisions(asked),
        changes: asked.changes().to_vec(),
        time_max: time_max(asked),
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
    output.write("self-test.json", &json)?;
    output.write("self-test.md", &test.markdown())?;
    if let Some(summary) = &asked.summary {
        append(summary, &test.markdown())?;
    }
    if output.json {
        print_text(&(json + "\n"))
    } else {
        print_result(&(test.terminal() + "\n"))
    }
    let file = output.folder.join("self-test.json");
    let next = format!("loadgen gate --self-test --add {} counts these decisions, too", file.display());
    output.end(&["self-test.json"], &next);
    Ok(test.verdict().0)
}

fn read_self_test(path: &Path) -> Result<SelfTest, Failure> {
    let fail = |error: &dyn std::fmt::Display| Failure::reading("--add", path, error);
    let text = std::fs::read_to_string(path).map_err(|error| fail(&error))?;
    serde_json::from_str(&text).map_err(|error| fail(&error))
}

/// One run against objectives, its own and more.
fn judge_run(path: &Path, slo: &[String], output: &OutputArgs) -> Result<u8, Failure> {
    let (path, mut run) = read_run(path)?;
    let names: Vec<&str> = run.plan.variants.iter().map(|variant| variant.name.as_str()).collect();
    for text in slo {
        objective::parse_for(text, &names).map_err(|error| Failure(EXIT_USAGE, format!("--slo: {error}")))?;
    }
    run.plan.objectives.extend(slo.iter().cloned());
    if run.plan.objectives.is_empty() {
        let told = "has no objective, and none was given: nothing could fail; give --slo";
        return Err(Failure(EXIT_USAGE, format!("{}: {told}", path.display())));
    }
    if output.dry_run {
        let forecast = Forecast {
            command: "gate",
            summary: format!(
                "{} against {} objectives: nothing is measured",
                path.display(),
                run.plan.objectives.len()
            ),
            seconds: 0.0,
            steps: vec![judged_by(&run.plan.objectives)],
            files: Vec::new(),
        };
        return forecast.tell(output.json, Path::new("")).map(|()| 0);
    }
    verdict::assess(&mut run);
    match output.json {
        true => print_text(&(schema::write(&run) + "\n")),
        false => print_result(&(table::render(&run) + "\n")),
    }
    Ok(run.verdict.exit_code)
}
