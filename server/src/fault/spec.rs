//! What `--fault` takes: one row for each fault with its form, an example and its meaning; reading it, and saying what is wrong with it.
//!
//! Not here: what a fault does ([`crate::fault`]).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::StatusCode;

/// Longest time that a fault takes.
const TIME_MAX: Duration = Duration::from_secs(3_600);
/// Most memory that a fault holds for one event, in bytes.
const MEMORY_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Most requests a second that can be asked of a throttle.
const THROTTLE_PER_S_MAX: u64 = 1_000_000_000;
/// Most extra queries of one poll.
const POLL_QUERIES_MAX: u64 = 1_000;
/// Most extra syncs or commits of one batch.
const BATCH_EXTRAS_MAX: u64 = 1_000;
/// Largest share of processor time that is burnt on top: ten times what is used.
const CPU_PERCENT_MAX: f64 = 1_000.0;

/// How a fault is written.
#[derive(Debug)]
struct Form {
    name: &'static str,
    value: &'static str,
    example: &'static str,
    meaning: &'static str,
}

macro_rules! forms {
    ($($name:literal = $value:literal, $example:literal: $meaning:literal;)*) => {
        const FORMS: &[Form] =
            &[$(Form { name: $name, value: $value, example: concat!($name, "=", $example), meaning: $meaning }),*];
    };
}

forms! {
    "service-time" = "constant:TIME | exponential:MEAN | two-point:FAST:SLOW:SHARE", "exponential:2ms":
        "holds each event request this long before it is worked on, each by itself";
    "queue" = "one", "one":
        "with service-time: one request at a time, in order of arrival; the others wait";
    "stall" = "TIME/EVERY | TIME@AFTER", "1.4s/10s":
        "every time again, or once: no event request goes on for TIME, counted from the first one";
    "drop" = "SHARE", "0.01":
        "acknowledged and never persisted";
    "duplicate" = "SHARE", "0.01":
        "persisted twice: the copy has another id and no dedup_id";
    "corrupt" = "SHARE", "0.01":
        "persisted with one character of the payload changed";
    "ack-delay" = "TIME:SHARE", "30ms:0.1":
        "taken at once, acknowledged this much later";
    "status" = "STATUS:SHARE", "503:0.01":
        "not taken, answered with this status, 400 to 599";
    "close-before" = "SHARE", "0.01":
        "not taken, connection closed without an answer";
    "close-after" = "SHARE", "0.01":
        "taken, connection closed without an answer";
    "throttle" = "REQUESTS/s", "500/s":
        "of each second, counted from the first event request, all over this many are answered 429";
    "cpu" = "TIME | PERCENT%", "20us":
        "burns this much processor time for each event request, or this share of what its thread uses";
    "memory" = "SIZE", "1KiB":
        "holds this much memory for each event, for ever";
    "ballast" = "SIZE", "20MiB":
        "holds this much memory, in use, from the start";
    "webhook-drop" = "SHARE", "0.01":
        "counts as delivered to its webhook and is never sent";
    "webhook-duplicate" = "SHARE", "0.01":
        "is sent to its webhook twice";
    "poll-query" = "QUERIES", "1":
        "asks the database so many times more at each poll";
    "store-commit" = "COMMITS", "1":
        "the database commits so many times more, each synced, after each batch of events";
    "journal-sync" = "SYNCS", "1":
        "the journal writes and syncs each batch so many times more";
    "panic" = "processor | writer | deliveries | journal", "processor":
        "that part ends by a panic as soon as it has something to do";
    "store-sync" = "off", "off":
        "the database commits without syncing (SQLite: synchronous=OFF; PostgreSQL: synchronous_commit=off): a power cut loses events that \
         were acknowledged as kept";
}

/// Text for `--help`.
pub fn help() -> String {
    let mut text = String::from(
        "Break promises on purpose, to test what measures this server; repeatable, or a list separated by commas or semicolons. \
         All answers then carry the header Millrace-Faults. NAME=VALUE:",
    );
    for Form { name, value, meaning, .. } in FORMS {
        text += &format!("\n- {name}={value}: {meaning}");
    }
    text + "\nAn event is hit by NAME with SHARE when the first 53 bits of the SHA-256 of 'SEED:NAME:DEDUP_ID', read as a fraction, are \
            below SHARE (SEED is --fault-seed)."
}

/// A distribution of service times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ServiceTime {
    /// Always the same.
    Constant(Duration),
    /// With this mean.
    Exponential(Duration),
    /// Slow with probability `share`, else fast.
    TwoPoint {
        /// Usual.
        fast: Duration,
        /// Unusual.
        slow: Duration,
        /// 0..=1.
        share: f64,
    },
}

/// When everything stands still.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stall {
    /// For how long.
    pub length: Duration,
    /// When it begins, after the first event request: once, or at each multiple.
    pub begin: Duration,
    /// Whether at each multiple of `begin`.
    pub repeats: bool,
}

/// A part of the server that runs as long as it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Persists what is pending.
    Processor,
    /// Commits, in `db-first`.
    Writer,
    /// Sends to webhooks.
    Deliveries,
    /// Writes the journal, in `journal-first`.
    Journal,
}

/// Processor time to burn for a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cpu {
    /// So much.
    Time(Duration),
    /// This share of what the answering thread has used since the last time; 0.1 = 10 %.
    Share(f64),
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "each row of the table of forms says what it is")]
pub enum Kind {
    ServiceTime(ServiceTime),
    QueueOne,
    Stall(Stall),
    Drop(f64),
    Duplicate(f64),
    Corrupt(f64),
    AckDelay { delay: Duration, share: f64 },
    Status { status: StatusCode, share: f64 },
    CloseBefore(f64),
    CloseAfter(f64),
    Throttle { requests_per_s: u64 },
    Cpu(Cpu),
    Memory { bytes: usize },
    Ballast { bytes: usize },
    WebhookDrop(f64),
    WebhookDuplicate(f64),
    PollQuery { queries: u32 },
    StoreCommit { commits: u32 },
    JournalSync { syncs: u32 },
    Panic(Part),
    StoreSyncOff,
}

impl Kind {
    /// Its name, as it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::ServiceTime(_) => "service-time",
            Self::QueueOne => "queue",
            Self::Stall(_) => "stall",
            Self::Drop(_) => "drop",
            Self::Duplicate(_) => "duplicate",
            Self::Corrupt(_) => "corrupt",
            Self::AckDelay { .. } => "ack-delay",
            Self::Status { .. } => "status",
            Self::CloseBefore(_) => "close-before",
            Self::CloseAfter(_) => "close-after",
            Self::Throttle { .. } => "throttle",
            Self::Cpu(_) => "cpu",
            Self::Memory { .. } => "memory",
            Self::Ballast { .. } => "ballast",
            Self::WebhookDrop(_) => "webhook-drop",
            Self::WebhookDuplicate(_) => "webhook-duplicate",
            Self::PollQuery { .. } => "poll-query",
            Self::StoreCommit { .. } => "store-commit",
            Self::JournalSync { .. } => "journal-sync",
            Self::Panic(_) => "panic",
            Self::StoreSyncOff => "store-sync",
        }
    }

    /// The share of events that it hits, 0..=1, if it is one of those that do.
    pub fn share(self) -> Option<f64> {
        match self {
            Self::Drop(share)
            | Self::Duplicate(share)
            | Self::Corrupt(share)
            | Self::AckDelay { share, .. }
            | Self::Status { share, .. }
            | Self::CloseBefore(share)
            | Self::CloseAfter(share)
            | Self::WebhookDrop(share)
            | Self::WebhookDuplicate(share) => Some(share),
            _ => None,
        }
    }

    /// Whether it is about events that are kept, or the database they are kept in.
    pub fn needs_store(self) -> bool {
        matches!(
            self,
            Self::Drop(_)
                | Self::Duplicate(_)
                | Self::Corrupt(_)
                | Self::Memory { .. }
                | Self::WebhookDrop(_)
                | Self::WebhookDuplicate(_)
                | Self::PollQuery { .. }
                | Self::StoreCommit { .. }
                | Self::JournalSync { .. }
                | Self::Panic(_)
                | Self::StoreSyncOff
        )
    }
}

/// One fault and how it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What it is.
    pub kind: Kind,
    text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The value of one `--fault`, or of `INGEST_FAULT`: one fault, or several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultList(pub Vec<Fault>);

/// A `--fault` that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// No fault of that name.
    #[error("'{text}' is no fault; write NAME=VALUE with one of the names {names}; for example {example}", names = names(), example = FORMS[0].example)]
    Unknown {
        /// As given.
        text: String,
    },
    /// A value that is none for this fault.
    #[error("'{text}': {problem}; write {name}={form}, for example {example}")]
    Value {
        /// As given.
        text: String,
        /// What is wrong with which part.
        problem: String,
        /// Of the fault.
        name: &'static str,
        /// What its value looks like.
        form: &'static str,
        /// A whole one.
        example: &'static str,
    },
    /// The same fault with two values.
    #[error("'{first}' and '{second}': a fault can be given once; leave one of them out")]
    Twice {
        /// The first one.
        first: String,
        /// The second one.
        second: String,
    },
    /// `queue` alone.
    #[error(
        "'queue=one' needs something to queue for; give a service time too, for example service-time=exponential:2ms"
    )]
    QueueWithoutServiceTime,
    /// A fault of keeping, where nothing is kept.
    #[error(
        "'{0}' has no meaning in mode null, which keeps nothing; choose --mode cache-first or db-first, or leave it out"
    )]
    NothingKept(String),
}

fn names() -> String {
    FORMS.iter().map(|form| form.name).collect::<Vec<_>>().join(", ")
}

impl FromStr for FaultList {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let parts = text.split([',', ';']).map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        // The text goes into a header field, where µ cannot stand.
        let text = text.replace(['µ', 'μ'], "u");
        let (name, value) = text.split_once('=').unwrap_or((&text, ""));
        let Some(form) = FORMS.iter().find(|form| form.name == name) else {
            return Err(FaultError::Unknown { text });
        };
        match kind(form.name, value) {
            Ok(kind) => Ok(Self { kind, text }),
            Err(problem) => {
                Err(FaultError::Value { text, problem, name: form.name, form: form.value, example: form.example })
            }
        }
    }
}

fn kind(name: &str, value: &str) -> Result<Kind, String> {
    let (first, rest) = value.split_once(':').unwrap_or((value, ""));
    Ok(match name {
        "service-time" => Kind::ServiceTime(service_time(first, rest)?),
        "queue" if value == "one" => Kind::QueueOne,
        "stall" => Kind::Stall(stall(value)?),
        "drop" => Kind::Drop(share(value)?),
        "duplicate" => Kind::Duplicate(share(value)?),
        "corrupt" => Kind::Corrupt(share(value)?),
        "ack-delay" => Kind::AckDelay { delay: time(first)?, share: share(rest)? },
        "status" => Kind::Status { status: status(first)?, share: share(rest)? },
        "close-before" => Kind::CloseBefore(share(value)?),
        "close-after" => Kind::CloseAfter(share(value)?),
        "throttle" => {
            let number = value.strip_suffix("/s").ok_or_else(|| format!("'{value}' does not end in /s"))?;
            Kind::Throttle { requests_per_s: whole(number, THROTTLE_PER_S_MAX)? }
        }
        "cpu" => Kind::Cpu(cpu(value)?),
        "memory" => Kind::Memory { bytes: size(value)? },
        "ballast" => Kind::Ballast { bytes: size(value)? },
        "store-sync" if value == "off" => Kind::StoreSyncOff,
        "panic" => Kind::Panic(part(value)?),
        "webhook-drop" => Kind::WebhookDrop(share(value)?),
        "webhook-duplicate" => Kind::WebhookDuplicate(share(value)?),
        "poll-query" => Kind::PollQuery { queries: whole(value, POLL_QUERIES_MAX)? as u32 },
        "store-commit" => Kind::StoreCommit { commits: whole(value, BATCH_EXTRAS_MAX)? as u32 },
        "journal-sync" => Kind::JournalSync { syncs: whole(value, BATCH_EXTRAS_MAX)? as u32 },
        _ => return Err(format!("'{value}' is no value for it")),
    })
}

fn part(name: &str) -> Result<Part, String> {
    match name {
        "processor" => Ok(Part::Processor),
        "writer" => Ok(Part::Writer),
        "deliveries" => Ok(Part::Deliveries),
        "journal" => Ok(Part::Journal),
        _ => Err(format!("'{name}' is no part")),
    }
}

fn service_time(kind: &str, values: &str) -> Result<ServiceTime, String> {
    match (kind, values.split(':').collect::<Vec<_>>().as_slice()) {
        ("constant", [always]) => Ok(ServiceTime::Constant(time(always)?)),
        ("exponential", [mean]) => Ok(ServiceTime::Exponential(time(mean)?)),
        ("two-point", [fast, slow, slow_share]) => {
            Ok(ServiceTime::TwoPoint { fast: time(fast)?, slow: time(slow)?, share: share(slow_share)? })
        }
        _ => Err(format!("'{kind}:{values}' is no distribution")),
    }
}

fn stall(value: &str) -> Result<Stall, String> {
    let repeats = value.contains('/');
    let (length, begin) = value.split_once(['/', '@']).ok_or_else(|| format!("'{value}' does not say when"))?;
    let (length, begin) = (time(length)?, time(begin)?);
    if length.is_zero() {
        return Err("a stall of no length is none".to_owned());
    }
    if repeats && length >= begin {
        return Err("a stall must be shorter than the time from one to the next".to_owned());
    }
    Ok(Stall { length, begin, repeats })
}

fn time(text: &str) -> Result<Duration, String> {
    let parsed: Result<jiff::SignedDuration, _> = text.parse();
    let time = parsed.ok().and_then(|time| Duration::try_from(time).ok());
    time.filter(|time| *time <= TIME_MAX)
        .ok_or_else(|| format!("'{text}' is not a time from 0s to 1h (a number with a unit: ns, us, ms, s)"))
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("'{text}' is not a share from 0 to 1"))
}

fn status(text: &str) -> Result<StatusCode, String> {
    let status = text.parse().ok().filter(|status: &StatusCode| status.is_client_error() || status.is_server_error());
    status.ok_or_else(|| format!("'{text}' is not a status from 400 to 599"))
}

fn whole(text: &str, max: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| format!("'{text}' is not a whole number from 1 to {max}"))
}

fn cpu(text: &str) -> Result<Cpu, String> {
    let Some(percent) = text.strip_suffix('%') else { return Ok(Cpu::Time(time(text)?)) };
    let percent = percent.parse().ok().filter(|percent| (0.0..=CPU_PERCENT_MAX).contains(percent));
    percent
        .map(|percent: f64| Cpu::Share(percent / 100.0))
        .ok_or_else(|| format!("'{text}' is not a percentage from 0 to {CPU_PERCENT_MAX}"))
}

fn size(text: &str) -> Result<usize, String> {
    let number = text.trim_end_matches(char::is_alphabetic);
    let unit = match &text[number.len()..] {
        "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        _ => return Err(format!("'{text}' is not a size (a number with a unit: B, KiB, MiB)")),
    };
    let bytes = whole(number, MEMORY_BYTES_MAX)?.saturating_mul(unit);
    usize::try_from(bytes.min(MEMORY_BYTES_MAX)).map_err(|error| error.to_string())
}

/// Refuses faults that cannot be together, or not in this server. `keeps_events`: it is not in mode `null`.
pub fn check(faults: &[Fault], keeps_events: bool) -> Result<(), FaultError> {
    for (index, second) in faults.iter().enumerate() {
        if let Some(first) = faults[..index].iter().find(|first| first.kind.name() == second.kind.name()) {
            return Err(FaultError::Twice { first: first.to_string(), second: second.to_string() });
        }
        if second.kind.needs_store() && !keeps_events {
            return Err(FaultError::NothingKept(second.to_string()));
        }
    }
    let has = |test: fn(&Kind) -> bool| faults.iter().any(|fault| test(&fault.kind));
    if has(|kind| *kind == Kind::QueueOne) && !has(|kind| matches!(kind, Kind::ServiceTime(_))) {
        return Err(FaultError::QueueWithoutServiceTime);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn parse(text: &str) -> Result<Vec<Kind>, String> {
        let list: Result<FaultList, FaultError> = text.parse();
        list.map(|list| list.0.iter().map(|fault| fault.kind).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_fault_can_be_written() {
        let two_point = ServiceTime::TwoPoint { fast: Duration::from_micros(200), slow: ms(20), share: 0.02 };
        let once = Stall { length: ms(1400), begin: ms(5000), repeats: false };
        for (text, kind) in [
            ("service-time=constant:2ms", Kind::ServiceTime(ServiceTime::Constant(ms(2)))),
            ("service-time=exponential:1.5s", Kind::ServiceTime(ServiceTime::Exponential(ms(1500)))),
            ("service-time=two-point:200us:20ms:0.02", Kind::ServiceTime(two_point)),
            ("service-time=two-point:200µs:20ms:0.02", Kind::ServiceTime(two_point)),
            ("queue=one", Kind::QueueOne),
            ("stall=1.4s@5s", Kind::Stall(once)),
            ("stall=1.4s/5s", Kind::Stall(Stall { repeats: true, ..once })),
            ("drop=0.01", Kind::Drop(0.01)),
            ("duplicate=1", Kind::Duplicate(1.0)),
            ("corrupt=0", Kind::Corrupt(0.0)),
            ("ack-delay=30ms:0.1", Kind::AckDelay { delay: ms(30), share: 0.1 }),
            ("status=503:0.01", Kind::Status { status: StatusCode::SERVICE_UNAVAILABLE, share: 0.01 }),
            ("close-before=0.5", Kind::CloseBefore(0.5)),
            ("close-after=0.5", Kind::CloseAfter(0.5)),
            ("throttle=500/s", Kind::Throttle { requests_per_s: 500 }),
            ("cpu=20us", Kind::Cpu(Cpu::Time(Duration::from_micros(20)))),
            ("cpu=10%", Kind::Cpu(Cpu::Share(0.1))),
            ("memory=2KiB", Kind::Memory { bytes: 2048 }),
            ("webhook-drop=0.5", Kind::WebhookDrop(0.5)),
            ("webhook-duplicate=0.5", Kind::WebhookDuplicate(0.5)),
            ("poll-query=1", Kind::PollQuery { queries: 1 }),
            ("store-commit=2", Kind::StoreCommit { commits: 2 }),
            ("journal-sync=3", Kind::JournalSync { syncs: 3 }),
            ("ballast=1MiB", Kind::Ballast { bytes: 1 << 20 }),
            ("panic=writer", Kind::Panic(Part::Writer)),
            ("store-sync=off", Kind::StoreSyncOff),
        ] {
            assert_eq!(parse(text), Ok(vec![kind]), "{text}");
        }
        for form in FORMS {
            let kinds = parse(form.example).expect(form.example);
            assert_eq!(kinds[0].name(), form.name, "the example is one of the fault itself");
        }
    }

    #[test]
    fn a_list_is_separated_by_commas_or_semicolons() {
        assert_eq!(
            parse("drop=0.1,queue=one; corrupt=0.2;"),
            Ok(vec![Kind::Drop(0.1), Kind::QueueOne, Kind::Corrupt(0.2)])
        );
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn a_mistake_is_answered_with_what_is_wrong_where_and_how_to_write_it() {
        for (text, parts) in [
            ("dorp=0.1", &["'dorp=0.1' is no fault", "drop, duplicate, corrupt", "for example"][..]),
            ("drop", &["'drop': '' is not a share from 0 to 1", "write drop=SHARE, for example drop=0.01"]),
            ("drop=0.1,drop=2", &["'drop=2': '2' is not a share"]),
            ("drop=NaN", &["'NaN' is not a share"]),
            ("queue=two", &["'two' is no value for it", "write queue=one"]),
            ("service-time=uniform:2ms", &["'uniform:2ms' is no distribution", "constant:TIME | exponential:MEAN"]),
            ("service-time=two-point:2ms:3ms", &["'two-point:2ms:3ms' is no distribution", "FAST:SLOW:SHARE"]),
            ("service-time=constant:2", &["'2' is not a time from 0s to 1h"]),
            ("stall=1.4s", &["'1.4s' does not say when", "TIME/EVERY | TIME@AFTER"]),
            ("stall=2s/2s", &["shorter than the time from one to the next"]),
            ("stall=0s@1s", &["a stall of no length is none"]),
            ("ack-delay=30ms", &["'' is not a share", "write ack-delay=TIME:SHARE"]),
            ("status=200:1", &["'200' is not a status from 400 to 599"]),
            ("throttle=500", &["does not end in /s"]),
            ("throttle=0/s", &["'0' is not a whole number from 1 to"]),
            ("cpu=x%", &["'x%' is not a percentage"]),
            ("memory=3", &["'3' is not a size", "B, KiB, MiB"]),
            ("poll-query=0", &["'0' is not a whole number from 1 to 1000"]),
            ("store-commit=x", &["'x' is not a whole number from 1 to 1000", "write store-commit=COMMITS"]),
            ("ballast=1", &["'1' is not a size"]),
            ("panic=all", &["'all' is no part", "write panic=processor | writer | deliveries | journal"]),
        ] {
            let message = parse(text).expect_err(text);
            for part in parts {
                assert!(message.contains(part), "{text} should be told {part:?}: {message}");
            }
        }
    }

    #[test]
    fn faults_that_cannot_be_together_are_refused() {
        let check = |text: &str, keeps_events| {
            check(&text.parse::<FaultList>().expect(text).0, keeps_events).map_err(|error| error.to_string())
        };
        for (text, part) in [
            ("drop=0.1,drop=0.2", "'drop=0.1' and 'drop=0.2': a fault can be given once"),
            ("queue=one", "needs something to queue for"),
        ] {
            assert!(check(text, true).expect_err(text).contains(part));
        }
        assert!(check("corrupt=0.1", false).expect_err("null keeps nothing").contains("--mode cache-first"));
        assert_eq!(
            check("queue=one,service-time=constant:1ms,stall=1s@1s,status=500:1,cpu=1us,ballast=1KiB", false),
            Ok(())
        );
    }

    #[test]
    fn help_names_every_fault() {
        let help = help();
        assert!(FORMS.iter().all(|form| help.contains(&format!("\n- {}={}", form.name, form.value))), "{help}");
    }
}
