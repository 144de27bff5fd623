//! The idle phase: no request, and what the target does all the same; then the first event after it.
//!
//! Looks through `/metrics` five times a second (which costs the target no SQL), and counts statements in PostgreSQL itself where it
//! can. The generator's own connections stay open and silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reports::model::{FirstEvent, Idle, IdleSample, StatementCount};
use tokio::time::{Instant, interval};
use uuid::Uuid;

use crate::clock::Clock;
use crate::connection::{self, Destination};
use crate::exchange::Request;
use crate::observe::postgres::FreshDatabase;
use crate::observe::prometheus::Scrape;
use crate::observe::rows::{Needle, Rows};
use crate::progress::Progress;
use crate::target::Target;

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Deep idle may hold the first event back for its whole interval (30 s by default); then it is not going to come.
const FIRST_EVENT_PATIENCE: Duration = Duration::from_secs(40);

/// What the target says of itself at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    sql_statements: Option<f64>,
    polls: Option<f64>,
    poll_interval_s: Option<f64>,
    deep_idle: bool,
    sql_unused_s: Option<f64>,
}

impl Look {
    fn of(scrape: &Scrape) -> Self {
        Self {
            sql_statements: scrape.get("ingest_sql_statements_total"),
            polls: scrape.get_where("ingest_polls_total", "source", "store"),
            poll_interval_s: scrape.get("ingest_poll_interval_seconds").filter(|&interval| interval > 0.0),
            deep_idle: scrape.get("ingest_deep_idle") == Some(1.0),
            sql_unused_s: scrape.get("ingest_sql_idle_seconds"),
        }
    }
}

/// Watches an idle target for `length`, or until `stop`, and tells `progress` what it sees. `quiet_since` is when the last event was answered.
pub async fn watch(
    target: &Target,
    database: Option<&mut FreshDatabase>,
    length: Duration,
    quiet_since: Instant,
    stop: &Arc<AtomicBool>,
    progress: &Progress,
) -> Idle {
    let mut database = database.filter(|database| database.statements.is_ok());
    let counted_before = match &mut database {
        Some(database) => database.statement_counts().await.ok(),
        None => None,
    };
    let begin = Instant::now();
    let looks = look_on(target, begin + length, stop, progress).await;
    let seconds = begin.elapsed().as_secs_f64();
    let counted_after = match (&mut database, &counted_before) {
        (Some(database), Some(_)) => database.statement_counts().await.ok(),
        _ => None,
    };
    let statements = counted_after.zip(counted_before).map(|(after, before)| after.since(&before));
    summarize(&looks, statements, seconds, begin - quiet_since)
}

async fn look_on(target: &Target, end: Instant, stop: &Arc<AtomicBool>, progress: &Progress) -> Vec<(Duration, Look)> {
    let begin = Instant::now();
    let mut ticks = interval(LOOK_EVERY);
    let mut looks = Vec::new();
    while ticks.tick().await < end && !stop.load(Ordering::Relaxed) {
        if let Some(scrape) = target.metrics().await {
            progress.target(Some(&scrape));
            looks.push((begin.elapsed(), Look::of(&scrape)));
        }
    }
    looks
}

fn summarize(
    looks: &[(Duration, Look)],
    statements: Option<Vec<StatementCount>>,
    seconds: f64,
    quiet_before: Duration,
) -> Idle {
    let first = looks.first().map(|(_, look)| *look).unwrap_or_default();
    let last = looks.last().map(|(_, look)| *look).unwrap_or_default();
    let grown = |then: Option<f64>, now: Option<f64>| Some((now? - then?).max(0.0) as u64);
    let polls = grown(first.polls, last.polls);
    let (sql_statements, source) = match &statements {
        Some(statements) => (Some(statements.iter().map(|count| count.calls).sum()), "pg_stat_statements"),
        None => match grown(first.sql_statements, last.sql_statements) {
            Some(count) => (Some(count), "server metrics"),
            None => (None, "none"),
        },
    };
    let per_poll =
        sql_statements.zip(polls).filter(|&(_, polls)| polls > 0).map(|(sql, polls)| sql as f64 / polls as f64);
    let deep_idle_at = looks.iter().find(|(_, look)| look.deep_idle).map(|(at, _)| *at);
    Idle {
        seconds,
        sql_statements,
        sql_statements_per_hour: sql_statements.map(|count| count as f64 * 3_600.0 / seconds),
        polls,
        sql_statements_per_poll: per_poll,
        sql_statements_per_hour_deep_idle: per_poll
            .zip(last.poll_interval_s)
            .filter(|_| last.deep_idle)
            .map(|(per_poll, interval_s)| per_poll * 3_600.0 / interval_s),
        deep_idle_after_s: deep_idle_at.map(|at| (quiet_before + at).as_secs_f64()),
        poll_interval_ms_last: last.poll_interval_s.map(|interval_s| interval_s * 1e3),
        connections_unused_s_max: looks.iter().filter_map(|(_, look)| look.sql_unused_s).reduce(f64::max),
        source: source.to_owned(),
        statements: statements.unwrap_or_default(),
        samples: looks.iter().filter_map(|(at, look)| sample(*at, look, &first)).collect(),
        first_event: None,
    }
}

fn sample(at: Duration, look: &Look, first: &Look) -> Option<IdleSample> {
    Some(IdleSample {
        offset_ms: at.as_millis() as u64,
        poll_interval_ms: look.poll_interval_s? * 1e3,
        polls: (look.polls? - first.polls?) as u64,
        sql_statements: (look.sql_statements? - first.sql_statements?) as u64,
    })
}

/// The first event after the idle phase.
#[derive(Debug)]
pub struct First<'a> {
    /// The body that carries it.
    pub body: bytes::Bytes,
    /// Where its row will be, if that is how it is seen that it is persisted.
    pub rows: Option<(&'a Rows, Needle)>,
}

/// Sends one event, and waits until it is persisted.
pub async fn first_event(
    target: &Target,
    destination: &Destination,
    key: &str,
    first: First<'_>,
    clock: Clock,
) -> Option<FirstEvent> {
    let from_deep_idle = target.metrics().await.is_some_and(|scrape| Look::of(&scrape).deep_idle);
    let ingest = &destination.dialect.ingest;
    let (to, path) = (destination.clone(), format!("{}{}", destination.base_path, ingest.path));
    let (method, body) = (ingest.method, first.body);
    let sent = tokio::task::spawn_blocking(move || {
        let headers = to.headers.first().map_or(&[][..], Vec::as_slice);
        let request = Request { method, path: &path, headers, body: Some(&body) };
        connection::exchange(&to, &request, clock, FIRST_EVENT_PATIENCE)
    });
    let (sent_ns, done_ns, status, answer) = sent.await.ok()?.ok()?;
    let id = ingest.acknowledgement(status, &answer).ok()?;
    let response_time_ns = done_ns - sent_ns;
    let time_to_durable_ns = match (first.rows, id) {
        (Some((rows, needle)), _) => row_after(rows, &needle, clock, done_ns).await,
        (None, Some(id)) => persisted_after(target, key, id, clock.unix_ns(done_ns)).await,
        (None, None) => None,
    };
    Some(FirstEvent { response_time_ns, time_to_durable_ns, from_deep_idle })
}

/// By the time in its row, or else by when that came.
async fn row_after(rows: &Rows, needle: &Needle, clock: Clock, done_ns: u64) -> Option<u64> {
    let row = rows.wait_for(needle, FIRST_EVENT_PATIENCE).await?;
    match row.persisted_at {
        Some(at) => Some(u64::try_from(at.as_nanosecond()).ok()?.saturating_sub(clock.unix_ns(done_ns))),
        None => Some(clock.now_ns().saturating_sub(done_ns)),
    }
}

async fn persisted_after(target: &Target, key: &str, id: Uuid, done_unix_ns: u64) -> Option<u64> {
    let mut ticks = interval(Duration::from_millis(5));
    let deadline = Instant::now() + FIRST_EVENT_PATIENCE;
    while ticks.tick().await < deadline {
        if let Some(at) = target.persisted_at(key, id).await.ok()? {
            return Some(u64::try_from(at.as_nanosecond()).ok()?.saturating_sub(done_unix_ns));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(seconds: u64, polls: f64, interval_s: f64) -> (Duration, Look) {
        let look = Look {
            sql_statements: Some(100.0 + polls),
            polls: Some(polls),
            poll_interval_s: Some(interval_s),
            deep_idle: interval_s == 30.0,
            sql_unused_s: Some(interval_s / 2.0),
        };
        (Duration::from_secs(seconds), look)
    }

    #[test]
    fn the_window_is_counted_from_its_first_look_and_deep_idle_from_the_last_event() {
        let looks = [look(0, 7.0, 2.0), look(5, 9.0, 2.0), look(10, 10.0, 30.0)];
        let idle = summarize(&looks, None, 10.0, Duration::from_secs(3));
        assert_eq!((idle.sql_statements, idle.polls, idle.source.as_str()), (Some(3), Some(3), "server metrics"));
        assert_eq!(idle.sql_statements_per_hour, Some(1_080.0));
        assert_eq!(idle.sql_statements_per_hour_deep_idle, Some(120.0));
        assert_eq!(idle.deep_idle_after_s, Some(13.0));
        assert_eq!(idle.connections_unused_s_max, Some(15.0));
        assert_eq!(idle.samples.last().map(|sample| sample.sql_statements), Some(3));
    }

    #[test]
    fn the_database_s_own_count_wins_over_the_server_s_word() {
        let counted = vec![StatementCount { statement: "SELECT".into(), calls: 5 }];
        let idle = summarize(&[look(0, 1.0, 2.0), look(9, 2.0, 2.0)], Some(counted), 9.0, Duration::ZERO);
        assert_eq!((idle.sql_statements, idle.source.as_str()), (Some(5), "pg_stat_statements"));
        assert_eq!(idle.deep_idle_after_s, None);
    }

    #[test]
    fn a_target_that_says_nothing_has_no_counts_rather_than_zeros() {
        let idle = summarize(&[], None, 9.0, Duration::ZERO);
        assert_eq!((idle.sql_statements, idle.polls, idle.source.as_str()), (None, None, "none"));
        assert!(idle.samples.is_empty());
    }
}
