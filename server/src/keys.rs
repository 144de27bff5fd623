//! The routes of organisations and their keys (rules A1, A3).

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;

use crate::app::App;
use crate::auth::{self, Organization};
use crate::call::{Answer, Call, json_answer};
use crate::config::ms;
use crate::event::rfc3339;
use crate::ingest::{self, now_us};
use crate::limits::Tier;
use crate::problem::Problem;
use crate::shapes;
use crate::store::KeyRow;

const CONTROL_BODY_BYTES_MAX: u64 = 16 * 1024;

#[derive(serde::Deserialize)]
struct KeyWanted {
    organization_name: Option<serde_json::Value>,
    tier: Option<serde_json::Value>,
}

/// Make an organisation and its API key.
#[utoipa::path(post, path = "/api/keys/generate", tag = "Keys", security((), ("admin_token" = [])), request_body = shapes::KeyWanted,
    responses((status = 201, description = "The key, shown this once", body = shapes::NewKey),
        (status = 400, response = shapes::ProblemAnswer), (status = 401, response = shapes::ProblemAnswer),
        (status = 403, response = shapes::ProblemAnswer),
        (status = 408, response = shapes::ProblemAnswer), (status = 413, response = shapes::ProblemAnswer),
        (status = 415, response = shapes::ProblemAnswer), (status = 503, response = shapes::ProblemAnswer)))]
pub async fn generate_key(app: &Arc<App>, call: &mut Call) -> Answer {
    auth::admin(call.headers(), app.settings.admin_token.as_ref())?;
    ingest::require_json(call.headers())?;
    let body = call.body(CONTROL_BODY_BYTES_MAX, ms(app.settings.limits.body_timeout_ms)).await?;
    let wanted = match serde_json::from_slice::<serde_json::Value>(&body) {
        Ok(value) if value.is_object() => serde_json::from_value::<KeyWanted>(value),
        Ok(_) => return Err(Problem::Body("send a JSON object with 'organization_name'".into())),
        Err(error) => Err(error),
    }
    .map_err(|error| Problem::Body(format!("the body is not JSON: {error}")))?;
    let name = organization_name(wanted.organization_name.as_ref())?;
    let tier = match &wanted.tier {
        None => Tier::Free,
        Some(tier) => tier.as_str().and_then(Tier::from_name).ok_or_else(|| {
            Problem::field(
                "tier",
                "'tier' is not a tier; send \"free\", \"pro\", \"business\" or \"enterprise\", or leave it out",
            )
        })?,
    };
    let (key, now_us) = (auth::generate()?, now_us());
    let organization = Organization {
        id: ingest::new_id(now_us),
        name,
        tier,
        limiter: crate::limits::Limiter::new(tier, &app.settings.limits),
    };
    app.keys.add(key_row(&organization, &key, now_us)).await?;
    Ok(json_answer(StatusCode::CREATED, new_key(app, &organization, &key)))
}

fn organization_name(value: Option<&serde_json::Value>) -> Result<String, Problem> {
    match value.and_then(serde_json::Value::as_str) {
        Some(name) if !name.is_empty() && name.chars().count() <= 255 && !name.contains('\0') => Ok(name.to_owned()),
        _ => Err(Problem::field(
            "organization_name",
            "'organization_name' is not a string of 1 to 255 characters; send one",
        )),
    }
}

fn key_row(organization: &Organization, key: &str, now_us: i64) -> KeyRow {
    KeyRow {
        key_hash: auth::hash(key.as_bytes()),
        organization_id: organization.id,
        organization_name: organization.name.clone(),
        tier: organization.tier.name().to_owned(),
        created_at_us: now_us,
    }
}

fn new_key(app: &App, organization: &Organization, key: &str) -> String {
    let mut body = about(app, organization);
    body["api_key"] = json!(key);
    body.to_string()
}

fn about(app: &App, organization: &Organization) -> serde_json::Value {
    json!({
        "organization_id": organization.id,
        "organization_name": organization.name,
        "tier": organization.tier.name(),
        "rate_limit_per_minute": organization.tier.per_minute(&app.settings.limits),
    })
}

/// Show whose key this is (never the key).
#[utoipa::path(get, path = "/api/keys", tag = "Keys",
    responses((status = 200, description = "The organisation", body = shapes::KeyShown), (status = 401, response = shapes::ProblemAnswer),
        (status = 429, response = shapes::ProblemAnswer), (status = 503, response = shapes::ProblemAnswer)))]
pub async fn show_key(app: &Arc<App>, call: &Call) -> Answer {
    let (organization, key_hash) = app.admit(call.headers()).await?;
    let mut body = about(app, &organization);
    body["created_at"] = json!(app.keys.created_at_us(&key_hash).map(rfc3339));
    Ok(json_answer(StatusCode::OK, body.to_string()))
}

/// Get a new key in the place of the one that this request carries.
#[utoipa::path(post, path = "/api/keys/rotate", tag = "Keys",
    responses((status = 200, description = "The new key, shown this once; the old one has ended here, and ends within `--key-cache-ttl-s` in other processes on the same database", body = shapes::NewKey),
        (status = 401, response = shapes::ProblemAnswer), (status = 429, response = shapes::ProblemAnswer),
        (status = 503, response = shapes::ProblemAnswer)))]
pub async fn rotate_key(app: &Arc<App>, call: &Call) -> Answer {
    let (organization, old) = app.admit(call.headers()).await?;
    let key = auth::generate()?;
    app.keys.rotate(&organization, old, key_row(&organization, &key, now_us())).await?;
    Ok(json_answer(StatusCode::OK, new_key(app, &organization, &key)))
}
