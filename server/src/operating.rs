//! The routes for whoever operates the server (rules O1, O2): is it alive, can it take events, what does it count. No key needed.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use crate::app::App;
use crate::call::json_answer;
use crate::shapes;

/// The process lives.
#[utoipa::path(get, path = "/healthz", tag = "Operating", security(()), responses((status = 200, description = "It does", body = shapes::Health)))]
pub fn healthz() -> Response<Full<Bytes>> {
    json_answer(StatusCode::OK, r#"{"status":"ok"}"#)
}

/// The server can take events. (`/health` is the same.)
#[utoipa::path(get, path = "/readyz", tag = "Operating", security(()), responses((status = 200, description = "It can", body = shapes::Readiness),
    (status = 503, description = "It cannot: `reasons` says why", body = shapes::Readiness)))]
pub async fn readyz(app: &App) -> Response<Full<Bytes>> {
    let reasons = app.unready().await;
    let (status, word) = match reasons.is_empty() {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let mode = app.settings.mode.name();
    json_answer(status, json!({"status": word, "reasons": reasons, "mode": mode}).to_string())
}

/// The same as `/readyz`.
#[utoipa::path(get, path = "/health", tag = "Operating", security(()), responses((status = 200, description = "It can", body = shapes::Readiness),
    (status = 503, description = "It cannot: `reasons` says why", body = shapes::Readiness)))]
#[allow(dead_code, reason = "documents the alias; /readyz answers for both")]
pub fn health() {}

/// What the server counts, as Prometheus text.
#[utoipa::path(get, path = "/metrics", tag = "Operating", security(()),
    responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text")))]
pub async fn metrics(app: &App) -> Response<Full<Bytes>> {
    app.measure().await;
    let mut response = Response::new(Full::new(Bytes::from(app.metrics.encode())));
    let kind = HeaderValue::from_static(crate::metrics::CONTENT_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
