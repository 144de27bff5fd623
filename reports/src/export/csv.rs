//! Comma-separated values (RFC 4180): of a run one row a result, then one row an interval of it; of a gate one row a round. What was not
//! measured is an empty field.

use crate::gate::model::{Gate, Metric, Order, Pair, Round};
use crate::model::{Interval, Outcomes, Run, TargetResult, Times};
use crate::summary;

/// The columns, in order. Units are in the names; `kind` is `result` or `interval`.
const COLUMNS: [&str; 33] = [
    "run_id",
    "target",
    "repetition",
    "kind",
    "offset_ms",
    "length_ms",
    "offered_per_s",
    "achieved_per_s",
    "planned",
    "accepted",
    "rejected",
    "failed",
    "timed_out",
    "not_sent",
    "response_time_count",
    "response_time_censored",
    "response_time_mean_ns",
    "response_time_p50_ns",
    "response_time_p90_ns",
    "response_time_p99_ns",
    "response_time_p999_ns",
    "response_time_max_ns",
    "service_time_p99_ns",
    "send_delay_p99_ns",
    "time_to_durable_p99_ns",
    "acknowledged",
    "persisted",
    "lost",
    "duplicated",
    "altered",
    "unverified",
    "sql_statements_idle_per_hour",
    "server_cpu_s",
];

/// The run.
pub fn csv(run: &Run) -> String {
    let mut text = line(COLUMNS.map(str::to_owned));
    for result in &run.results {
        text += &line(result_row(run, result));
        for interval in &result.load.intervals {
            text += &line(interval_row(run, result, interval));
        }
    }
    text
}

/// The columns of a gate before those of its metrics.
const GATE_COLUMNS: [&str; 8] = ["gate_id", "stage", "pair", "order", "side", "left_out", "samples", "failure"];
/// A column for each metric, and those of the ledger.
const GATE_WIDTH: usize = GATE_COLUMNS.len() + Metric::ALL.len() + 4;

/// The gate: a row a round, `stage` is `pair` or `confirmation`.
pub fn of_gate(gate: &Gate) -> String {
    let metrics =
        Metric::ALL.map(|metric| metric.measure().replace('-', "_") + "_" + &metric.unit().replace('/', "_per_"));
    let ledger = ["acknowledged", "lost", "duplicated", "altered"].map(str::to_owned);
    let headings = GATE_COLUMNS.map(str::to_owned).into_iter().chain(metrics).chain(ledger);
    let mut text = line(filled::<GATE_WIDTH>(headings));
    let again =
        gate.confirmation.iter().flat_map(|confirmation| &confirmation.pairs).map(|pair| ("confirmation", pair));
    for (stage, pair) in gate.pairs.iter().map(|pair| ("pair", pair)).chain(again) {
        for (side, round) in [("baseline", &pair.baseline), ("candidate", &pair.candidate)] {
            text += &line(round_row(&gate.gate_id, stage, pair, side, round));
        }
    }
    text
}

fn round_row(gate_id: &str, stage: &str, pair: &Pair, side: &str, round: &Round) -> [String; GATE_WIDTH] {
    let order = match pair.order {
        Order::BaselineFirst => "baseline_first",
        Order::CandidateFirst => "candidate_first",
        Order::Stored => "stored",
    };
    let fields = [gate_id, stage, &pair.number.to_string(), order, side].map(str::to_owned).into_iter();
    let fields =
        fields.chain([maybe(pair.left_out.as_ref()), round.samples.to_string(), maybe(round.failure.as_ref())]);
    let fields = fields.chain(Metric::ALL.map(|metric| maybe(metric.value(round))));
    filled(
        fields
            .chain([maybe(round.acknowledged)])
            .chain([round.lost, round.duplicated, round.corrupted].map(|n| n.to_string())),
    )
}

fn result_row(run: &Run, r: &TargetResult) -> [String; COLUMNS.len()] {
    let ledger = |read: fn(&crate::model::Ledger) -> u64| maybe(r.ledger.as_ref().map(read));
    let start = begin(run, r, "result");
    let durable = summary::time_to_durable(r).filter(|times| times.count > 0).map(|times| times.p99_ns);
    let p99 = |times: &Times| maybe((times.count > 0).then_some(times.p99_ns));
    let fields = start
        .into_iter()
        .chain(["0".to_owned(), format!("{:.0}", r.load.seconds * 1e3)])
        .chain([r.load.offered_per_s.to_string(), r.load.achieved_per_s.to_string(), r.load.planned.to_string()])
        .chain(outcomes(&r.load.outcomes))
        .chain(times(&r.load.response_time))
        .chain([p99(&r.load.service_time), p99(&r.load.send_delay), maybe(durable)])
        .chain([ledger(|it| it.acknowledged), ledger(|it| it.persisted), ledger(|it| it.lost)])
        .chain([ledger(|it| it.duplicated), ledger(|it| it.corrupted), ledger(|it| it.unverified)])
        .chain([maybe(r.idle.as_ref().and_then(|idle| idle.sql_statements_per_hour)), maybe(r.resources.server_cpu_s)]);
    filled(fields)
}

fn interval_row(run: &Run, r: &TargetResult, interval: &Interval) -> [String; COLUMNS.len()] {
    let seconds = interval.length_ms as f64 / 1e3;
    let per_s = |events: u64| if seconds > 0.0 { (events as f64 / seconds).to_string() } else { String::new() };
    let fields = begin(run, r, "interval")
        .into_iter()
        .chain([interval.offset_ms.to_string(), interval.length_ms.to_string()])
        .chain([per_s(interval.planned), per_s(interval.outcomes.accepted), interval.planned.to_string()])
        .chain(outcomes(&interval.outcomes))
        .chain(times(&interval.response_time))
        .chain([String::new(), interval.send_delay_p99_ns.to_string()]);
    filled(fields)
}

fn begin(run: &Run, r: &TargetResult, kind: &str) -> [String; 4] {
    [run.run_id.clone(), r.target.clone(), r.repetition.to_string(), kind.to_owned()]
}

fn outcomes(outcomes: &Outcomes) -> [String; 5] {
    let Outcomes { accepted, rejected, failed, timed_out, not_sent } = *outcomes;
    [accepted, rejected, failed, timed_out, not_sent].map(|n| n.to_string())
}

fn times(times: &Times) -> [String; 8] {
    let known = |ns: u64| maybe((times.count > 0).then_some(ns));
    [
        times.count.to_string(),
        times.censored.to_string(),
        maybe((times.count > 0).then_some(times.mean_ns)),
        known(times.p50_ns),
        known(times.p90_ns),
        known(times.p99_ns),
        known(times.p999_ns),
        known(times.max_ns),
    ]
}

fn maybe(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// The fields in front, and empty ones for the rest.
fn filled<const N: usize>(fields: impl Iterator<Item = String>) -> [String; N] {
    let mut row = [const { String::new() }; N];
    row.iter_mut().zip(fields).for_each(|(place, field)| *place = field);
    row
}

/// Fields as a line.
fn line<const N: usize>(fields: [String; N]) -> String {
    let quoted = fields.map(|field| match field.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field,
    });
    quoted.join(",") + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn a_result_has_a_row_and_each_of_its_intervals_has_one() {
        let mut run = fixtures::three_modes();
        run.results[0].target = "a, \"b\"".to_owned();
        let text = csv(&run);
        let rows: Vec<&str> = text.lines().collect();
        let intervals: usize = run.results.iter().map(|result| result.load.intervals.len()).sum();
        assert_eq!(rows.len(), 1 + run.results.len() + intervals);
        assert!(intervals > 0 && rows[1].contains(",\"a, \"\"b\"\"\",1,result,0,"), "{}", rows[1]);
        assert!(rows[2..].iter().all(|row| row.matches(',').count() >= COLUMNS.len() - 1), "{text}");
    }
}
