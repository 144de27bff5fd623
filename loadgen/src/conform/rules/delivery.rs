//! D1 and D2: webhooks.

use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::super::bench::{Bench, Organization};
use super::super::door::Door;
use super::super::hook::{Delivery, FAILING, HANGING, Hook, WELL};
use super::super::place::Need;
use super::super::sheet::{Done, Sheet, Stop, cut};
use crate::receiver::{is_signed, secret_bytes};

/// Attempts of one delivery.
const ATTEMPTS: usize = 5;
/// Events to each receiver.
const EVENTS: u64 = 8;
/// What was not delivered after so long is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// After its last attempt an event is left alone; so long is looked whether it is.
const LEFT_ALONE: Duration = Duration::from_millis(300);
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// How far a signature's time may be from now, s.
const TIMESTAMP_TOLERANCE_S: i64 = 300;
/// By how much the last wait is longer than the first, at least, in the median of the events: half of what the settings of
/// [`Need::Webhooks`] make of it (60 ms and 1,620 ms). Of a difference, since a busy machine makes every wait longer by about the same,
/// which a ratio would take for waits that do not grow; of medians, since a single wait is half to one and a half of what it should be.
const GROWTH_MIN: Duration = Duration::from_millis(780);
/// Spread of the last waits over their mean that chance makes, and a fixed wait does not.
const JITTER_SHARE_MIN: f64 = 0.1;

pub async fn d1(bench: &Bench, sheet: &mut Sheet) -> Done {
    let webhook = bench.webhook()?;
    let own = bench.own(Need::Webhooks).await?;
    let door = own.as_ref().map_or(&bench.main.door, |place| &place.door);
    let hook = Hook::listen().await.map_err(|error| Stop::Blocked(format!("no receiver: {error}")))?;
    let well = bench.organization_at(door, "enterprise").await?;
    let set = well.post(webhook).json(&json!({"webhook_url": hook.url(WELL)})).send().await?;
    if !bench.subject.is_reference() && set.is_refusal() {
        // D2 at work; whether a webhook can be set at all is not known then.
        return Err(Stop::Blocked("it does not let webhooks lead to this machine, where the receiver is".to_owned()));
    }
    sheet.status("a webhook is set with 200", &set, 200);
    if !set.is_success() {
        return Err(Stop::Blocked("no webhook can be set".to_owned()));
    }
    let secret = set.text_at("/secret").and_then(|shown| secret_bytes(&shown));
    delivered(&well, &hook, secret, sheet).await?;
    if own.is_some() {
        not_delayed(bench, door, &well, &hook, sheet).await?;
        given_up(bench, door, &hook, sheet).await?;
    } else {
        sheet.untested("one slow receiver does not delay the others", "its settings are not known");
        sheet.untested(
            "five attempts with growing waits, then dead letter",
            "the waits are too long without settings of our own",
        );
    }
    if let Some(place) = own {
        place.end().await;
    }
    Ok(())
}

/// Sends events; their ids.
async fn send(sender: &Organization) -> Result<Vec<String>, Stop> {
    let mut ids = Vec::new();
    for number in 0..EVENTS {
        ids.push(sender.accepted(&json!({"type": "hooked", "payload": {"n": number}})).await?);
    }
    Ok(ids)
}

/// Waits until every one of these was delivered `times` times; what came by then.
async fn awaited(hook: &Hook, path: &str, ids: &[String], times: usize) -> Vec<Delivery> {
    let begin = Instant::now();
    loop {
        let came = hook.deliveries(path);
        let count = |id: &String| came.iter().filter(|delivery| delivery.header("webhook-id") == id).count();
        if ids.iter().all(|id| count(id) >= times) || begin.elapsed() > PATIENCE {
            return came;
        }
        sleep(LOOK_PAUSE).await;
    }
}

async fn state(sender: &Organization, id: &str, wanted: &str) -> Result<String, Stop> {
    let begin = Instant::now();
    loop {
        let state = sender.event_by_id(id).await?.text_at("/state").unwrap_or_default();
        if state == wanted || begin.elapsed() > PATIENCE {
            return Ok(state);
        }
        sleep(LOOK_PAUSE).await;
    }
}

async fn delivered(sender: &Organization, hook: &Hook, secret: Option<Vec<u8>>, sheet: &mut Sheet) -> Done {
    let ids = send(sender).await?;
    let came = awaited(hook, WELL, &ids, 1).await;
    let missing = ids.iter().filter(|id| !came.iter().any(|delivery| delivery.header("webhook-id") == **id)).count();
    let request = "POST /api/events, with a webhook that answers 200";
    let got = format!("{missing} of {} not delivered under their ids", ids.len());
    sheet.told("every event is delivered, its id as webhook-id", missing == 0, "all of them", got, request);
    let Some(one) = came.first().filter(|_| missing == 0) else {
        return Err(Stop::Blocked("not everything was delivered".to_owned()));
    };
    let body = one.json();
    let shown = cut(&one.shown());
    let holds = body["type"] == "hooked" && body["payload"]["n"].is_u64() && body["id"] == one.header("webhook-id");
    sheet.told("the event is in the body", holds, "id, type and payload", shown.as_str(), request);
    let now_s = Timestamp::now().as_second();
    let near = one.header("webhook-timestamp").parse().is_ok_and(|at: i64| (now_s - at).abs() <= TIMESTAMP_TOLERANCE_S);
    sheet.told("webhook-timestamp is the time, in seconds", near, "Unix time of now", shown.as_str(), request);
    match secret {
        Some(secret) => {
            let holds = came.iter().all(|delivery| is_signed(&delivery.headers, &delivery.body, &secret));
            sheet.told(
                "deliveries are signed by Standard Webhooks",
                holds,
                "v1 with the secret's HMAC",
                shown,
                request,
            );
        }
        None => {
            sheet.untested("deliveries are signed by Standard Webhooks", "it shows no secret that begins with whsec_")
        }
    }
    let found = state(sender, &ids[0], "delivered").await?;
    sheet.told(
        "a delivered event is shown as delivered",
        found == "delivered",
        "delivered",
        found.as_str(),
        "GET /api/events/{id}",
    );
    Ok(())
}

/// A receiver that never answers has all it is owed under way; another one gets its events all the same.
async fn not_delayed(bench: &Bench, door: &Door, well: &Organization, hook: &Hook, sheet: &mut Sheet) -> Done {
    let webhook = bench.webhook()?;
    let slow = bench.organization_at(door, "enterprise").await?;
    slow.post(webhook).json(&json!({"webhook_url": hook.url(HANGING)})).send().await?;
    for _ in 0..5 {
        send(&slow).await?;
    }
    let begin = Instant::now();
    while hook.deliveries(HANGING).is_empty() && begin.elapsed() < PATIENCE {
        sleep(LOOK_PAUSE).await;
    }
    let ids = send(well).await?;
    let came = awaited(hook, WELL, &ids, 1).await;
    let missing = ids.iter().filter(|id| !came.iter().any(|delivery| delivery.header("webhook-id") == **id)).count();
    let got = format!("{missing} of {} not delivered within {} s", ids.len(), PATIENCE.as_secs());
    let request = "POST /api/events, while another organisation's webhook does not answer";
    sheet.told("one slow receiver does not delay the others", missing == 0, "all of them", got, request);
    Ok(())
}

async fn given_up(bench: &Bench, door: &Door, hook: &Hook, sheet: &mut Sheet) -> Done {
    let webhook = bench.webhook()?;
    let mut ids = Vec::new();
    let mut sender = None;
    // Each an organisation's own: a server may keep the events of one that fails in step.
    for number in 0..EVENTS {
        let own = bench.organization_at(door, "enterprise").await?;
        own.post(webhook).json(&json!({"webhook_url": hook.url(FAILING)})).send().await?;
        ids.push(own.accepted(&json!({"type": "hooked", "payload": {"n": number}})).await?);
        sender.get_or_insert(own);
    }
    let Some(sender) = sender else { return Ok(()) };
    awaited(hook, FAILING, &ids, ATTEMPTS).await;
    let found = state(&sender, &ids[0], "dead_letter").await?;
    let request = "POST /api/events, with a webhook that answers 500";
    sheet.told(
        "after the last attempt it is a dead letter",
        found == "dead_letter",
        "dead_letter",
        found.as_str(),
        request,
    );
    sleep(LEFT_ALONE).await;
    let came = hook.deliveries(FAILING);
    let attempts: Vec<Vec<Instant>> = ids.iter().map(|id| times(&came, id)).collect();
    let counts: Vec<usize> = attempts.iter().map(Vec::len).collect();
    let holds = counts.iter().all(|count| *count == ATTEMPTS);
    sheet.told("an event is tried five times", holds, "5 for each", format!("{counts:?}"), request);
    let waits = |times: &Vec<Instant>| times.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>();
    let waits: Vec<Vec<Duration>> = attempts.iter().map(waits).filter(|waits| waits.len() == ATTEMPTS - 1).collect();
    let grows = median(&waits, ATTEMPTS - 2) > median(&waits, 0) + GROWTH_MIN;
    let expected = format!("a last one that is {} ms longer than the first, in the median", GROWTH_MIN.as_millis());
    sheet.told("the waits between attempts grow", grows, &expected, format!("{waits:?}"), request);
    // The longest wait: the others may be no longer than the time between two looks at what is due.
    let last: Vec<f64> = waits.iter().map(|waits| waits[ATTEMPTS - 2].as_secs_f64()).collect();
    let (least, most) =
        last.iter().fold((f64::MAX, 0.0_f64), |(least, most), wait| (least.min(*wait), most.max(*wait)));
    let mean = last.iter().sum::<f64>() / last.len().max(1) as f64;
    let varies = most - least > mean * JITTER_SHARE_MIN;
    sheet.told("the waits differ by chance", varies, "last waits that differ", format!("{last:.3?} s"), request);
    Ok(())
}

/// Of one of the waits, over all events; zero when there are none.
fn median(waits: &[Vec<Duration>], at: usize) -> Duration {
    let mut of_all: Vec<Duration> = waits.iter().map(|waits| waits[at]).collect();
    of_all.sort_unstable();
    of_all.get(of_all.len() / 2).copied().unwrap_or_default()
}

fn times(came: &[Delivery], id: &str) -> Vec<Instant> {
    came.iter().filter(|delivery| delivery.header("webhook-id") == id).map(|delivery| delivery.at).collect()
}

pub async fn d2(bench: &Bench, sheet: &mut Sheet) -> Done {
    let webhook = bench.webhook()?;
    let sender = bench.organization().await?;
    let set = |url: &str| sender.post(webhook).json(&json!({"webhook_url": url}));
    for url in ["ftp://8.8.8.8/", "file:///etc/passwd", "nonsense", ""] {
        let refused = set(url).send().await?;
        sheet.check("a URL that is not http(s) is refused", refused.is_refusal(), "400", &refused);
    }
    let inside = [
        "http://127.0.0.1:8080/",
        "http://localhost/",
        "http://[::1]/",
        "http://2130706433/",
        "http://10.0.0.1/",
        "http://172.16.0.1/",
        "http://192.168.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "http://[fd00::1]/",
        "http://[::ffff:127.0.0.1]/",
    ];
    const CLAUSE: &str = "a URL that leads inside is refused";
    let first = set(inside[0]).send().await?;
    if !bench.subject.is_reference() && first.is_success() {
        sheet.untested(CLAUSE, "it takes http://127.0.0.1, and may have been started with leave to do so");
    } else {
        sheet.check(CLAUSE, first.is_refusal(), "400", &first);
        for url in &inside[1..] {
            let refused = set(url).send().await?;
            sheet.check(CLAUSE, refused.is_refusal(), "400", &refused);
        }
    }
    // Nothing is sent there: this organisation has no events.
    let outside = set("http://8.8.8.8/").send().await?;
    sheet.check("a public address is taken", outside.is_success(), "200", &outside);
    // So that nothing ever is.
    bench.main.door.ask(Method::DELETE, webhook).key(&sender.key).send().await?;
    sheet.untested("a name that leads inside only later is not connected to", "that takes a name server of our own");
    Ok(())
}
