//! `loadgen conform`: does a target keep the contract? One check a rule id of CONTRACT.md, over HTTP, in `rules`.
//!
//! Order and bookkeeping only. `place` is where a target is tested, `bench` what every check works with, `door` a request and its
//! answer, `sheet` what was found of a rule, `hook` a receiver of webhooks. What it all means is [`reports::conform`]'s.

pub mod asked;
mod bench;
mod door;
mod hook;
mod json_text;
mod place;
mod rules;
mod sheet;

use std::sync::Arc;
use std::time::Duration;

use reports::conform::{self, Rule};
use reports::model::{Conformance, RuleOutcome, RuleResult, Run};
use tokio::time::Instant;

use self::asked::{Asked, AskedStore};
use self::bench::Bench;
use self::door::Door;
use self::place::Subject;
use self::rules::BESIDE;
use self::sheet::{Sheet, Stop};
use crate::measure::{Context, Findings};
use crate::observe::machine;
use crate::plan::Resolved;
use crate::target::{Reach, Target};

/// Of a target, roughly.
const TARGET_EXPECTED: Duration = Duration::from_secs(5);

/// One target under its name.
#[derive(Clone, Debug)]
struct Named {
    name: String,
    subject: Subject,
    /// Kind of its database, where that is known.
    database: Option<String>,
}

/// How long it all takes, roughly.
pub fn expected_duration(targets: usize) -> Duration {
    TARGET_EXPECTED * targets as u32
}

/// Tests every target, one after the other. Must be awaited on a `LocalSet`.
pub async fn run(asked: &Asked, stores: &[AskedStore], resolved: &Resolved, context: &Context) -> Run {
    let plan = &resolved.plan;
    let subjects = subjects(asked, stores, resolved, &context.run_id);
    let progress = context.progress(expected_duration(subjects.len()));
    let findings = Findings::begin();
    let rules = asked.rules();
    let mut conformance = Vec::new();
    for named in &subjects {
        if context.is_stopped() {
            break;
        }
        progress.phase(&named.name, "rule by rule", None);
        let found = examine(named, &rules, context).await;
        progress.say(&conform::sentence(&found));
        conformance.push(found);
    }
    // What loadgen starts itself has no URL of its own in the plan.
    let is_here = |url: &str| Target::new(url, &Reach::default()).is_ok_and(|target| target.is_local());
    let is_local = plan.variants.iter().all(|variant| variant.url.as_deref().is_none_or(is_here));
    let environment = machine::environment(is_local, is_local.then(std::env::temp_dir).as_deref(), plan.pacing);
    Run { environment, conformance, ..findings.into_run(context, plan) }
}

fn subjects(asked: &Asked, stores: &[AskedStore], resolved: &Resolved, run_id: &str) -> Vec<Named> {
    let database_prefix = format!("millrace_{}", run_id.replace('-', "_"));
    let mut subjects = Vec::new();
    for variant in &resolved.plan.variants {
        let name = variant.name.clone();
        match (resolved.profiles.get(&name), &variant.url, &variant.mode) {
            (Some(profile), ..) => {
                let (profile, postgres_url) = (Arc::clone(profile), resolved.postgres_url.clone());
                let subject = Subject::Profile { profile, postgres_url, database_prefix: database_prefix.clone() };
                subjects.push(Named { name, subject, database: resolved.plan.database.clone() });
            }
            (None, Some(url), _) => {
                subjects.push(Named { name, subject: Subject::Running { url: url.clone() }, database: None });
            }
            (None, None, mode) => subjects.extend(stores.iter().map(|store| {
                let subject = Subject::Reference {
                    mode: mode.clone().unwrap_or_default(),
                    postgres_url: Asked::postgres_url(std::slice::from_ref(store)),
                    program: asked.server.clone(),
                    database_prefix: database_prefix.clone(),
                };
                Named { name: format!("{name} on {}", store.name()), subject, database: Some(store.name().to_owned()) }
            })),
        }
    }
    subjects
}

/// Tests one target. Whatever happens, what was found is kept.
async fn examine(named: &Named, rules: &[Rule], context: &Context) -> Conformance {
    let begin = Instant::now();
    let (url, mode) = match &named.subject {
        Subject::Running { url } => (Some(url.clone()), None),
        Subject::Profile { .. } => (None, None),
        Subject::Reference { mode, .. } => (None, Some(mode.clone())),
    };
    let (rules, failure) = match reached(named).await {
        Ok(bench) => {
            let mut found = all(rules, &bench, context).await;
            found.sort_by_key(|result| Rule::from_id(&result.id));
            let silent = found.iter().any(|result| result.outcome != RuleOutcome::Passed);
            let gone = if silent { silence(&bench.main.door).await } else { None };
            bench.main.end().await;
            (found, gone.map(|reason| format!("it stopped answering: {reason}")))
        }
        Err(reason) => (Vec::new(), Some(reason)),
    };
    let seconds = begin.elapsed().as_secs_f64();
    let (target, database) = (named.name.clone(), named.database.clone());
    Conformance { target, url, mode, database, seconds, rules, failure }
}

async fn reached(named: &Named) -> Result<Bench, String> {
    let bench = Bench::open(named.subject.clone(), &named.subject.claims()).await.map_err(|error| error.to_string())?;
    let bench = bench.ok_or_else(|| "it cannot be started".to_owned())?;
    match silence(&bench.main.door).await {
        None => Ok(bench),
        Some(reason) => Err(reason),
    }
}

/// Why nobody is there; `None` when somebody answers, whatever it be.
async fn silence(door: &Door) -> Option<String> {
    let path = door.dialect.ready.path.as_deref().unwrap_or("/healthz");
    match door.get(path).send().await {
        Err(Stop::NoAnswer { request, reason }) => Some(format!("{request}: {reason}")),
        _ => None,
    }
}

/// Every rule: those that mostly wait beside the others, one after the other.
async fn all(rules: &[Rule], bench: &Bench, context: &Context) -> Vec<RuleResult> {
    let one = async |rule: Rule| {
        if !rules.contains(&rule) || context.is_stopped() {
            return None;
        }
        if !bench.claims(rule) {
            return Some(sheet::not_claimed(rule));
        }
        let mut sheet = Sheet::default();
        let done = rules::check(rule, bench, &mut sheet).await;
        Some(sheet.finish(rule, done))
    };
    let sequence = async {
        let mut found = Vec::new();
        for rule in Rule::ALL.into_iter().filter(|rule| !BESIDE.contains(rule)) {
            found.extend(one(rule).await);
        }
        found
    };
    let [first, second, third] = BESIDE;
    let (mut found, first, second, third) = tokio::join!(sequence, one(first), one(second), one(third));
    found.extend([first, second, third].into_iter().flatten());
    found
}
