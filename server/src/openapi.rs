//! The OpenAPI 3.1 document (rule O4): the routes' own attributes, and the shapes of the bodies that they take and give
//! ([`crate::shapes`]).

use std::sync::OnceLock;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::call::json_answer;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Millrace ingest server",
        description = "The reference event-ingestion server. Every error is application/problem+json."
    ),
    paths(
        crate::ingest::post_event,
        crate::ingest::post_batch,
        crate::reading::get_event,
        crate::reading::inbox,
        crate::reading::acknowledge,
        crate::keys::generate_key,
        crate::keys::show_key,
        crate::keys::rotate_key,
        crate::webhooks::show_webhook,
        crate::webhooks::set_webhook,
        crate::webhooks::remove_webhook,
        crate::webhooks::retry_delivery,
        crate::operating::healthz,
        crate::operating::readyz,
        crate::operating::health,
        crate::operating::metrics,
        openapi_json
    ),
    components(responses(crate::shapes::ProblemAnswer), schemas(crate::shapes::Problem, crate::shapes::StoredState)),
    security(("bearer" = []), ("x_api_key" = [])),
    modifiers(&Schemes)
)]
struct Document;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key")).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let token = token.description(Some("The administrator's token, where the server was started with one"));
        components.add_security_scheme("admin_token", SecurityScheme::Http(token.build()));
        components
            .add_security_scheme("x_api_key", SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key"))));
    }
}

/// The document as JSON; made once.
pub fn text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    // Made of our own constants: if it could not be written, the tests would say so.
    TEXT.get_or_init(|| Document::openapi().to_json().unwrap_or_else(|_| "{}".to_owned()))
}

/// `GET /api/openapi.json`: this document.
#[utoipa::path(get, path = "/api/openapi.json", tag = "Operating", security(()), responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub fn openapi_json() -> Response<Full<Bytes>> {
    json_answer(StatusCode::OK, text())
}
