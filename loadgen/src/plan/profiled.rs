//! Whether a target with a profile can do what a plan asks for.

use reports::model::{PayloadSizes, Plan};

use super::PlanError;
use super::check::wrong;
use crate::payload::{PAYLOAD_BYTES_MIN, PAYLOAD_BYTES_TELLING};
use crate::profile::{Persisted, Profile};

/// Refuses what it cannot do.
pub(super) fn check(profile: &Profile, plan: &Plan, postgres_url: Option<&str>) -> Result<(), PlanError> {
    let name = profile.target_name();
    if profile.needs_postgres() && postgres_url.is_none() {
        let problem = "is no PostgreSQL server, and this target's profile says that it needs one ([database] kind)";
        let shown = format!("sqlite (for {name})");
        return Err(wrong("--database", shown, problem, "give postgres://USER@HOST:PORT/NAME"));
    }
    let routes = &profile.dialect.routes;
    let wanted = [
        ("--mix", "batch", plan.mix.batch > 0.0, &routes.batch),
        ("--mix", "inbox", plan.mix.inbox > 0.0, &routes.inbox),
        ("--mix", "ack", plan.mix.ack > 0.0, &routes.ack),
        ("--webhooks", "webhook", plan.webhooks, &routes.webhook),
    ];
    if let Some((key, route, ..)) = wanted.into_iter().find(|(.., is_wanted, path)| *is_wanted && path.is_none()) {
        let problem = format!("needs a route that {name} does not have ([routes] {route} = \"none\")");
        return Err(wrong(key, route, problem, "leave it out, or leave that target out"));
    }
    let has_dedup_id = profile.dialect.ingest.body.has_dedup_id();
    if plan.duplicates_share > 0.0 && !has_dedup_id {
        let problem = format!("is of repeats, which {name} cannot know: its body has no {{dedup_id}}");
        return Err(wrong("--duplicates-share", plan.duplicates_share, problem, "leave it out"));
    }
    let shown = match &profile.persisted {
        Persisted::Sql(query) => query.contains("dedup_id"),
        Persisted::Inbox | Persisted::None => true,
    };
    let bytes = payload_bytes_min(plan);
    if plan.ledger && !(has_dedup_id && shown) && bytes < PAYLOAD_BYTES_TELLING {
        let problem = format!(
            "is too short to be told from others, and {name} shows no dedup_id; allowed: {PAYLOAD_BYTES_TELLING} bytes or more"
        );
        let remedy = "send larger payloads (one size, or a range), or give its query a dedup_id";
        return Err(wrong("--payload-bytes", bytes, problem, remedy));
    }
    Ok(())
}

/// The smallest that can come.
fn payload_bytes_min(plan: &Plan) -> u32 {
    match (&plan.replay, &plan.payload_sizes) {
        (Some(replay), _) if replay.payload_bytes_median.is_some() => PAYLOAD_BYTES_MIN,
        (_, Some(PayloadSizes::Uniform { bytes_min, .. })) => *bytes_min,
        (_, Some(PayloadSizes::Lognormal { .. })) => PAYLOAD_BYTES_MIN,
        (_, None) => plan.payload_bytes,
    }
}
