//! What is measured: the reference server in several configurations, servers that already run, or targets with a profile.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use reports::model::{Role, Variant};
use url::Url;

use super::PlanError;
use super::asked::{Asked, is_url};
use super::check::{LEAVE_ONE_OUT, wrong};
use crate::nearest::{did_you_mean, nearest_path};
use crate::profile::Profile;

const NO_TARGET: &str = "is no target";
const TARGETS: &str =
    "give http://HOST:PORT, https://HOST:PORT, or a target profile (a TOML file, or the folder of one)";

/// What is measured, and the profiles of what has one, by name.
pub(super) type Variants = (Vec<Variant>, BTreeMap<String, Arc<Profile>>);

impl Asked {
    /// `modes` and `pollings` are what the reference server knows.
    pub(super) fn variants(&self, modes: &[String], pollings: &[String]) -> Result<Variants, PlanError> {
        if !self.target.is_empty() {
            return self.targets();
        }
        let explicit = self
            .variants
            .iter()
            .map(|asked| (asked.mode.clone(), asked.polling.clone(), asked.name.clone(), asked.role));
        let asked: Vec<_> = if self.variants.is_empty() { self.product() } else { explicit.collect() };
        for (mode, polling, ..) in &asked {
            known("--mode", mode, modes)?;
            known("--polling", polling, pollings)?;
        }
        let mut variants: Vec<Variant> = Vec::new();
        for (mode, polling, name, role) in asked {
            let name = name.unwrap_or_else(|| mode.clone());
            let (mode, polling) = (Some(mode), Some(polling));
            if !variants.iter().any(|variant| variant.name == name) {
                variants.push(Variant { name, url: None, mode, polling, role, profile: None });
            } else if !self.variants.is_empty() {
                let problem = "is the name of two variants, and results are found by name";
                return Err(wrong("[[variants]] name", name, problem, "give each a `name` of its own"));
            }
        }
        Ok((variants, BTreeMap::new()))
    }

    fn targets(&self) -> Result<Variants, PlanError> {
        let owned_by_server = [("--mode", &self.mode), ("--polling", &self.polling), ("--fault", &self.fault)];
        if let Some((key, list)) = owned_by_server.into_iter().find(|(_, list)| !list.is_empty()) {
            let problem = "is of the reference server, and does not go with --target";
            return Err(wrong(key, list.join(","), problem, LEAVE_ONE_OUT));
        }
        let (mut variants, mut profiles): Variants = Default::default();
        for target in &self.target {
            let variant = match is_url(target) {
                true => running(target)?,
                false if !Path::new(target).exists() => return Err(no_such_target(target)),
                false => {
                    let profile = Arc::new(Profile::load(Path::new(target))?);
                    let variant = profile.variant();
                    profiles.insert(variant.name.clone(), profile);
                    variant
                }
            };
            if variants.iter().any(|other| other.name == variant.name) {
                let problem = match is_url(target) {
                    true => "is there twice, and results are found by name".to_owned(),
                    false => format!("is the second that is called {}, and results are found by name", variant.name),
                };
                return Err(wrong("--target", target, problem, "leave one out; --repeat 2 measures it twice"));
            }
            variants.push(variant);
        }
        Ok((variants, profiles))
    }

    /// Modes times policies. `null` does not poll, so it is there once, whatever the policies.
    fn product(&self) -> Vec<(String, String, Option<String>, Option<Role>)> {
        let or = |own: &Vec<String>, default: &[&str]| {
            if own.is_empty() { default.iter().map(|&text| text.to_owned()).collect() } else { own.clone() }
        };
        let modes = or(&self.mode, &["null", "cache-first", "db-first"]);
        let pollings = or(&self.polling, &["wake"]);
        let combine = |mode: &String| {
            let named = |polling: &String| (pollings.len() > 1 && mode != "null").then(|| format!("{mode}/{polling}"));
            pollings.iter().map(|polling| (mode.clone(), polling.clone(), named(polling), None)).collect::<Vec<_>>()
        };
        modes.iter().flat_map(combine).collect()
    }
}

fn no_such_target(path: &str) -> PlanError {
    let meant = nearest_path(Path::new(path)).map(|near| format!("did you mean {near}? "));
    wrong("--target", path, NO_TARGET, meant.unwrap_or_default() + TARGETS)
}

fn running(url: &str) -> Result<Variant, PlanError> {
    let name = target_name(url)?;
    Ok(Variant { name, url: Some(url.to_owned()), mode: None, polling: None, role: None, profile: None })
}

/// Host and port; with the scheme where that is https, so that one server can be measured both ways in one run.
fn target_name(url: &str) -> Result<String, PlanError> {
    let refuse = |problem, remedy| wrong("--target", url, problem, remedy);
    let parsed: Option<Url> = url.parse().ok();
    let known = parsed.filter(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some());
    let known = known.ok_or_else(|| refuse(NO_TARGET, TARGETS))?;
    if !known.username().is_empty() || known.password().is_some() {
        let hidden =
            wrong("--target", "***", "holds a name or a password, which the result would show", "use --api-key");
        return Err(hidden);
    }
    Ok(url.trim_start_matches("http://").trim_end_matches('/').to_owned())
}

fn known(key: &'static str, value: &str, all: &[String]) -> Result<(), PlanError> {
    if all.iter().any(|known| known == value) {
        return Ok(());
    }
    let problem = format!("is unknown; allowed: {}", all.join(", "));
    let remedy =
        did_you_mean(value, all.iter().map(String::as_str), "choose one or more of these, separated by commas");
    Err(wrong(key, value, problem, remedy))
}
