//! A1–A4: organisations, their keys and their limits.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use http::Method;
use reports::conform::Rule;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::super::bench::{Bench, KEYS, KEYS_GENERATE, KEYS_ROTATE, Organization};
use super::super::door::Exchange;
use super::super::sheet::{Done, Sheet, Stop};
use crate::dialect::Dialect;

/// Tiers with the requests a minute that each has unless a server was started with others.
const TIERS: [(&str, u64); 4] = [("free", 100), ("pro", 1_000), ("business", 10_000), ("enterprise", 100_000)];
/// An id that no event has.
pub const NO_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
/// Keys that are compared.
const KEYS_COMPARED: usize = 16;
/// Randomness that a key must have, bits.
const KEY_BITS_MIN: f64 = 128.0;
/// Characters with which all keys begin, at least: `sk_`.
const PREFIX_CHARACTERS_MIN: usize = 3;
/// A rotated key may still work for so long, where the target says nothing else; the reference server: not at all.
const ROTATED_ENDS_WITHIN: Duration = Duration::from_secs(30);
const ROTATED_ENDS_WITHIN_REFERENCE: Duration = Duration::from_secs(1);
/// A limit over this is not used up.
const LIMIT_TRIED_MAX: u64 = 1_000;
/// A longer `Retry-After` is not waited for.
const RETRY_AFTER_TRIED_MAX_S: u64 = 2;

/// That keys are made by the contract's route: another one is as its profile says, and not as the rule.
fn makes_keys(bench: &Bench) -> Done {
    match bench.main.door.dialect.key == Dialect::contract().key && !bench.has_other_keys() {
        true => Ok(()),
        false => Err(Stop::Blocked("its profile has keys made in another way than the contract's".to_owned())),
    }
}

pub async fn a1(bench: &Bench, sheet: &mut Sheet) -> Done {
    makes_keys(bench)?;
    let door = &bench.main.door;
    for tier in std::iter::once(None).chain(TIERS.map(|(tier, _)| Some(tier))) {
        let mut wanted = json!({"organization_name": "Müller & Söhne"});
        if let Some(tier) = tier {
            wanted["tier"] = json!(tier);
        }
        let made = door.post(KEYS_GENERATE).json(&wanted).send().await?;
        sheet.status("a key is made with 201", &made, 201);
        sheet.member("the answer names the organisation", &made, "/organization_name", &wanted["organization_name"]);
        sheet.member(
            "the answer names the tier, free if none was asked for",
            &made,
            "/tier",
            &json!(tier.unwrap_or("free")),
        );
        let answer = made.json();
        let is_text = |name: &str| answer[name].as_str().is_some_and(|text| !text.is_empty());
        let whole = is_text("organization_id") && is_text("api_key") && answer["rate_limit_per_minute"].is_u64();
        sheet.check(
            "the answer has an id, a key and a limit",
            whole,
            "organization_id, api_key (texts) and rate_limit_per_minute (a number)",
            &made,
        );
    }
    for wrong in [json!({}), json!({"organization_name": 7}), json!({"organization_name": "a", "tier": "gold"})] {
        let refused = door.post(KEYS_GENERATE).json(&wrong).send().await?;
        sheet.check("a missing name or an unknown tier is refused", refused.is_refusal(), "4xx", &refused);
    }
    let mut keys = Vec::new();
    for _ in 0..KEYS_COMPARED {
        keys.push(bench.organization().await?.key);
    }
    let shape = Shape::of(&keys);
    let request = format!("POST {KEYS_GENERATE}, {KEYS_COMPARED} times");
    let bits = format!("{:.0} bits", shape.bits);
    sheet.told(
        "a key has at least 128 bits of randomness",
        shape.bits >= KEY_BITS_MIN,
        "128 bits at least",
        bits,
        &request,
    );
    let prefix = format!("all begin with '{}'", shape.prefix);
    let known = shape.prefix.chars().count() >= PREFIX_CHARACTERS_MIN;
    sheet.told("a key has a recognisable prefix", known, "the same three characters at least", prefix, &request);
    sheet.untested("a key carries a checksum", "from outside a mistyped key and an unknown one look the same");
    stored_as_hash(bench, &shape, sheet).await
}

/// What keys have in common, and what not.
struct Shape {
    prefix: String,
    bits: f64,
    /// The part of the first key that no other has.
    own: String,
}

impl Shape {
    fn of(keys: &[String]) -> Self {
        let length = keys.iter().map(|key| key.chars().count()).min().unwrap_or(0);
        let characters: Vec<Vec<char>> = keys.iter().map(|key| key.chars().collect()).collect();
        let is_common = |at: usize| characters.iter().all(|key| key[at] == characters[0][at]);
        let prefix: String = characters[0][..(0..length).take_while(|at| is_common(*at)).count()].iter().collect();
        let random: Vec<usize> = (0..length).filter(|at| !is_common(*at)).collect();
        let alphabet: BTreeSet<char> = random.iter().flat_map(|at| characters.iter().map(|key| key[*at])).collect();
        let bits = random.len() as f64 * (alphabet.len().max(1) as f64).log2();
        let own = keys[0].chars().skip(prefix.chars().count()).collect();
        Self { prefix, bits, own }
    }
}

/// Looks for the first key in everything that the target wrote.
async fn stored_as_hash(bench: &Bench, shape: &Shape, sheet: &mut Sheet) -> Done {
    const CLAUSE: &str = "a key is stored only as a hash";
    let Some(own) = &bench.main.own else {
        sheet.untested(CLAUSE, super::NOT_OURS);
        return Ok(());
    };
    let mut found = files_with(own.folder(), &shape.own);
    if let Some(database) = own.database() {
        let tables = database.tables_with(&shape.own).await;
        found.extend(tables.map_err(|error| Stop::Blocked(format!("its database could not be read: {error}")))?);
    }
    let got = format!("the key is in {}", found.join(", "));
    sheet.told(CLAUSE, found.is_empty(), "the key nowhere in what the server stores", got, "its files and tables");
    Ok(())
}

fn files_with(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read(&path).is_ok_and(|bytes| contains(&bytes, text.as_bytes())) {
                found.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    found
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && bytes.windows(part.len()).any(|window| window == part)
}

pub async fn a2(bench: &Bench, sheet: &mut Sheet) -> Done {
    let ours = bench.organization().await?;
    let mistyped = {
        let (head, last) = ours.key.split_at(ours.key.len() - 1);
        format!("{head}{}", if last == "x" { "y" } else { "x" })
    };
    let path = |found: Result<&str, Stop>| found.map(str::to_owned);
    let routes = [
        (Rule::I1, Method::POST, Ok(bench.main.door.dialect.ingest.path.clone())),
        (Rule::I7, Method::POST, path(bench.batch())),
        (Rule::R1, Method::GET, bench.event(NO_ID)),
        (Rule::R2, Method::GET, path(bench.inbox())),
        (Rule::R2, Method::POST, bench.ack(NO_ID)),
        (Rule::A3, Method::GET, Ok(KEYS.to_owned())),
        (Rule::A3, Method::POST, Ok(KEYS_ROTATE.to_owned())),
        (Rule::D1, Method::GET, path(bench.webhook())),
        (Rule::D1, Method::POST, path(bench.webhook())),
        (Rule::D1, Method::DELETE, path(bench.webhook())),
    ];
    for (_, method, path) in routes.into_iter().filter(|(rule, ..)| bench.claims(*rule)) {
        // A route that it does not have is no way in.
        let Ok(path) = path else { continue };
        let ask = || bench.main.door.ask(method.clone(), &path).raw_json(r#"{"type":"t","payload":1}"#);
        let attempts = [
            ask().noting("without a key"),
            ask().key("x").noting("with the key x"),
            ask().key(&mistyped).noting("with a mistyped key"),
            ask().secret_header("x-api-key", &mistyped).noting("with a mistyped X-API-Key"),
        ];
        for attempt in attempts {
            let refused = attempt.send().await?;
            sheet.status("every route answers 401 without a valid key", &refused, 401);
        }
    }
    let (method, path) = match bench.inbox() {
        Ok(path) => (Method::GET, path.to_owned()),
        Err(_) => (Method::POST, bench.main.door.dialect.ingest.path.clone()),
    };
    let ask = || bench.main.door.ask(method.clone(), &path);
    let with_key = ask().key(&ours.key).noting("with a key").send().await?;
    sheet.check("a valid key is taken", with_key.status != 401, "anything but 401", &with_key);
    if bench.main.door.dialect.key_header == Dialect::contract().key_header {
        let other = ask().secret_header("x-api-key", &ours.key).noting("with X-API-Key").send().await?;
        sheet.check("a key is taken as X-API-Key", other.status != 401, "anything but 401", &other);
    } else {
        sheet.untested("a key is taken as Bearer and as X-API-Key", "its profile names another header");
    }
    Ok(())
}

pub async fn a3(bench: &Bench, sheet: &mut Sheet) -> Done {
    makes_keys(bench)?;
    let wanted = json!({"organization_name": "rotated", "tier": "enterprise"});
    let made = bench.main.door.post(KEYS_GENERATE).json(&wanted).send().await?;
    let old =
        made.text_at("/api_key").ok_or_else(|| Stop::Blocked(format!("no key was to be had: {}", made.answer())))?;
    let ask = |method: Method, path: &str, key: &str| bench.main.door.ask(method, path).key(key);
    let shown = ask(Method::GET, KEYS, &old).send().await?;
    sheet.status("the organisation is shown with 200", &shown, 200);
    for name in ["organization_id", "organization_name"] {
        sheet.member("the organisation is shown as it was made", &shown, &format!("/{name}"), &made.json()[name]);
    }
    let hidden = !contains(&shown.body, old.as_bytes());
    sheet.told("the key is never shown again", hidden, "an answer without the key", "the key is in it", &shown.request);

    let rotated = ask(Method::POST, KEYS_ROTATE, &old).send().await?;
    sheet.status("a key is rotated with 200", &rotated, 200);
    let new = rotated.text_at("/api_key").unwrap_or_default();
    sheet.check("rotating gives a new key", !new.is_empty() && new != old, "another api_key", &rotated);
    let works = ask(Method::GET, KEYS, &new).noting("with the new key").send().await?;
    sheet.check("the new key works", works.is_success(), "2xx", &works);
    sheet.member("the new key is the same organisation's", &works, "/organization_id", &made.json()["organization_id"]);

    let bound = if bench.subject.is_reference() { ROTATED_ENDS_WITHIN_REFERENCE } else { ROTATED_ENDS_WITHIN };
    let begin = Instant::now();
    let ended = loop {
        let answer = ask(Method::GET, KEYS, &old).noting("with the old key").send().await?;
        if answer.status == 401 || begin.elapsed() > bound {
            break answer;
        }
        sleep(Duration::from_millis(50)).await;
    };
    let clause = "the old key ends within the stated bound";
    sheet.check(clause, ended.status == 401, format!("401 after {} s at most", bound.as_secs()), &ended);
    Ok(())
}

pub async fn a4(bench: &Bench, sheet: &mut Sheet) -> Done {
    makes_keys(bench)?;
    for (tier, per_minute) in TIERS {
        let wanted = json!({"organization_name": "limited", "tier": tier});
        let made = bench.main.door.post(KEYS_GENERATE).json(&wanted).send().await?;
        let clause = "each tier has the contract's limit";
        let said = made.json()["rate_limit_per_minute"].clone();
        if bench.subject.is_reference() || said == json!(per_minute) {
            sheet.member(clause, &made, "/rate_limit_per_minute", &json!(per_minute));
        } else {
            sheet.untested(clause, &format!("it says {said} for {tier}, and may have been started with other limits"));
        }
    }
    let inbox = bench.inbox()?;
    let limited = bench.organization_at(&bench.main.door, "free").await?;
    let limit = match limited.limit_per_minute {
        Some(limit) if limit <= LIMIT_TRIED_MAX => limit,
        other => {
            let reason = format!(
                "tier free has {} requests a minute",
                other.map_or("no limit of".to_owned(), |n| n.to_string())
            );
            return Err(Stop::Blocked(reason));
        }
    };
    let refused = use_up(&limited, inbox, limit, sheet).await?;
    let number = |name: &str| refused.header(name).and_then(|text| text.parse::<u64>().ok());
    let headers = |name: &str| refused.answer_with(name);
    let retry_after = number("retry-after").filter(|seconds| *seconds > 0);
    sheet.told(
        "over the limit there is Retry-After",
        retry_after.is_some(),
        "seconds",
        headers("retry-after"),
        &refused.request,
    );
    let policy = refused.header("ratelimit-policy").unwrap_or_default();
    let clause = "over the limit there is RateLimit-Policy";
    sheet.told(
        clause,
        policy.contains(&limit.to_string()),
        &format!("a policy of {limit}"),
        headers("ratelimit-policy"),
        &refused.request,
    );
    let has = refused.header("ratelimit").is_some_and(|text| !text.is_empty());
    sheet.told("over the limit there is RateLimit", has, "what is left", headers("ratelimit"), &refused.request);
    let other = bench.organization_at(&bench.main.door, "free").await?.get(inbox).send().await?;
    sheet.check("another organisation has its own limit", other.status != 429, "anything but 429", &other);
    match retry_after {
        Some(seconds) if seconds <= RETRY_AFTER_TRIED_MAX_S => {
            sleep(Duration::from_secs(seconds)).await;
            let again = limited.get(inbox).noting("after Retry-After").send().await?;
            sheet.check("after Retry-After it is served again", again.status != 429, "anything but 429", &again);
        }
        _ => sheet.untested("after Retry-After it is served again", "it is too long to wait for, or not there"),
    }
    Ok(())
}

/// Sends until it is too much; the refusal.
async fn use_up(limited: &Organization, inbox: &str, limit: u64, sheet: &mut Sheet) -> Result<Exchange, Stop> {
    let begin = Instant::now();
    let mut served = 0;
    let last = loop {
        let answer = limited.get(inbox).send().await?;
        // What comes back meanwhile may be used, too.
        let most = limit + 1 + (limit as f64 * begin.elapsed().as_secs_f64() / 60.0).ceil() as u64;
        if answer.status == 429 || served > most {
            break answer;
        }
        served += 1;
    };
    let clause = "over the limit it answers 429, and not before";
    let got = format!("{served} requests served, then {}", last.status);
    let holds = last.status == 429 && served >= limit;
    sheet.told(clause, holds, &format!("{limit} requests served, then 429"), got, &last.request);
    match last.status {
        429 => Ok(last),
        _ => Err(Stop::Blocked("it does not limit".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` keys of `length` digits out of `alphabet`, none by chance.
    fn keys(prefix: &str, alphabet: &[u8], length: usize) -> Vec<String> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            alphabet[(state >> 32) as usize % alphabet.len()] as char
        };
        (0..KEYS_COMPARED).map(|_| format!("{prefix}{}", (0..length).map(|_| next()).collect::<String>())).collect()
    }

    #[test]
    fn bits_of_a_key_are_counted_without_its_prefix() {
        let hex = b"0123456789abcdef";
        for (prefix, alphabet, length, enough) in [
            ("k_", &hex[..], 32, true),
            ("k_", &hex[..], 31, false),
            ("a_long_prefix_that_is_always_the_same_", &hex[..], 20, false),
            ("mr_", b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", 22, true),
            ("", b"0123456789", 38, false),
        ] {
            let shape = Shape::of(&keys(prefix, alphabet, length));
            assert_eq!((shape.bits >= KEY_BITS_MIN, shape.prefix.as_str()), (enough, prefix), "{prefix} {length}");
        }
    }

    #[test]
    fn a_text_is_found_in_files_of_any_depth() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("journal")).unwrap();
        std::fs::write(folder.path().join("journal/1.log"), b"\0\xffsecret\0").unwrap();
        assert_eq!(files_with(folder.path(), "secret"), ["1.log"]);
        assert!(files_with(folder.path(), "other").is_empty());
    }
}
