//! `loadgen run`: a plan out of flags, variables, a file or the built-in ones, measured.

use std::path::{Path, PathBuf};

use clap::Args;
use otlp::Endpoint;
use reports::format;

use super::forecast::{Forecast, Step, judged_by, load};
use super::invocation::Invocation;
use super::output::{Output, OutputArgs, SamplesArgs};
use super::{Command, EXIT_INTERNAL, EXIT_USAGE, Failure, resolve, usage};
use crate::calibrate;
use crate::plan::{Asked, BUILT_IN, Part, Resolved, limit};
use crate::shard::Shard;
use crate::start::AskedStart;
use crate::telemetry::Telemetry;

pub(super) const EXAMPLES: &str = "Examples:
  # the reference server in three modes, on SQLite, in under two minutes
  loadgen run
  # the same, and exit 3 when a mode misses the objective
  loadgen run --slo 'response_time.p99 < 1ms'
  # one mode, faster, five times
  loadgen run --mode cache-first --rate 10000 --idle 0s --repeat 5
  # a rate that rises, and one that was recorded
  loadgen run --mode cache-first --shape 'ramp 100..20000' --duration 60s
  loadgen run --mode cache-first --replay monday.csv --replay-speed 2
  # on PostgreSQL
  loadgen run --database postgres://me@localhost/postgres
  # a server that already runs
  loadgen run --target http://127.0.0.1:8080
  # followed from the generator to the database, by a receiver of OpenTelemetry
  loadgen run --mode cache-first --otlp http://127.0.0.1:4318
  # a part of a load that four machines offer together; then: loadgen merge
  loadgen run --target http://127.0.0.1:8080 --shard 0/4 --run-id monday-1 --start-at +60s --rate 80000
  # the old design against the new; a plan of your own; what it would do
  loadgen run --plan before-after
  loadgen run nightly.toml --open
  loadgen run nightly.toml --dry-run";

/// Flags.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Plan file (TOML); flags and variables win over it
    #[arg(value_name = "PLAN.toml", conflicts_with = "plan")]
    plan_file: Option<PathBuf>,

    /// Built-in plan (`loadgen plans` lists them)
    #[arg(long, value_name = "NAME", value_parser = BUILT_IN.map(|(name, _)| name))]
    plan: Option<String>,

    #[command(flatten)]
    asked: Asked,

    #[command(flatten)]
    part: PartArgs,

    #[command(flatten)]
    samples: SamplesArgs,

    #[command(flatten)]
    telemetry: TelemetryArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// Heading of the flags in `--help`.
const TELEMETRY: &str = "OpenTelemetry (off by default)";

/// Share of requests that are followed unless another one is asked for: a few a second at usual rates.
const OTLP_SHARE_DEFAULT: f64 = 0.01;

/// Flags of a run that can be followed from outside.
#[derive(Debug, Args)]
struct TelemetryArgs {
    /// Receiver of spans and metrics, by OTLP over HTTP: http://HOST:PORT, the port usually 4318 [default: none]
    ///
    /// Every request then carries a traceparent; a reference server that is started tells the same receiver how it went on. What that costs is
    /// in the numbers (docs/opentelemetry.md)
    #[arg(long, value_name = "URL", help_heading = TELEMETRY)]
    otlp: Option<Endpoint>,

    /// Share of the requests, 0 to 1, that are followed, each with its spans [default: 0.01]
    #[arg(long, value_name = "SHARE", requires = "otlp", value_parser = limit::OTLP_SHARE.within(), help_heading = TELEMETRY)]
    otlp_share: Option<f64>,
}

impl TelemetryArgs {
    fn share(&self) -> Option<f64> {
        self.otlp.as_ref().map(|_| self.otlp_share.unwrap_or(OTLP_SHARE_DEFAULT))
    }

    fn start(self, run_id: &str) -> Result<Option<std::sync::Arc<Telemetry>>, Failure> {
        let Some((endpoint, share)) = self.share().and_then(|share| Some((self.otlp?, share))) else { return Ok(None) };
        let started = Telemetry::start(endpoint, share, run_id);
        started.map(Some).map_err(|error| Failure(EXIT_INTERNAL, format!("--otlp: no thread to send from: {error}")))
    }
}

/// Heading of the flags in `--help`.
const SEVERAL: &str = "Several generators";

/// Flags of a load that several generators offer together.
#[derive(Debug, Args)]
struct PartArgs {
    /// Send one part of the load alone, K/N: which (from 0) of how many (1 to 256); needs --run-id and --start-at
    ///
    /// The plan is that of the whole load, and the same for all parts: rate and connections are shared out. Kubernetes counts the pods of an
    /// Indexed Job from 0 as well (JOB_COMPLETION_INDEX), and so does a Slurm array (SLURM_ARRAY_TASK_ID) of --array=0-3. `loadgen merge` makes
    /// one result of all
    #[arg(long, value_name = "K/N", help_heading = SEVERAL)]
    shard: Option<Shard>,

    /// When the steady phase begins: RFC 3339, or a length from now such as +30s, which is rounded up to a multiple of itself
    ///
    /// By the target's clock, as far as its answers show it; at most 24 h away
    #[arg(long, value_name = "TIME", help_heading = SEVERAL)]
    start_at: Option<AskedStart>,

    /// Name that all parts of one load have in common: 1 to 40 lower-case letters, digits and hyphens
    #[arg(long, value_name = "ID", value_parser = run_id, help_heading = SEVERAL)]
    run_id: Option<String>,
}

/// Longest name of a run that is given, characters.
const RUN_ID_MAX: usize = 40;

fn run_id(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match (1..=RUN_ID_MAX).contains(&text.len()) && text.chars().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "allowed: 1 to {RUN_ID_MAX} lower-case letters, digits and hyphens; such as the number of a job"
        )),
    }
}

impl PartArgs {
    /// The part, its start and the run's name, when only a part is sent.
    fn checked(&self) -> Result<Option<(Shard, AskedStart, &str)>, Failure> {
        let usage = |told: &str| Err(Failure(EXIT_USAGE, told.to_owned()));
        match (self.shard, self.start_at, &self.run_id) {
            (Some(shard), Some(start), Some(run_id)) => Ok(Some((shard, start, run_id))),
            (Some(_), None, _) => usage(
                "--shard: all parts have to begin together, and nobody says when; give --start-at TIME, the same to all",
            ),
            (Some(_), _, None) => usage(
                "--shard: nothing says which parts belong together; give --run-id ID, the same to all and another one for each load",
            ),
            (None, None, None) => Ok(None),
            (None, Some(_), _) => usage("--start-at: is for parts of a load; give --shard K/N, or leave it out"),
            (None, None, Some(_)) => usage("--run-id: is for parts of a load; give --shard K/N, or leave it out"),
        }
    }
}

/// Measures; the exit code.
pub(super) fn run(arguments: Arguments, invocation: &Invocation) -> Result<u8, Failure> {
    let base = match (&arguments.plan_file, &arguments.plan) {
        (Some(path), _) => Asked::from_file(path),
        (None, name) => Asked::built_in(name.as_deref().unwrap_or("default")),
    };
    let of = |command| if let Command::Run(arguments) = command { Some(arguments.asked) } else { None };
    let mut asked = invocation.layered(arguments.asked, of).over(base.map_err(usage)?);
    let part = arguments.part.checked()?;
    asked.shard = part.map(|(shard, ..)| shard);
    let mut resolved = resolve(asked)?;
    resolved.plan.followed_share = arguments.telemetry.share();
    let mut output = arguments.output;
    if let Some((shard, start, run_id)) = part {
        let floor = calibrate::expected_duration(&resolved.plan);
        let start_at = start.of(&resolved.plan, floor, jiff::Timestamp::now()).map_err(usage)?;
        resolved = resolved.shared_out(shard, start_at).map_err(usage)?;
        let folder = Path::new("millrace-results").join(run_id).join(shard.number.to_string());
        output.out.get_or_insert(folder);
    }
    let forecast = forecast(&resolved);
    match Output::begin(output, arguments.samples.samples.as_deref(), &forecast, invocation)? {
        Some(mut output) => {
            if let Some((.., run_id)) = part {
                run_id.clone_into(&mut output.context.run_id);
            }
            output.context.telemetry = arguments.telemetry.start(&output.context.run_id)?;
            output.finish(crate::run::run(&resolved, &output.context))
        }
        None => Ok(0),
    }
}

fn forecast(resolved: &Resolved) -> Forecast {
    let plan = &resolved.plan;
    let floor = calibrate::expected_duration(plan);
    let total = crate::run::expected_duration(plan);
    let each = (total - floor) / plan.variants.len().max(1) as u32;
    let mut steps = Vec::new();
    if !floor.is_zero() {
        steps.push(Step::new("the floor of this machine: a server that does nothing, at the same rate", floor));
    }
    let times = if plan.repeat > 1 {
        format!(", {} times, in an order that the seed draws", plan.repeat)
    } else {
        String::new()
    };
    for variant in &plan.variants {
        let started = if variant.url.is_some() { "" } else { "started, " };
        steps.push(Step::new(
            format!("{}{times}: {started}{}", variant.name, load(plan, variant.mode.as_deref())),
            each,
        ));
    }
    steps.push(match resolved.part {
        None => judged_by(&plan.objectives),
        Some(Part { shard, start_at }) => Step::new(
            format!(
                "of that, part {shard} alone: {} on {}, steady from {start_at} on; judged by loadgen merge, with the others",
                format::rate(resolved.rate_per_s()),
                format::counted(u64::from(resolved.connections()), "connection")
            ),
            std::time::Duration::ZERO,
        ),
    });
    Forecast {
        command: "run",
        summary: format!("plan '{}': {} variants × {}", plan.name, plan.variants.len(), plan.repeat),
        seconds: total.as_secs_f64(),
        steps,
        files: vec!["run.json", "report.html"],
    }
}
