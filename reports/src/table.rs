//! The run in the terminal: numbers by variant, before and after, objectives, caveats, verdict. No colour, so none is missed.

use std::collections::BTreeSet;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::before_after;
use crate::conform;
use crate::crash;
use crate::format;
use crate::merge;
use crate::model::{Conformance, Outcome, RuleOutcome, Run};
use crate::plan;
use crate::summary::{self, Cell, Row};
use crate::trust;

/// Width that [`render`] assumes, characters.
pub const WIDTH: usize = 100;

/// Width that the tables of trials and of kills may take, characters: as a list it would be ten times as long.
const TRIALS_WIDTH: usize = 140;

/// The whole run for a terminal of [`WIDTH`] characters.
pub fn render(run: &Run) -> String {
    render_width(run, WIDTH)
}

/// The whole run for a terminal of `width` characters; where a table does not fit, its rows become lines.
pub fn render_width(run: &Run, width: usize) -> String {
    let mut parts = capacity(run, width);
    parts.extend(crash(run, width));
    parts.extend(conformance(run, width));
    let measures = run.capacity.is_empty() && run.crash.is_empty() && run.conformance.is_empty();
    if !run.results.is_empty() || measures {
        let about = if run.capacity.is_empty() { "" } else { "at the capacity\n" };
        parts.push(format!("{about}{}", rows(&summary::headings(run), &summary::key_rows(run), width)));
    }
    parts.extend(calibration(run, width));
    let peculiarities = plan::peculiarities(&run.plan);
    if !peculiarities.is_empty() {
        parts.push(format!("the plan\n  {}", peculiarities.join("\n  ")));
    }
    if run.plan.repeat > 1 && !run.results.is_empty() {
        parts.push(format!(
            "each number is the median of {} repetitions, with the smallest and largest below it",
            run.plan.repeat
        ));
    }
    let operations = summary::operation_rows(run);
    if !operations.is_empty() {
        let names: Vec<String> = summary::groups(run).iter().map(|group| group.name.to_owned()).collect();
        parts.push(format!("by operation\n{}", rows(&names, &operations, width)));
    }
    parts.extend(trust::line(run));
    if !run.shards.is_empty() {
        let headings: Vec<String> = merge::HEADINGS.iter().map(|&heading| heading.to_owned()).collect();
        parts.push(format!("the generators\n{}", rows(&headings, &merge::rows(run), width.max(TRIALS_WIDTH))));
    }
    if let Some(table) = before_after::table(run) {
        let headings: Vec<String> = std::iter::once(format!("old: {}", table.old))
            .chain(table.new.iter().map(|n| format!("new: {n}")))
            .collect();
        let stacked: Vec<Row> = table.rows.iter().map(before_after::TableRow::stacked).collect();
        parts.push(format!("before and after\n{}", rows(&headings, &stacked, width)));
    }
    parts.extend(objectives(run));
    parts.extend(caveats(run));
    parts.push(verdict(run));
    parts.iter().map(|p| p.trim_end()).collect::<Vec<_>>().join("\n\n") + "\n"
}

/// Rows under headings; where they do not fit into `width` characters, as lines.
pub fn rows(headings: &[String], rows: &[Row], width: usize) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(std::iter::once(String::new()).chain(headings.iter().cloned()));
    for row in rows {
        table.add_row(std::iter::once(row.label.clone()).chain(row.cells.iter().map(two_lines)));
    }
    for column in 1..=headings.len() {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let text = table.trim_fmt();
    if text.lines().any(|line| line.chars().count() > width) { lines(headings, rows) } else { text }
}

/// What a search found, and how.
fn capacity(run: &Run, width: usize) -> Vec<String> {
    if run.capacity.is_empty() {
        return Vec::new();
    }
    let names: Vec<String> = run.capacity.iter().map(|found| found.variant.clone()).collect();
    let mut parts = vec![rows(&names, &summary::capacity_rows(run), width)];
    // Without why: it is a sentence, and the verdict has the one that counts.
    let headings: Vec<String> = summary::TRIAL_HEADINGS[..8].iter().map(|&heading| heading.to_owned()).collect();
    for found in &run.capacity {
        let mut trials = summary::trial_rows(found);
        trials.iter_mut().for_each(|row| row.cells.truncate(headings.len()));
        let table = rows(&headings, &trials, width.max(TRIALS_WIDTH));
        parts.push(format!("the trials of {}, demanding {}\n{table}", found.variant, found.objectives.join(", ")));
    }
    parts
}

/// Which rules of the contract each target keeps; the broken ones with what was asked and what came, and what could not be tested.
fn conformance(run: &Run, width: usize) -> Vec<String> {
    if run.conformance.is_empty() {
        return Vec::new();
    }
    let names: Vec<String> = run.conformance.iter().map(|found| found.target.clone()).collect();
    let table = rows(&names, &summary::conformance_rows(run), usize::MAX);
    let fits = table.lines().all(|line| line.chars().count() <= width);
    let mut parts = vec![if fits { table } else { conformance_matrix(run) }];
    for found in &run.conformance {
        for rule in &found.rules {
            for failure in &rule.failures {
                parts.push(format!(
                    "{} of {}: {}\n  expected  {}\n  came      {}\n  asked     {}",
                    rule.id, found.target, failure.clause, failure.expected, failure.got, failure.request
                ));
            }
        }
    }
    let untested = conform::untested(run);
    if !untested.is_empty() {
        let lines: Vec<String> = untested.iter().map(|(what, who)| format!("  {what} ({who})")).collect();
        parts.push(format!("not tested here\n{}", lines.join("\n")));
    }
    parts
}

/// A row a target, a column a rule.
fn conformance_matrix(run: &Run) -> String {
    let ids = conform::ids(run);
    let cell = |found: &Conformance, id: &str| {
        let rule = found.rules.iter().find(|rule| rule.id == id);
        Cell::plain(
            match rule.map(|rule| rule.outcome) {
                Some(RuleOutcome::Passed) => "ok",
                Some(RuleOutcome::Failed) => "FAIL",
                Some(RuleOutcome::NotTestable) => "?",
                Some(RuleOutcome::NotClaimed) | None => format::UNKNOWN,
            }
            .to_owned(),
        )
    };
    let row = |found: &Conformance| Row {
        label: found.target.clone(),
        cells: ids.iter().map(|id| cell(found, id)).collect(),
    };
    let headings: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    let targets: Vec<Row> = run.conformance.iter().map(row).collect();
    let legend = format!("?: not testable here; {}: not claimed", format::UNKNOWN);
    format!("{}\n{legend}", rows(&headings, &targets, TRIALS_WIDTH).trim_end())
}

/// What killed servers kept.
fn crash(run: &Run, width: usize) -> Vec<String> {
    if run.crash.is_empty() {
        return Vec::new();
    }
    let headings = summary::CRASH_HEADINGS.map(str::to_owned);
    let table = rows(&headings, &summary::crash_rows(run), width.max(TRIALS_WIDTH));
    let kinds: BTreeSet<&str> = run.crash.iter().map(|test| crash::kind(test.kill)).collect();
    let legend = format!(
        "killed: {}\nagain: kills that were followed by one during recovery; age: how long before the kill a lost event had been \
         acknowledged;\nunanswered: there although the acknowledgement never arrived, which is allowed",
        kinds.into_iter().collect::<Vec<_>>().join(", ")
    );
    let settings = run.crash.iter().map(|test| format!("  {}: {}", test.name, crash::settings(test)));
    let settings = settings.collect::<Vec<_>>().join("\n");
    vec![format!("{}\n{legend}", table.trim_end()), format!("durability, as the stores themselves say\n{settings}")]
}

/// Of a run that was made to calibrate; of every other one the floor is a column.
fn calibration(run: &Run, width: usize) -> Option<String> {
    let found = run.calibration.as_ref()?;
    (found.closed_per_s_max.is_some() || found.rate_per_s_failed.is_some()).then_some(())?;
    let table = rows(&["floor of this machine".to_owned()], &summary::calibration_rows(run), width);
    let limit = found.limit.as_ref().map(|limit| format!("\nnot honest there: {limit}")).unwrap_or_default();
    Some(format!("{}{limit}", table.trim_end()))
}

fn two_lines(cell: &Cell) -> String {
    let spread = cell.spread.as_ref().map(|s| format!("\n{s}")).unwrap_or_default();
    format!("{}{spread}", marked(cell))
}

fn marked(cell: &Cell) -> String {
    format!("{}{}", if cell.is_fault { "! " } else { "" }, cell.text)
}

/// The plain form: a block a column, a line a number.
fn lines(headings: &[String], rows: &[Row]) -> String {
    let mut text = String::new();
    for (i, heading) in headings.iter().enumerate() {
        text += &format!("{heading}\n");
        for (row, cell) in rows.iter().filter_map(|row| Some((row, row.cells.get(i)?))) {
            let spread = cell.spread.as_ref().map(|s| format!(" ({s})")).unwrap_or_default();
            text += &format!("  {}: {}{spread}\n", row.label, marked(cell));
        }
    }
    text
}

fn objectives(run: &Run) -> Option<String> {
    if run.objectives.is_empty() {
        return None;
    }
    let mut text = "objectives\n".to_owned();
    for objective in &run.objectives {
        let mark = match objective.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "undecided",
        };
        let value = objective.value.map_or_else(|| format::UNKNOWN.to_owned(), |v| format::in_unit(v, &objective.unit));
        let prefix = format!("{}: ", objective.variant);
        let demand = objective.expression.strip_prefix(&prefix).unwrap_or(&objective.expression);
        let note = objective.note.as_ref().map(|n| format!(" ({n})")).unwrap_or_default();
        text += &format!("  {mark:<9}  {prefix}{demand}  measured {value}{note}\n");
    }
    Some(text)
}

fn caveats(run: &Run) -> Option<String> {
    if run.caveats.is_empty() {
        return None;
    }
    let mut text = "caveats\n".to_owned();
    for caveat in &run.caveats {
        let on = caveat.subject.as_ref().map(|s| format!("{s}: ")).unwrap_or_default();
        text += &format!("  {}  {on}{}\n      → {}\n", caveat.kind.name(), caveat.detail, caveat.remedy);
    }
    Some(text)
}

/// The verdict in one word.
pub fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "PASS",
        Outcome::Inconclusive => "INCONCLUSIVE",
        Outcome::Missed => "MISSED",
        Outcome::Invalid => "INVALID",
    }
}

fn verdict(run: &Run) -> String {
    let mut text = format!("{} (exit code {})\n", word(run.verdict.outcome), run.verdict.exit_code);
    for reason in &run.verdict.reasons {
        text += &format!("  {reason}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn a_passing_run_reads_as_a_table() {
        insta::assert_snapshot!(render(&fixtures::three_modes()), @r#"
                                        null        cache-first           db-first
 offered rate                        1 004/s              998/s              995/s
                             998/s – 1 011/s    986/s – 1 011/s    988/s – 1 003/s
 achieved rate                       1 004/s              998/s              995/s
                             998/s – 1 011/s    985/s – 1 011/s    988/s – 1 002/s
 response time p50                    169 µs             216 µs            1.42 ms
                                                                 1.42 ms – 1.43 ms
 response time p99                    405 µs             564 µs            5.06 ms
                             397 µs – 412 µs    554 µs – 573 µs
 response time p99.9                  492 µs             933 µs              11 ms
                             482 µs – 503 µs   833 µs – 1.03 ms  10.2 ms – 11.8 ms
 response time max                   1.45 ms            2.01 ms            35.7 ms
 service time p99                     404 µs             563 µs            5.06 ms
                             397 µs – 412 µs    554 µs – 572 µs
 send delay p99                      3.15 µs            3.27 µs            3.14 µs
                           3.11 µs – 3.19 µs  3.14 µs – 3.41 µs  3.08 µs – 3.19 µs
 not accepted                              0                  0                  0
 acknowledged, lost                        –                  0                  0
 acknowledged, duplicated                  –                  0                  0
 time to durable p99                       –            10.1 ms             190 µs
                                              10.1 ms – 10.2 ms    188 µs – 192 µs
 SQL statements, idle                      –            1 800/h            1 800/h
 server CPU per event                19.8 µs            25.2 µs             162 µs
 server memory, peak                19.9 MiB           20.3 MiB           32.3 MiB

each number is the median of 2 repetitions, with the smallest and largest below it

generator at worst: late at p99 3.41 µs, waited 0.15 %, machine: busy 19 %, others 0.5 %, stolen 0.4 %, stood still 82.6 µs

objectives
  met        cache-first: response_time.p99 < 1ms  measured 564 µs
  met        cache-first: response_time.p50 <= 1.5 x null  measured 1.28 (216 µs against 169 µs)
  met        null: send_delay.p99 < 100us  measured 3.15 µs
  met        cache-first: send_delay.p99 < 100us  measured 3.27 µs
  met        db-first: send_delay.p99 < 100us  measured 3.14 µs
  met        cache-first: ledger.lost == 0  measured 0
  met        db-first: ledger.lost == 0  measured 0
  met        null: load.failed == 0  measured 0
  met        cache-first: load.failed == 0  measured 0
  met        db-first: load.failed == 0  measured 0
  met        null: achieved_ratio >= 99%  measured 1
  met        cache-first: achieved_ratio >= 99%  measured 1
  met        db-first: achieved_ratio >= 99%  measured 1
  met        cache-first: time_to_durable.p99 < 1s  measured 10.1 ms
  met        db-first: time_to_durable.p99 < 1s  measured 190 µs
  met        cache-first: idle.first_event_time_to_durable < 50ms  measured 3.9 ms
  met        db-first: idle.first_event_time_to_durable < 50ms  measured 3.9 ms
  met        null: resources.server_rss_peak < 500MiB  measured 19.9 MiB
  met        cache-first: resources.server_rss_peak < 500MiB  measured 20.3 MiB
  met        db-first: resources.server_rss_peak < 500MiB  measured 32.3 MiB

PASS (exit code 0)
  20 objectives met
  51 839 acknowledged events persisted once each: nothing lost, nothing duplicated
"#);
    }

    #[test]
    fn a_lying_server_is_called_out() {
        insta::assert_snapshot!(render(&fixtures::lying_server()), @r#"
                           elixir:4000  floor (null)
 offered rate                    982/s       1 000/s
 achieved rate                   969/s         977/s
 response time p50              219 µs        184 µs
 response time p99               ≥ 2 s        447 µs
 response time p99.9             ≥ 2 s             –
 response time max               ≥ 2 s       1.64 ms
 service time p99                ≥ 2 s        447 µs
 send delay p99                3.27 µs       3.22 µs
 not accepted                    ! 143             –
 acknowledged, lost            ! 1 166             –
 acknowledged, duplicated            0             –
 time to durable p99            12.6 s             –
 SQL statements, idle                –             –
 server CPU per event          25.2 µs             –
 server memory, peak          20.3 MiB             –

generator at worst: late at p99 3.27 µs, waited 0.15 %, machine: busy 19 %, others 0.5 %, stolen 0.4 %, stood still 81.7 µs

objectives
  MISSED     elixir:4000: response_time.p99 < 1ms  measured 2 s (p99 is only known to be at least this: 143 events did not finish in time; missed even at the least it can be)
  MISSED     elixir:4000: ledger.lost == 0  measured 1 166

caveats
  rate not reached  elixir:4000: 969/s accepted of 982/s offered, 98.7 %
      → read every time beside the rate it was measured at, or offer less
  timeouts  elixir:4000: 143 of 10 804 planned events had no whole answer within 2 s
      → read the quantiles marked ≥ as lower bounds; a longer --request-timeout shows how long they really take
  persisted without acknowledgement  elixir:4000: 47 events persisted whose acknowledgement was never read
      → none needed: a sender repeats such an event, and its dedup_id must make the repeat harmless
  single repetition  each variant was measured once, so nothing tells how far the numbers move by themselves
      → use --repeat 5 before comparing or publishing

MISSED (exit code 3)
  elixir:4000: 1 166 of 11 661 acknowledged events were lost
  elixir:4000: response_time.p99 < 1ms is missed with 2 s (p99 is only known to be at least this: 143 events did not finish in time; missed even at the least it can be)
  elixir:4000: ledger.lost == 0 is missed with 1 166
  elixir:4000: 1.32 % of the planned events were not accepted (timed out × 143), and no objective says how many may be
"#);
    }

    #[test]
    fn before_and_after_stand_side_by_side() {
        insta::assert_snapshot!(render_width(&fixtures::before_after(), 140), @r#"
                           db-first/fixed  cache-first/adaptive  cache-first/wake  floor (null)
 offered rate                       975/s                 990/s           1 006/s       1 000/s
 achieved rate                      975/s                 990/s           1 006/s         977/s
 response time p50                1.42 ms                216 µs            217 µs        184 µs
 response time p99                5.19 ms                563 µs            568 µs        447 µs
 response time p99.9                13 ms                869 µs            851 µs             –
 response time max                  24 ms               2.22 ms            2.7 ms       1.64 ms
 service time p99                 5.19 ms                562 µs            568 µs        447 µs
 send delay p99                   3.06 µs               3.16 µs           3.27 µs       3.22 µs
 not accepted                           0                     0                 0             –
 acknowledged, lost                     0                     0                 0             –
 acknowledged, duplicated               0                     0                 0             –
 time to durable p99               190 µs               9.94 ms           10.4 ms             –
 SQL statements, idle             3 600/h                 660/h             660/h             –
 server CPU per event              162 µs               25.2 µs           25.2 µs             –
 server memory, peak             32.3 MiB              20.3 MiB          20.3 MiB             –

generator at worst: late at p99 3.27 µs, waited 0.15 %, machine: busy 19 %, others 0.5 %, stolen 0.4 %, stood still 75.6 µs

before and after
                                          old: db-first/fixed  new: cache-first/adaptive  new: cache-first/wake
 event ingestion response time, p50                   1.42 ms                     216 µs                 217 µs
                                                                      6.59 times as fast     6.55 times as fast
 event ingestion response time, p99                   5.19 ms                     563 µs                 568 µs
                                                                      9.22 times as fast     9.13 times as fast
 idle poll interval at the end                            2 s                       30 s                   30 s
                                                                        15 times as long       15 times as long
 SQL statements per poll                                    2                          1                      1
                                                                              50 % fewer             50 % fewer
 SQL statements per idle hour                           3 600                        660                    660
                                                                            81.7 % fewer           81.7 % fewer
 SQL statements per hour in deep idle            not measured                        120                    120
                                                                                       –                      –
 pooled connections unused, longest                       2 s                       30 s                   30 s
                                                                        15 times as long       15 times as long
 first event after idle, response time                 302 µs                     302 µs                 302 µs
                                                                                the same               the same
 first event after idle, time to durable               1.24 s                     21.4 s                 3.9 ms
                                                                      17.3 times as slow      318 times as fast
 under load: offered rate                               975/s                      990/s                1 006/s
                                                                          about the same         about the same
 under load: achieved rate                              975/s                      990/s                1 006/s
                                                                          about the same         about the same
 under load: events not accepted                            0                          0                      0
                                                                                the same               the same
 under load: time to durable, p99                      190 µs                    9.94 ms                10.4 ms
                                                                      52.4 times as slow     54.6 times as slow
 under load: backlog, peak (events)                         2                         14                     14
                                                                         7 times as many        7 times as many

objectives
  met        db-first/fixed: ledger.lost == 0  measured 0
  met        cache-first/adaptive: ledger.lost == 0  measured 0
  met        cache-first/wake: ledger.lost == 0  measured 0

caveats
  single repetition  each variant was measured once, so nothing tells how far the numbers move by themselves
      → use --repeat 5 before comparing or publishing

PASS (exit code 0)
  3 objectives met
  38 659 acknowledged events persisted once each: nothing lost, nothing duplicated
"#);
    }

    #[test]
    fn a_search_shows_what_it_found_and_each_trial() {
        let text = render(&fixtures::capacity());
        insta::assert_snapshot!(text.split("at the capacity").next().unwrap_or_default(), @r#"
                              cache-first
 capacity                         2 000/s
 persisted there                  2 000/s
 lowest rate that failed          2 828/s
 most persisted in any trial      2 100/s
 knee                             2 000/s
 trials                                 8

the trials of cache-first, demanding response_time.p90 < 1ms
                       held  achieved  persisted      p50      p99   p99.9  send delay p99  backlog
 500/s                  yes     500/s      500/s   257 µs   693 µs  780 µs         2.87 µs       14
 1 000/s                yes   1 000/s    1 000/s   303 µs   815 µs  780 µs         2.87 µs       14
 2 000/s                yes   2 000/s    2 000/s   485 µs   1.3 ms  780 µs         2.87 µs       14
 4 000/s                 no   4 000/s    2 100/s  1.21 ms  3.26 ms  780 µs         2.87 µs       14
 4 000/s                 no   4 000/s    2 100/s  1.21 ms  3.26 ms  780 µs         2.87 µs       14
 2 828/s (narrowing)     no   2 828/s    2 100/s   727 µs  1.95 ms  780 µs         2.87 µs       14
 2 828/s (narrowing)     no   2 828/s    2 100/s   727 µs  1.95 ms  780 µs         2.87 µs       14
 2 000/s (confirming)   yes   2 000/s    2 000/s   485 µs   1.3 ms  780 µs         2.87 µs       14
"#);
    }

    #[test]
    fn killed_servers_are_a_table_with_what_their_stores_say() {
        insta::assert_snapshot!(render(&fixtures::crash()), @r#"
                          kills  again  acknowledged  lost  age p50      max  duplicated  altered  unanswered  ready p50    p99    max
 cache-first on sqlite        4      1         3 000    26   3.5 ms  9.81 ms           0        0          12      22 ms  24 ms  24 ms
 db-first on postgres         4      1         3 000     0        –        –           0        0          12      22 ms  24 ms  24 ms
 journal-first on sqlite      4      1         3 000   ! 2   700 µs   1.4 ms         ! 1        0          12      22 ms  24 ms  24 ms
killed: SIGKILL to the server's process, the power of the disk under its data cut
again: kills that were followed by one during recovery; age: how long before the kill a lost event had been acknowledged;
unanswered: there although the acknowledgement never arrived, which is allowed

durability, as the stores themselves say
  cache-first on sqlite: acknowledges "memory", SQLite, on ext4, journal_mode = wal, synchronous = full
  db-first on postgres: acknowledges "database", PostgreSQL 15.18, on ext4, fsync = on, synchronous_commit = on
  journal-first on sqlite: acknowledges "journal", SQLite, on ext4, journal_mode = wal, synchronous = full

MISSED (exit code 3)
  journal-first on sqlite: of 3 000 acknowledged events 2 lost, 1 duplicated
"#);
    }

    #[test]
    fn a_narrow_terminal_gets_lines() {
        let text = render_width(&fixtures::small(), 30);
        insta::assert_snapshot!(text.lines().take(8).collect::<Vec<_>>().join("\n"), @r#"
null
  offered rate: 422/s
  achieved rate: 422/s
  response time p50: 186 µs
  response time p99: 431 µs
  response time p99.9: –
  response time max: 496 µs
  service time p99: 429 µs
"#);
    }

    #[test]
    fn a_dead_target_shows_dashes_and_not_zeros() {
        insta::assert_snapshot!(render(&fixtures::dead_target()), @r#"
                           127.0.0.1:9  floor (null)
 offered rate                  1 000/s       1 000/s
 achieved rate                     0/s         977/s
 response time p50                   –        184 µs
 response time p99                   –        447 µs
 response time p99.9                 –             –
 response time max                   –       1.64 ms
 service time p99                    –        447 µs
 send delay p99                      –       3.22 µs
 not accepted                 ! 10 000             –
 acknowledged, lost                  –             –
 acknowledged, duplicated            –             –
 time to durable p99                 –             –
 SQL statements, idle                –             –
 server CPU per event                –             –
 server memory, peak                 –             –

objectives
  undecided  127.0.0.1:9: response_time.p99 < 1ms  measured – (there are no samples)

caveats
  dead target  127.0.0.1:9: http://127.0.0.1:9: connection refused
      → check that the target runs and listens at this address
  single repetition  each variant was measured once, so nothing tells how far the numbers move by themselves
      → use --repeat 5 before comparing or publishing

INVALID (exit code 5)
  127.0.0.1:9: dead target: http://127.0.0.1:9: connection refused
"#);
    }
}
