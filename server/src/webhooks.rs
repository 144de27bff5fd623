//! The routes of webhooks (rules D1, D2): where an organisation's events are sent, and sending a dead letter again.
//!
//! Not here: the sending ([`crate::delivery`]).

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;
use uuid::Uuid;

use crate::app::App;
use crate::call::{Answer, Call, json_answer};
use crate::config::ms;
use crate::delivery::signature;
use crate::event::rfc3339;
use crate::ingest::{self, now_us};
use crate::offload::Offload;
use crate::problem::Problem;
use crate::shapes;
use crate::store::{Replay, Webhook};

const CONTROL_BODY_BYTES_MAX: u64 = 16 * 1024;

/// Set where this organisation's events are sent, or remove it.
///
/// An organisation has one webhook; setting it again replaces the URL, enables it if it was disabled, and keeps the secret.
/// `"webhook_url": null` removes it, as DELETE does. Sent are events that are persisted from now on, each as it is read at
/// `/api/events/{id}` (without a state), in any order and at least once: `webhook-id` is the event's id. The signature is that of
/// Standard Webhooks 1.0.0.
#[utoipa::path(post, path = "/api/webhook/config", tag = "Webhooks", request_body = shapes::WebhookWanted,
    responses((status = 200, description = "Set; `secret` is shown when it is made, and never again", body = shapes::WebhookSet),
        (status = 400, response = shapes::ProblemAnswer), (status = 401, response = shapes::ProblemAnswer),
        (status = 408, response = shapes::ProblemAnswer), (status = 409, response = shapes::ProblemAnswer),
        (status = 413, response = shapes::ProblemAnswer), (status = 415, response = shapes::ProblemAnswer),
        (status = 429, response = shapes::ProblemAnswer), (status = 503, response = shapes::ProblemAnswer)))]
pub async fn set_webhook(app: &Arc<App>, call: &mut Call) -> Answer {
    let (organization, _) = app.admit(call.headers()).await?;
    ingest::require_json(call.headers())?;
    let body = call.body(CONTROL_BODY_BYTES_MAX, ms(app.settings.limits.body_timeout_ms)).await?;
    let store = store(app)?;
    let Some(text) = wanted_url(&body)? else { return remove(store, organization.id).await };
    let refused = |unfit| Problem::field("webhook_url", format!("'webhook_url' cannot be used: {unfit}"));
    let checked =
        tokio::time::timeout(ms(app.settings.limits.webhook_timeout_ms), app.webhook_guard.check(&text)).await;
    let url = match checked {
        Ok(checked) => checked.map_err(refused)?.to_string(),
        Err(_elapsed) => return Err(refused(crate::delivery::address::Unfit::Unresolved)),
    };
    let (id, fresh) = (organization.id, signature::new_secret().map_err(|_| Problem::Internal)?);
    let offered = fresh.clone();
    let set = store.call(move |store| async move { store.set_webhook(id, &url, &offered, now_us()).await }).await?;
    let mut body = about(Some(&set));
    if set.secret == fresh {
        body["secret"] = json!(signature::shown(&fresh));
    }
    body["remove"] = json!("DELETE /api/webhook/config");
    Ok(json_answer(StatusCode::OK, body.to_string()))
}

/// The URL; `None` when it is null.
fn wanted_url(body: &[u8]) -> Result<Option<String>, Problem> {
    let value: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| Problem::Body(format!("the body is not JSON: {error}")))?;
    match value.as_object().map(|object| object.get("webhook_url")) {
        None => Err(Problem::Body("send a JSON object with 'webhook_url'".into())),
        Some(Some(serde_json::Value::Null)) => Ok(None),
        Some(Some(serde_json::Value::String(url))) => Ok(Some(url.clone())),
        Some(_) => Err(Problem::field(
            "webhook_url",
            "'webhook_url' is not a string; send an http:// or https:// URL, or null to remove the webhook",
        )),
    }
}

/// Show where this organisation's events are sent (never the secret).
#[utoipa::path(get, path = "/api/webhook/config", tag = "Webhooks",
    responses((status = 200, description = "The webhook; its URL is null when there is none", body = shapes::WebhookShown),
        (status = 401, response = shapes::ProblemAnswer), (status = 409, response = shapes::ProblemAnswer),
        (status = 429, response = shapes::ProblemAnswer), (status = 503, response = shapes::ProblemAnswer)))]
pub async fn show_webhook(app: &Arc<App>, call: &Call) -> Answer {
    let (organization, _) = app.admit(call.headers()).await?;
    let id = organization.id;
    let webhook = store(app)?.call(move |store| async move { store.webhook(id).await }).await?;
    Ok(json_answer(StatusCode::OK, about(webhook.as_ref()).to_string()))
}

/// Remove this organisation's webhook.
///
/// What was not delivered by then becomes a dead letter. A webhook that is set later gets a new secret.
#[utoipa::path(delete, path = "/api/webhook/config", tag = "Webhooks",
    responses((status = 200, description = "There is none now", body = shapes::WebhookShown),
        (status = 401, response = shapes::ProblemAnswer), (status = 409, response = shapes::ProblemAnswer),
        (status = 429, response = shapes::ProblemAnswer), (status = 503, response = shapes::ProblemAnswer)))]
pub async fn remove_webhook(app: &Arc<App>, call: &Call) -> Answer {
    let (organization, _) = app.admit(call.headers()).await?;
    remove(store(app)?, organization.id).await
}

async fn remove(store: &Offload, organization_id: Uuid) -> Answer {
    store.call(move |store| async move { store.remove_webhook(organization_id).await }).await?;
    Ok(json_answer(StatusCode::OK, about(None).to_string()))
}

/// Send a dead letter again, with all its attempts; `id` is the event's.
#[utoipa::path(post, path = "/api/deliveries/{id}/retry", tag = "Webhooks",
    params(("id" = shapes::Id, Path, description = "Of an event in state `dead_letter`")),
    responses((status = 202, description = "It is sent now", body = shapes::Retried),
        (status = 401, response = shapes::ProblemAnswer), (status = 404, response = shapes::ProblemAnswer),
        (status = 409, response = shapes::ProblemAnswer), (status = 429, response = shapes::ProblemAnswer),
        (status = 503, response = shapes::ProblemAnswer)))]
pub async fn retry_delivery(app: &Arc<App>, call: &Call, id: &str) -> Answer {
    let (organization, _) = app.admit(call.headers()).await?;
    let id: Uuid = id.parse().map_err(|_| Problem::NoEvent)?;
    // What is pending is no dead letter yet, and is not known to the store.
    let pending = app.pending().and_then(|pending| pending.get(id));
    if pending.is_some_and(|event| event.organization_id == organization.id) {
        return Err(Problem::NoDeadLetter("pending"));
    }
    let organization_id = organization.id;
    let replay = move |store: crate::store::Store| async move { store.replay(organization_id, id, now_us()).await };
    match store(app)?.call(replay).await? {
        Replay::Due => Ok(json_answer(StatusCode::ACCEPTED, json!({"id": id, "state": "failed"}).to_string())),
        Replay::NoEvent => Err(Problem::NoEvent),
        Replay::NotDead(state) => Err(Problem::NoDeadLetter(state.name())),
        Replay::NoWebhook => Err(Problem::NoWebhook),
    }
}

fn store(app: &App) -> Result<&Offload, Problem> {
    app.store.as_ref().ok_or(Problem::KeepsNothing)
}

fn about(webhook: Option<&Webhook>) -> serde_json::Value {
    json!({
        "webhook_url": webhook.map(|webhook| &webhook.url),
        "enabled": webhook.is_some_and(|webhook| webhook.disabled_at_us.is_none()),
        "created_at": webhook.map(|webhook| rfc3339(webhook.created_at_us)),
        "disabled_at": webhook.and_then(|webhook| webhook.disabled_at_us).map(rfc3339),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_without_a_url_or_null_is_told_what_to_send() {
        assert_eq!(wanted_url(br#"{"webhook_url":null}"#), Ok(None));
        assert_eq!(wanted_url(br#"{"webhook_url":"http://a"}"#), Ok(Some("http://a".into())));
        for body in [&b"{}"[..], br#"{"webhook_url":1}"#, br#"{"webhook_url":["http://a"]}"#] {
            assert!(matches!(wanted_url(body), Err(Problem::Field { field: "webhook_url", .. })), "{body:?}");
        }
        for body in [&b""[..], b"[]", b"null", b"\"http://a\"", b"{"] {
            assert!(matches!(wanted_url(body), Err(Problem::Body(_))), "{body:?}");
        }
    }
}
