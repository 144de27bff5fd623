//! What is measured: the reference server in several configurations, or servers that already run.

use reports::model::{Role, Variant};
use url::Url;

use super::PlanError;
use super::asked::Asked;
use super::check::{LEAVE_ONE_OUT, wrong};

impl Asked {
    /// `modes` and `pollings` are what the reference server knows.
    pub(super) fn variants(&self, modes: &[String], pollings: &[String]) -> Result<Vec<Variant>, PlanError> {
        if !self.target.is_empty() {
            return self.running_targets();
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
                variants.push(Variant { name, url: None, mode, polling, role });
            } else if !self.variants.is_empty() {
                let problem = "is the name of two variants, and results are found by name";
                return Err(wrong("[[variants]] name", name, problem, "give each a `name` of its own"));
            }
        }
        Ok(variants)
    }

    fn running_targets(&self) -> Result<Vec<Variant>, PlanError> {
        let owned_by_server = [("--mode", &self.mode), ("--polling", &self.polling), ("--fault", &self.fault)];
        if let Some((key, list)) = owned_by_server.into_iter().find(|(_, list)| !list.is_empty()) {
            let problem = "does not go with --target, which was started by somebody else";
            return Err(wrong(key, list.join(","), problem, LEAVE_ONE_OUT));
        }
        let mut variants: Vec<Variant> = Vec::new();
        for url in &self.target {
            let name = target_name(url)?;
            if variants.iter().any(|variant| variant.name == name) {
                let problem = "is there twice, and results are found by name";
                return Err(wrong("--target", url, problem, "leave one out; --repeat 2 measures it twice"));
            }
            variants.push(Variant { name, url: Some(url.clone()), mode: None, polling: None, role: None });
        }
        Ok(variants)
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

/// Host and port; with the scheme where that is https, so that one server can be measured both ways in one run.
fn target_name(url: &str) -> Result<String, PlanError> {
    let refuse = |problem, remedy| wrong("--target", url, problem, remedy);
    let parsed: Option<Url> = url.parse().ok();
    let known = parsed.filter(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some());
    let known = known.ok_or_else(|| refuse("is no target", "give http://HOST:PORT or https://HOST:PORT"))?;
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
    Err(wrong(key, value, problem, "choose one or more of these, separated by commas"))
}
