//! The contract's rules, each under its id.

use std::collections::HashSet;

use reqwest::StatusCode;
use serde_json::{Value, json};
use server::config::QueueAt;

use crate::{At, Sender, eventually, everywhere, read};

everywhere! {
    a1_a_key_is_made_with_its_organization_and_tier
    a2_every_other_route_needs_a_valid_key
    a3_a_rotated_key_ends_at_once_and_the_new_one_shares_its_quota
    a4_over_the_quota_it_says_when_to_come_back
    i1_an_event_is_found_under_the_id_of_its_acknowledgement
    i2_of_many_with_one_dedup_id_at_once_exactly_one_is_accepted
    i2_a_restart_remembers_dedup_ids
    i2_an_index_too_small_for_the_window_asks_the_store
    i3_a_retry_gets_the_first_answer_again
    i3_retries_at_once_get_one_answer_and_make_one_event
    i4_a_bad_field_is_named
    i5_what_is_too_large_or_no_json_is_refused
    i7_a_batch_has_a_result_for_each_item_in_order
    i7_items_of_one_batch_with_one_dedup_id_make_one_event
    i8_a_payload_comes_back_byte_for_byte
    r2_pages_show_each_event_once_and_only_to_its_organization
    r2_an_acknowledged_event_leaves_the_undelivered_inbox
    r2_an_event_can_be_acknowledged_right_after_its_202
    o2_metrics_count_what_happened
}

async fn a1_a_key_is_made_with_its_organization_and_tier(at: At) {
    let server = at.start();
    for (body, tier, per_minute) in [
        (json!({"organization_name": "a"}), "free", 100),
        (json!({"organization_name": "a", "tier": "pro"}), "pro", 1000),
        (json!({"organization_name": "a", "tier": "business"}), "business", 10_000),
        (json!({"organization_name": "a", "tier": "enterprise"}), "enterprise", 100_000),
    ] {
        let made = server.client.post(server.url("/api/keys/generate")).json(&body).send().await.unwrap();
        let (status, made) = read(made).await;
        assert_eq!(
            (status, &made["tier"], &made["rate_limit_per_minute"]),
            (StatusCode::CREATED, &json!(tier), &json!(per_minute))
        );
        let key = made["api_key"].as_str().unwrap();
        assert!(key.starts_with("mr_live_") && server::auth::is_well_formed(key.as_bytes()), "{key}");
        let (status, shown) = server.sender(key).get("/api/keys").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(shown["organization_id"], made["organization_id"]);
        assert!(!shown.to_string().contains(key) && shown.get("api_key").is_none());
    }
    for (body, field) in [
        (json!({}), "organization_name"),
        (json!({"organization_name": ""}), "organization_name"),
        (json!({"organization_name": "a", "tier": "gold"}), "tier"),
    ] {
        let refused = server.client.post(server.url("/api/keys/generate")).json(&body).send().await.unwrap();
        let (status, problem) = read(refused).await;
        assert_eq!((status, &problem["field"]), (StatusCode::BAD_REQUEST, &json!(field)));
    }
}

async fn a2_every_other_route_needs_a_valid_key(at: At) {
    let (server, sender) = at.ready().await;
    let never_given_out = server::auth::generate().unwrap();
    let mistyped = {
        // The last character is one of the checksum's; whatever it is, another one is wrong.
        let (body, last) = sender.key.split_at(sender.key.len() - 1);
        format!("{body}{}", if last == "x" { "y" } else { "x" })
    };
    for route in server::routes::Route::ALL {
        let (method, path) = route.template();
        // The document is for everybody, and so is what lies outside of /api.
        if !path.starts_with("/api/") || ["/api/keys/generate", "/api/openapi.json"].contains(&path) {
            continue;
        }
        let path = path.replace("{id}", "01890a5d-ac96-774b-bcce-b302099a8057");
        for key in ["", "x", &never_given_out, &mistyped] {
            let refused =
                server.client.request(method.clone(), server.url(&path)).bearer_auth(key).send().await.unwrap();
            assert_eq!(refused.headers()["www-authenticate"], "Bearer");
            assert_eq!(read(refused).await.0, StatusCode::UNAUTHORIZED, "{path} {key}");
        }
        let refused = server.client.request(method, server.url(&path)).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    let other_header =
        server.client.get(server.url("/api/keys")).header("X-API-Key", &sender.key).send().await.unwrap();
    assert_eq!(other_header.status(), StatusCode::OK);
}

async fn a3_a_rotated_key_ends_at_once_and_the_new_one_shares_its_quota(mut at: At) {
    at.settings.limits.rate_limit_pro_per_minute = 3;
    let server = at.start();
    let old = server.organization("pro").await;
    let id = old.get("/api/keys").await.1["organization_id"].clone();
    let (status, made) = old.post("/api/keys/rotate", "").await;
    assert_eq!((status, &made["organization_id"]), (StatusCode::OK, &id));
    let new = server.sender(made["api_key"].as_str().unwrap());
    assert_eq!(old.get("/api/keys").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(old.post("/api/keys/rotate", "").await.0, StatusCode::UNAUTHORIZED);
    // Two of three requests were the old key's.
    assert_eq!(new.get("/api/keys").await.0, StatusCode::OK);
    assert_eq!(new.get("/api/keys").await.0, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(server.shutdown().await.unpersisted_events, 0);
    let server = at.start();
    assert_eq!(server.sender(&old.key).get("/api/keys").await.0, StatusCode::UNAUTHORIZED);
    // With a minute of its own again, unless it is Redis that counts.
    assert_ne!(server.sender(&new.key).get("/api/keys").await.0, StatusCode::UNAUTHORIZED);
}

async fn a4_over_the_quota_it_says_when_to_come_back(mut at: At) {
    at.settings.limits.rate_limit_free_per_minute = 5;
    let server = at.start();
    let sender = server.organization("free").await;
    let lines = "{\"type\":\"t\",\"payload\":1}\n".repeat(3);
    let batch = sender.request("POST", "/api/events/batch").header("content-type", "application/x-ndjson").body(lines);
    assert_eq!(read(batch.send().await.unwrap()).await.0, StatusCode::MULTI_STATUS);
    for _ in 0..2 {
        sender.accepted(json!({"type": "t", "payload": 1})).await;
    }
    let refused = sender.request("POST", "/api/events").json(&json!({"type": "t", "payload": 1})).send().await.unwrap();
    let header = |name: &str| refused.headers()[name].to_str().unwrap().to_owned();
    let seconds: u64 = header("retry-after").parse().unwrap();
    assert!((1..=12).contains(&seconds), "{seconds}");
    assert_eq!(header("ratelimit-policy"), "\"free\";q=5;w=60");
    assert_eq!(header("ratelimit"), format!("\"free\";r=0;t={seconds}"));
    assert_eq!(read(refused).await.0, StatusCode::TOO_MANY_REQUESTS);
    // Another organisation has its own.
    server.organization("free").await.accepted(json!({"type": "t", "payload": 1})).await;
}

async fn i1_an_event_is_found_under_the_id_of_its_acknowledgement(at: At) {
    let (_server, sender) = at.ready().await;
    let body = json!({"type": "order.created", "payload": {"n": 1}, "dedup_id": "d"});
    let response = sender.request("POST", "/api/events").json(&body).send().await.unwrap();
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let (status, answer) = read(response).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let id = answer["id"].as_str().unwrap();
    assert_eq!(answer, json!({"id": id, "status": "accepted", "durability": at.durability()}));
    assert_eq!(location, format!("/api/events/{id}"));
    // Visible from the moment of the 202 (rule R1), in whatever state.
    let (status, event) = sender.get(&location).await;
    assert_eq!(status, StatusCode::OK);
    assert!(["pending", "persisted"].contains(&event["state"].as_str().unwrap()), "{event}");
    assert_eq!(event["persisted_at"].is_null(), event["state"] == "pending");
    let event = sender.persisted(1).await.remove(0);
    for (member, value) in
        [("id", json!(id)), ("type", json!("order.created")), ("dedup_id", json!("d")), ("state", json!("persisted"))]
    {
        assert_eq!(event[member], value, "{member}");
    }
    for time in ["created_at", "persisted_at"] {
        let text = event[time].as_str().unwrap();
        assert!(text.ends_with('Z') && text.len() == "2023-11-14T22:13:20.000000Z".len(), "{text}");
    }
    assert!(event["created_at"].as_str() <= event["persisted_at"].as_str());
    for path in ["/api/events/nonsense", "/api/events/01890a5d-ac96-774b-bcce-b302099a8057"] {
        assert_eq!(sender.get(path).await.0, StatusCode::NOT_FOUND);
    }
}

/// Sends one body many times at once; how many were accepted, and the ids that were named.
async fn at_once(sender: &Sender, count: usize, body: &Value) -> (usize, HashSet<String>) {
    let sent: Vec<_> = (0..count)
        .map(|_| {
            let (sender, body) = (sender.clone(), body.clone());
            tokio::spawn(async move { sender.event(body).await })
        })
        .collect();
    let (mut accepted, mut ids) = (0, HashSet::new());
    for answer in sent {
        let (status, answer) = answer.await.unwrap();
        assert!([StatusCode::ACCEPTED, StatusCode::CONFLICT].contains(&status), "{answer}");
        accepted += usize::from(status == StatusCode::ACCEPTED);
        ids.insert(answer["id"].as_str().unwrap().to_owned());
    }
    (accepted, ids)
}

async fn i2_of_many_with_one_dedup_id_at_once_exactly_one_is_accepted(mut at: At) {
    at.settings.limits.http_threads = 3;
    let (server, sender) = at.ready().await;
    for round in 0..10 {
        let body = json!({"type": "t", "payload": round, "dedup_id": format!("d{round}")});
        let (accepted, ids) = at_once(&sender, 16, &body).await;
        assert_eq!((accepted, ids.len()), (1, 1), "round {round}");
    }
    assert_eq!(sender.persisted(10).await.len(), 10);
    // Another organisation may use the same.
    let other = server.organization("free").await;
    other.accepted(json!({"type": "t", "payload": 0, "dedup_id": "d0"})).await;
}

async fn i2_a_restart_remembers_dedup_ids(at: At) {
    let (server, sender) = at.ready().await;
    let body = json!({"type": "t", "payload": 1, "dedup_id": "d"});
    let id = sender.accepted(body.clone()).await;
    assert_eq!(server.shutdown().await.unpersisted_events, 0);
    let server = at.start();
    let (status, problem) = server.sender(&sender.key).event(body).await;
    assert_eq!((status, &problem["id"]), (StatusCode::CONFLICT, &json!(id)));
}

async fn i2_an_index_too_small_for_the_window_asks_the_store(mut at: At) {
    (at.settings.limits.pending_events_max, at.settings.limits.dedup_entries_max) = (10, 20);
    let (server, sender) = at.ready().await;
    let mut ids = Vec::new();
    for number in 0..100 {
        ids.push(sender.accepted(json!({"type": "t", "payload": 1, "dedup_id": number.to_string()})).await);
        if number % 5 == 4 {
            sender.persisted(number + 1).await;
        }
    }
    for (number, id) in ids.iter().enumerate() {
        let (status, problem) = sender.event(json!({"type": "t", "payload": 1, "dedup_id": number.to_string()})).await;
        assert_eq!((status, &problem["id"]), (StatusCode::CONFLICT, &json!(id)), "{number}");
    }
    // Warming up cannot load all of them either.
    assert_eq!(server.shutdown().await.unpersisted_events, 0);
    let server = at.start();
    let (status, problem) = server.sender(&sender.key).event(json!({"type": "t", "payload": 1, "dedup_id": "0"})).await;
    assert_eq!((status, &problem["id"]), (StatusCode::CONFLICT, &json!(ids[0])));
}

async fn i3_a_retry_gets_the_first_answer_again(at: At) {
    let (server, sender) = at.ready().await;
    let send = async |sender: &Sender, key: &str, payload: i32| {
        let body = json!({"type": "t", "payload": payload});
        read(sender.request("POST", "/api/events").header("idempotency-key", key).json(&body).send().await.unwrap())
            .await
    };
    let first = send(&sender, "k", 1).await;
    assert_eq!(first.0, StatusCode::ACCEPTED);
    assert_eq!(send(&sender, "k", 1).await, first);
    assert_eq!(send(&sender, "\"k\"", 1).await, first, "quoted, as the draft has it");
    assert_eq!(send(&sender, "k", 2).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_ne!(send(&sender, "k2", 1).await.1["id"], first.1["id"]);
    assert_ne!(send(&server.organization("free").await, "k", 1).await.1["id"], first.1["id"]);
    let (status, problem) = send(&sender, &"k".repeat(256), 1).await;
    assert_eq!((status, &problem["field"]), (StatusCode::BAD_REQUEST, &json!("Idempotency-Key")));
    assert_eq!(sender.persisted(2).await.len(), 2);
}

async fn i3_retries_at_once_get_one_answer_and_make_one_event(at: At) {
    let (_server, sender) = at.ready().await;
    let batch = json!([{"type": "t", "payload": 1}, {"type": "", "payload": 1}]);
    let retries: Vec<_> = (0..10)
        .map(|_| {
            let request = sender.request("POST", "/api/events/batch").header("idempotency-key", "k").json(&batch);
            tokio::spawn(async move { read(request.send().await.unwrap()).await })
        })
        .collect();
    let mut answers = HashSet::new();
    for retry in retries {
        let (status, body) = retry.await.unwrap();
        assert_eq!(status, StatusCode::MULTI_STATUS);
        answers.insert(body.to_string());
    }
    assert_eq!(answers.len(), 1);
    assert_eq!(sender.persisted(1).await.len(), 1);
}

async fn i4_a_bad_field_is_named(at: At) {
    let (_server, sender) = at.ready().await;
    for (body, field) in [
        (r#"{"payload":1}"#, Some("type")),
        (r#"{"type":"","payload":1}"#, Some("type")),
        (r#"{"type":7,"payload":1}"#, Some("type")),
        (r#"{"type":"t"}"#, Some("payload")),
        (r#"{"type":"t","payload":1,"dedup_id":{}}"#, Some("dedup_id")),
        (r#"{"type":"t","payload":1"#, None),
        (r#"["t",1]"#, None),
        ("", None),
    ] {
        let (status, problem) = sender.post("/api/events", body).await;
        assert_eq!((status, problem["field"].as_str()), (StatusCode::BAD_REQUEST, field), "{body}");
    }
}

async fn i5_what_is_too_large_or_no_json_is_refused(at: At) {
    let (_server, sender) = at.ready().await;
    let body = |bytes: usize| format!(r#"{{"type":"t","payload":"{}"}}"#, "x".repeat(bytes - 2));
    assert_eq!(sender.post("/api/events", body(256 * 1024)).await.0, StatusCode::ACCEPTED);
    for bytes in [256 * 1024 + 1, 400 * 1024, 3 * 1024 * 1024] {
        assert_eq!(sender.post("/api/events", body(bytes)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    }
    let request = sender.request("POST", "/api/events").header("content-type", "text/plain").body("{}");
    assert_eq!(read(request.send().await.unwrap()).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let request = sender.request("POST", "/api/events").header("content-type", "application/json; charset=utf-8");
    let accepted = request.body(r#"{"type":"t","payload":null}"#).send().await.unwrap();
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    let events = sender.persisted(2).await;
    assert_eq!(events[0]["payload"].as_str().map(str::len), Some(256 * 1024 - 2));
}

async fn i7_a_batch_has_a_result_for_each_item_in_order(at: At) {
    let (_server, sender) = at.ready().await;
    sender.accepted(json!({"type": "t", "payload": 0, "dedup_id": "old"})).await;
    let items = [
        r#"{"type":"a","payload":1}"#,
        r#"{"type":"","payload":1}"#,
        "7",
        r#"{"type":"b","payload":2,"dedup_id":"old"}"#,
        r#"{"type":"c","payload":3,"dedup_id":"new"}"#,
    ];
    let array = ("application/json", format!("[{}]", items.join(",")), "new");
    let lines = ("application/x-ndjson", items.join("\n").replace("new", "newer"), "newer");
    for (kind, body, _) in [array, lines] {
        let request = sender.request("POST", "/api/events/batch").header("content-type", kind).body(body);
        let (status, answer) = read(request.send().await.unwrap()).await;
        assert_eq!(status, StatusCode::MULTI_STATUS);
        let results = answer["results"].as_array().unwrap();
        let statuses: Vec<_> = results.iter().map(|result| result["status"].as_u64().unwrap()).collect();
        assert_eq!(statuses, [202, 400, 400, 409, 202], "{kind}");
        assert_eq!(results[1]["field"], "type");
        for (result, event_type) in [(&results[0], "a"), (&results[4], "c")] {
            let (_, event) = sender.get(&format!("/api/events/{}", result["id"].as_str().unwrap())).await;
            assert_eq!(event["type"], event_type);
        }
    }
    for (kind, body, expected) in [
        ("text/csv", "a,b".to_owned(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/json", "[".to_owned(), StatusCode::BAD_REQUEST),
        ("application/json", "[]".to_owned(), StatusCode::BAD_REQUEST),
        ("application/x-ndjson", "{}\n".repeat(1001), StatusCode::PAYLOAD_TOO_LARGE),
        ("application/x-ndjson", " ".repeat(4 * 1024 * 1024 + 1), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let request = sender.request("POST", "/api/events/batch").header("content-type", kind).body(body);
        assert_eq!(read(request.send().await.unwrap()).await.0, expected);
    }
}

async fn i7_items_of_one_batch_with_one_dedup_id_make_one_event(at: At) {
    let (_server, sender) = at.ready().await;
    let lines = "{\"type\":\"t\",\"payload\":1,\"dedup_id\":\"d\"}\n".repeat(1000);
    let request =
        sender.request("POST", "/api/events/batch").header("content-type", "application/x-ndjson").body(lines);
    let (_, answer) = read(request.send().await.unwrap()).await;
    let results = answer["results"].as_array().unwrap();
    let accepted = results.iter().filter(|result| result["status"] == 202).count();
    let ids: HashSet<_> = results.iter().map(|result| result["id"].as_str().unwrap()).collect();
    assert_eq!((results.len(), accepted, ids.len()), (1000, 1, 1));
    assert_eq!(sender.persisted(1).await.len(), 1);
}

async fn i8_a_payload_comes_back_byte_for_byte(at: At) {
    let (_server, sender) = at.ready().await;
    let deep = format!("{}1{}", "[".repeat(128), "]".repeat(128));
    let payloads = [
        "123456789012345678901234567890.12345678901234567890e-400",
        r#"{"a":1,"a":2,"b":{"a":1,"a":[]}}"#,
        r#""\ud83d\ude00 😀 \u0000 \u0001 é é \/ \" \\""#,
        r#"{ "spaces" :	[ 1 , 2 ] , "-0" : -0.0 }"#,
        "null",
        &deep,
    ];
    for payload in payloads {
        let (status, answer) = sender.post("/api/events", format!(r#"{{"type":"t😀","payload":{payload}}}"#)).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        let member = format!("\"payload\":{payload},\"state\"");
        let path = format!("/api/events/{}", answer["id"].as_str().unwrap());
        let text = sender.request("GET", &path).send().await.unwrap().text().await.unwrap();
        assert!(text.contains(&member), "{member} in {text}");
    }
    eventually(async || {
        let text = sender.request("GET", "/api/inbox").send().await.unwrap().text().await.unwrap();
        payloads.iter().all(|payload| text.contains(&format!("\"payload\":{payload},\"state\""))).then_some(())
    })
    .await;
    let deeper = format!(r#"{{"type":"t","payload":{}1{}}}"#, "[".repeat(129), "]".repeat(129));
    let (status, problem) = sender.post("/api/events", deeper).await;
    assert_eq!((status, &problem["field"]), (StatusCode::BAD_REQUEST, &json!("payload")));
}

async fn r2_pages_show_each_event_once_and_only_to_its_organization(at: At) {
    let (server, sender) = at.ready().await;
    let other = server.organization("free").await;
    other.accepted(json!({"type": "other", "payload": 1})).await;
    let lines: String = (0..250).map(|number| format!("{{\"type\":\"t\",\"payload\":{number}}}\n")).collect();
    let batch = sender.request("POST", "/api/events/batch").header("content-type", "application/x-ndjson").body(lines);
    assert_eq!(batch.send().await.unwrap().status(), StatusCode::MULTI_STATUS);
    sender.persisted(250).await;
    for limit in [1, 7, 250, 1000] {
        let events = sender.inbox(limit).await;
        let payloads: HashSet<_> = events.iter().map(|event| event["payload"].as_u64().unwrap()).collect();
        assert_eq!((events.len(), payloads.len()), (250, 250), "limit {limit}");
    }
    assert_eq!(other.persisted(1).await.len(), 1);
    for query in ["limit=0", "limit=1001", "status=pending", "cursor=nonsense"] {
        let (status, problem) = sender.get(&format!("/api/inbox?{query}")).await;
        assert_eq!((status, problem["field"].as_str()), (StatusCode::BAD_REQUEST, query.split('=').next()), "{query}");
    }
}

async fn r2_an_acknowledged_event_leaves_the_undelivered_inbox(at: At) {
    let (server, sender) = at.ready().await;
    let id = sender.accepted(json!({"type": "t", "payload": 1})).await;
    sender.persisted(1).await;
    let other = server.organization("free").await;
    assert_eq!(other.post(&format!("/api/ack/{id}"), "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(other.get(&format!("/api/events/{id}")).await.0, StatusCode::NOT_FOUND);
    for _ in 0..2 {
        assert_eq!(sender.post(&format!("/api/ack/{id}"), "").await.0, StatusCode::OK, "again is no mistake");
    }
    assert_eq!(sender.get("/api/inbox?status=persisted").await.1["events"], json!([]));
    assert_eq!(sender.get("/api/inbox?status=delivered").await.1["events"][0]["id"], json!(id));
    assert_eq!(sender.get(&format!("/api/events/{id}")).await.1["state"], "delivered");
}

async fn r2_an_event_can_be_acknowledged_right_after_its_202(at: At) {
    let (_server, sender) = at.ready().await;
    for _ in 0..20 {
        let id = sender.accepted(json!({"type": "t", "payload": 1})).await;
        let (status, answer) = sender.post(&format!("/api/ack/{id}"), "").await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
}

async fn o2_metrics_count_what_happened(at: At) {
    let (server, sender) = at.ready().await;
    for _ in 0..3 {
        sender.accepted(json!({"type": "t", "payload": 1})).await;
    }
    sender.event(json!({"type": "t", "payload": 1, "dedup_id": "d"})).await;
    sender.event(json!({"type": "t", "payload": 1, "dedup_id": "d"})).await;
    sender.event(json!({"payload": 1})).await;
    sender.persisted(4).await;
    assert_eq!(server.metric("ingest_events_acknowledged_total").await, 4.0);
    assert_eq!(server.metric("ingest_events_duplicate_total").await, 1.0);
    assert_eq!(server.metric("ingest_events_persisted_total").await, 4.0);
    assert_eq!(server.metric("ingest_events_rejected_total{reason=\"invalid-field\"}").await, 1.0);
    assert_eq!(server.metric("ingest_http_requests_total{route=\"/api/events\",status=\"202\"}").await, 4.0);
    // In Redis no cache of this process is asked.
    let hits = if at.settings.queue == QueueAt::Memory { 1.0 } else { 0.0 };
    assert_eq!(server.metric("ingest_cache_hits_total{cache=\"dedup\"}").await, hits);
    assert_eq!(server.metric("ingest_pending_events").await, 0.0);
}
