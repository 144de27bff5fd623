//! Rule O4: the document says what is served, and nothing else.

use std::collections::BTreeSet;

use serde_json::Value;
use server::routes::Route;

use crate::At;

fn document() -> Value {
    serde_json::from_str(server::openapi::text()).unwrap()
}

#[test]
fn the_document_lists_exactly_the_routes() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut listed = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            listed.insert((method.to_uppercase(), path.clone()));
            assert!(
                operation["responses"].as_object().is_some_and(|responses| !responses.is_empty()),
                "{method} {path}"
            );
        }
    }
    let served: BTreeSet<_> =
        Route::ALL.iter().map(|route| (route.template().0.to_string(), route.template().1.to_owned())).collect();
    assert_eq!(listed, served);
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    let document = document();
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
}

/// Whether the value has the members that the schema requires, and no others.
fn assert_fits(document: &Value, schema: &Value, value: &Value, place: &str) {
    let schema = schema["$ref"].as_str().map_or(schema, |reference| document.pointer(&reference[1..]).unwrap());
    let Some(properties) = schema["properties"].as_object() else { return };
    let members: BTreeSet<_> = value.as_object().unwrap_or_else(|| panic!("{place}: {value}")).keys().collect();
    for member in &members {
        assert!(properties.contains_key(*member), "{place}: '{member}' is not in the document");
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        assert!(members.contains(&required.as_str().unwrap().to_owned()), "{place}: {required} is missing in {value}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_have_the_documented_statuses_and_shapes() {
    let at = At::cache_first_sqlite().await;
    let (server, sender) = at.ready().await;
    let document: Value = server.get("/api/openapi.json").await.json().await.unwrap();
    let id = sender.accepted(serde_json::json!({"type": "t", "payload": 1, "dedup_id": "d"})).await;
    sender.persisted(1).await;
    let event = r#"{"type":"t","payload":1}"#;
    for (method, path, template, body, expected) in [
        ("POST", "/api/events", "/api/events", event, 202),
        ("POST", "/api/events", "/api/events", r#"{"type":"t","payload":1,"dedup_id":"d"}"#, 409),
        ("POST", "/api/events", "/api/events", "{}", 400),
        ("POST", "/api/events/batch", "/api/events/batch", &format!("[{event}]"), 207),
        ("GET", &format!("/api/events/{id}"), "/api/events/{id}", "", 200),
        ("GET", "/api/events/x", "/api/events/{id}", "", 404),
        ("GET", "/api/inbox", "/api/inbox", "", 200),
        ("GET", "/api/inbox?limit=0", "/api/inbox", "", 400),
        ("POST", &format!("/api/ack/{id}"), "/api/ack/{id}", "", 200),
        ("POST", "/api/keys/generate", "/api/keys/generate", r#"{"organization_name":"a"}"#, 201),
        ("GET", "/api/keys", "/api/keys", "", 200),
        ("GET", "/healthz", "/healthz", "", 200),
        ("GET", "/readyz", "/readyz", "", 200),
        ("GET", "/health", "/health", "", 200),
        ("GET", "/api/webhook/config", "/api/webhook/config", "", 200),
        ("POST", "/api/webhook/config", "/api/webhook/config", r#"{"webhook_url":"http://8.8.8.8/"}"#, 200),
        ("POST", "/api/webhook/config", "/api/webhook/config", r#"{"webhook_url":"http://127.0.0.1/"}"#, 400),
        ("POST", "/api/webhook/config", "/api/webhook/config", r#"{"webhook_url":null}"#, 200),
        ("DELETE", "/api/webhook/config", "/api/webhook/config", "", 200),
        ("POST", &format!("/api/deliveries/{id}/retry"), "/api/deliveries/{id}/retry", "", 409),
        ("POST", "/api/deliveries/x/retry", "/api/deliveries/{id}/retry", "", 404),
        ("POST", "/api/keys/rotate", "/api/keys/rotate", "", 200),
    ] {
        let request = sender.request(method, path).header("content-type", "application/json").body(body.to_owned());
        let response = request.send().await.unwrap();
        let (status, kind) =
            (response.status().as_u16(), response.headers()["content-type"].to_str().unwrap().to_owned());
        assert_eq!(status, expected, "{method} {path}");
        let answer: Value = response.json().await.unwrap();
        let documented = &document["paths"][template][method.to_lowercase()]["responses"][status.to_string()];
        let documented =
            documented["$ref"].as_str().map_or(documented, |reference| document.pointer(&reference[1..]).unwrap());
        let schema = &documented["content"][&kind]["schema"];
        assert!(!schema.is_null(), "{method} {path}: {status} with {kind} is not in the document");
        assert_fits(&document, schema, &answer, path);
    }
}
