//! What each fuzz target checks, as plain functions: libFuzzer calls them through `targets/`, and a test of the workspace
//! (`benches/corpus.rs`) over the corpus and mutations of it.
//!
//! A body panics when what it was given shows a mistake of ours; bytes that are refused with an error are no mistake.

use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use loadgen::http1;
use loadgen::plan::Asked;
use loadgen::replay::Timeline;
use serde_json::Value;
use serde_json::value::RawValue;
use server::event::Event;
use server::journal::format::{self, BatchWriter, Header, RECORDS_START};
use server::parse::{self, Bounds, Draft};
use server::problem::Problem;
use uuid::Uuid;

/// A target's body.
pub type Body = fn(&[u8]);

/// Every target by the name of its folder in `corpus/`. A new one needs a row here, in the order of the alphabet, a file in `targets/`, a `[[bin]]`, a corpus, and its name in `benches/corpus.rs`: a test there says what was forgotten.
pub const TARGETS: [(&str, Body); 7] = [
    ("event", event),
    ("http1", http1),
    ("journal", journal),
    ("objective", objective),
    ("plan", plan),
    ("replay", replay),
    ("run_v1", run_v1),
];

const BOUNDS: Bounds = Bounds { payload_bytes_max: 4096, json_depth_max: 16, batch_items_max: 8 };

/// Events, alone and in both kinds of batch: what is accepted is JSON whose fields are what `serde_json` reads, its payload is there
/// byte for byte, and an item of a batch is what it would be alone.
pub fn event(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    let read = parse::event(&body, &BOUNDS);
    if let Ok(draft) = &read {
        check_accepted(bytes, draft);
    }
    check_refused(bytes, &read);
    if let Ok(items) = parse::batch_array(&body, &BOUNDS) {
        let alone: Vec<&RawValue> = serde_json::from_slice(bytes).expect("a batch that was read is an array");
        assert_eq!(items, alone.iter().map(|item| one(item.get().as_bytes())).collect::<Vec<_>>());
    }
    if let Ok(items) = parse::batch_lines(&body, &BOUNDS) {
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        assert_eq!(items, lines.map(one).collect::<Vec<_>>());
    }
}

fn one(bytes: &[u8]) -> Result<Draft, Problem> {
    parse::event(&Bytes::copy_from_slice(bytes), &BOUNDS)
}

fn check_accepted(bytes: &[u8], draft: &Draft) {
    assert!(
        bytes.windows(draft.payload.len()).any(|window| window == draft.payload),
        "the payload is not what was sent"
    );
    assert_eq!(draft.payload.trim_ascii(), draft.payload, "white space around a payload is not the payload's");
    serde_json::from_slice::<&RawValue>(&draft.payload).expect("a payload is JSON");
    // Values are stricter than JSON's grammar: half a surrogate pair, 1e999 and more than 127 levels are no value.
    if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
        assert_eq!(value["type"], *draft.event_type);
        assert_eq!(value.get("dedup_id").and_then(Value::as_str), draft.dedup_id.as_deref());
        assert_eq!(
            value["payload"],
            serde_json::from_slice::<Value>(&draft.payload).expect("a part of a value is one")
        );
    }
    let quoted = |text: &str| Value::from(text).to_string();
    let dedup_id = draft.dedup_id.as_deref().map(|id| format!(r#","dedup_id":{}"#, quoted(id))).unwrap_or_default();
    let mut again = format!(r#"{{"type":{}{dedup_id},"payload":"#, quoted(&draft.event_type)).into_bytes();
    again.extend_from_slice(&draft.payload);
    again.push(b'}');
    assert_eq!(one(&again).as_ref(), Ok(draft), "written again it is another event");
}

/// What `serde_json` reads as an event within the bounds is not refused, unless a field is there twice (which a value does not show).
fn check_refused(bytes: &[u8], read: &Result<Draft, Problem>) {
    let Err(problem) = read else { return };
    if matches!(problem, Problem::Field { detail, .. } if detail.contains("there twice")) {
        return;
    }
    let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(bytes) else { return };
    let is_name = |value: &Value| {
        value.as_str().is_some_and(|text| (1..=255).contains(&text.chars().count()) && !text.contains('\0'))
    };
    let is_event = fields.get("type").is_some_and(is_name)
        && fields.get("dedup_id").is_none_or(is_name)
        && fields.get("payload").is_some_and(|payload| levels(payload) <= BOUNDS.json_depth_max)
        && bytes.len() as u64 <= BOUNDS.payload_bytes_max;
    // The last of two equal names inside of a payload counts for a value, and each of them for the depth.
    let repeats = matches!(problem, Problem::Field { field: "payload", detail } if detail.contains("nested deeper"));
    assert!(!is_event || repeats, "an event was refused: {problem:?}");
}

fn levels(value: &Value) -> u64 {
    match value {
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(levels).max().unwrap_or(0),
        _ => 0,
    }
}

/// Answers to the load generator: the first byte says in which pieces the rest comes, and where it is cut makes no difference.
pub fn http1(bytes: &[u8]) {
    let Some((piece, answer)) = bytes.split_first() else { return };
    let at_once = read_answers(answer, answer.len().max(1));
    let in_pieces = read_answers(answer, usize::from(*piece).max(1));
    match (at_once, in_pieces) {
        // Cut, the connection may be given back before the rest is seen to have come.
        (Ok(Some((status, body, reusable))), Ok(Some((status_cut, body_cut, reusable_cut)))) => {
            assert_eq!((status, &body), (status_cut, &body_cut));
            assert!(reusable_cut || !reusable);
        }
        (at_once, in_pieces) => assert_eq!(at_once, in_pieces),
    }
}

type Answer = Option<(u16, Vec<u8>, bool)>;

/// The answer to one request, of a connection that is closed after `bytes`.
fn read_answers(bytes: &[u8], piece: usize) -> Result<Answer, loadgen::exchange::ExchangeError> {
    let mut reader = http1::Reader::default();
    let ends = (piece..bytes.len()).step_by(piece).chain([bytes.len()]);
    for (end, closed) in ends.map(|end| (end, false)).chain([(bytes.len(), true)]) {
        if let Some(read) = reader.read(&bytes[..end], closed)? {
            let body = match read.body {
                http1::Body::Here(range) => bytes[range].to_vec(),
                http1::Body::Chunks => reader.chunks().to_vec(),
            };
            return Ok(Some((read.status, body, read.reusable)));
        }
    }
    Ok(None)
}

/// A segment of the journal: the bytes say which batches were written, and then which of the segment's bytes are changed. What is read is what was
/// written, up to some batch; and one change alone costs at most the last batch, or the segment is refused. Besides, the bytes as a segment.
pub fn journal(bytes: &[u8]) {
    let _ = format::read(bytes);
    let Some(((batches, changes), rest)) =
        bytes.split_first_chunk().map(|([batches, changes], rest)| ((batches % 5, changes % 4), rest))
    else {
        return;
    };
    let salt = 0x5a17;
    let mut segment = Header { number: 1, salt }.to_bytes().to_vec();
    segment.resize(RECORDS_START as usize, 0);
    let mut written = Vec::new();
    let mut rest = rest.iter().copied();
    let mut next = || rest.next().unwrap_or_default();
    for number in 0..u64::from(batches) {
        let events: Vec<Event> = (0..1 + next() % 3).map(|_| any_event(&mut next)).collect();
        let mut buffer = Vec::new();
        let mut batch = BatchWriter::new(&mut buffer, salt, segment.len() as u64);
        events.iter().for_each(|event| batch.push(event));
        batch.finish(number);
        segment.extend_from_slice(&buffer);
        written.push(events);
    }
    // A segment goes on behind its last batch.
    segment.resize(segment.len() + 64, 0);
    for _ in 0..changes {
        let place = usize::from(u16::from_le_bytes([next(), next()])) % (segment.len() - RECORDS_START as usize);
        segment[RECORDS_START as usize + place] ^= next();
    }
    let Ok(content) = format::read(&segment) else { return assert!(changes > 0, "a whole segment was refused") };
    let read: Vec<_> = content.batches.into_iter().map(|batch| batch.events).collect();
    assert!(written.starts_with(&read), "what was read was not written");
    let lost = written.len() - read.len();
    assert!(lost <= usize::from(changes), "{changes} changes took {lost} batches");
}

fn any_event(next: &mut impl FnMut() -> u8) -> Event {
    let mut text = |bytes: u8| (0..bytes).map(|_| char::from(next() % 128)).collect::<String>();
    let (event_type, dedup_id, payload) = (text(5), text(3), text(40));
    Event {
        id: Uuid::from_u128(u128::from(next())),
        organization_id: Uuid::from_u128(u128::from(next())),
        event_type: event_type.into(),
        dedup_id: next().is_multiple_of(2).then(|| dedup_id.into()),
        payload: payload.into(),
        created_at_us: i64::from(next()),
        followed: None,
    }
}

/// Objectives: one that is read means the same when it is written and read again; a mistake is shown within the text.
pub fn objective(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match reports::objective::parse(text) {
        Ok(objective) => {
            let written = objective.to_string();
            let again = reports::objective::parse(&written);
            assert_eq!(again.as_ref().map(ToString::to_string), Ok(written), "{text:?}");
        }
        Err(error) => {
            assert!(error.length >= 1 && error.column <= text.chars().count(), "{error:?}");
            assert!(!error.to_string().is_empty());
        }
    }
}

/// Plan files: one that can be followed has a schedule that goes forward.
pub fn plan(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(asked) = Asked::from_toml(text, Path::new("plan.toml")) else { return };
    // Not what lies at a path that a fuzzer makes up.
    let asked = Asked { replay: None, keys_file: None, tls_ca: None, ..asked };
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let resolved = asked.resolve(&names(&["null", "cache-first", "db-first"]), &names(&["fixed", "adaptive", "wake"]));
    match resolved {
        Ok(resolved) => {
            let text = serde_json::to_string(&resolved.plan).expect("a plan is JSON");
            assert_eq!(serde_json::from_str::<reports::model::Plan>(&text).expect("a plan"), resolved.plan);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Recordings: one that is read goes forward in time, within its length and its sizes.
pub fn replay(bytes: &[u8]) {
    const SIZES: std::ops::RangeInclusive<u32> = 37..=262_144;
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room for a temporary file");
    match Timeline::read(file.path(), 2.0, SIZES) {
        Ok(timeline) => {
            assert!(!timeline.rows().is_empty() && timeline.rows().is_sorted_by_key(|row| row.offset_ns));
            assert!(timeline.last_ns() <= 24 * 3_600 * 1_000_000_000);
            let mut sizes = timeline.rows().iter().filter_map(|row| row.payload_bytes);
            assert!(sizes.all(|size| SIZES.contains(&size.get())));
            assert!(timeline.payload_bytes_median() <= timeline.payload_bytes_max());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Results of others: one that is read is written and read back the same, and can be judged and shown. Bytes that are no text of an
/// object are edits of a good result ([`edited`]): bytes alone seldom get past the JSON.
pub fn run_v1(bytes: &[u8]) {
    let text = match str::from_utf8(bytes) {
        Ok(text) if text.trim_ascii_start().starts_with('{') => text.to_owned(),
        _ => edited(bytes).to_string(),
    };
    let Ok(mut run) = reports::schema::read(&text) else { return };
    let written = reports::schema::write(&run);
    let again = reports::schema::read(&written).expect("what was written");
    assert_eq!(reports::schema::write(&again), written);
    assert!(!reports::html::render(&run).contains("<script>"), "text of a result is text, not markup");
    assert!(!reports::table::render(&run).is_empty());
    reports::verdict::assess(&mut run);
    assert!(!reports::html::render(&run).is_empty());
}

/// A good result with some of its values replaced: three bytes choose one of its values, and what is there now.
fn edited(bytes: &[u8]) -> Value {
    const RESULTS: [&str; 2] = [include_str!("../corpus/run_v1/small"), include_str!("../corpus/run_v1/capacity")];
    let (which, edits) = bytes.split_first().unwrap_or((&0, &[]));
    let mut run: Value = serde_json::from_str(RESULTS[usize::from(*which) % 2]).expect("the corpus holds results");
    for edit in edits.chunks_exact(3) {
        let mut left = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % values(&run);
        replace(&mut run, &mut left, &hostile(edit[2]));
    }
    run
}

/// How many values there are, this one and those inside.
fn values(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(values).sum(),
        Value::Object(members) => members.values().map(values).sum(),
        _ => 0,
    }
}

/// Puts `new` in the place of the value with that number, counted from the outside in; true when it is done.
fn replace(value: &mut Value, left: &mut usize, new: &Value) -> bool {
    if *left == 0 {
        *value = new.clone();
        return true;
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| replace(item, left, new)),
        Value::Object(members) => members.values_mut().any(|member| replace(member, left, new)),
        _ => false,
    }
}

fn hostile(kind: u8) -> Value {
    const WORDS: [&str; 8] = [
        "",
        "\u{0}",
        "<script>alert(1)</script>",
        "HISTFAAAAAEAAAABAAAAAAAAAAAAAA==",
        "-1",
        "null",
        "1970-01-01T00:00:00Z",
        "é\u{202e}\r\n",
    ];
    const NUMBERS: [f64; 8] = [-1.0, 0.5, 1e308, -1e308, 5e-324, 9e15, 1e19, -0.0];
    match kind {
        0 => Value::Null,
        1 => Value::Bool(true),
        2 => Value::Array(Vec::new()),
        3 => Value::Object(serde_json::Map::new()),
        4 => Value::from(u64::MAX),
        5 => Value::from(i64::MIN),
        6 => Value::from("x".repeat(5_000)),
        7..=39 => Value::from(WORDS[usize::from(kind % 8)]),
        40..=79 => Value::from(NUMBERS[usize::from(kind % 8)]),
        small => Value::from(small - 80),
    }
}
