//! What the generator saw of itself and of its machine, as rows of text and as one line: always the worst of the repetitions, since one bad
//! one is a reason to look. What of it is a reason for doubt is decided in [`crate::caveat`].

use crate::format;
use crate::model::{ArrivalsWindow, Health, Hiccups, MachineUse, Run, SENDING_THREAD, TargetResult, ThreadUse, Times};
use crate::stats;
use crate::summary::{self, Cell, Group, Row};

/// Rows under one heading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What they are about.
    pub title: &'static str,
    /// In the order of [`summary::groups`].
    pub rows: Vec<Row>,
}

/// A number of one repetition.
type Read<'a> = &'a dyn Fn(&TargetResult) -> Option<f64>;

/// A number of a run with its name, and how it is written.
type Named = (&'static str, Option<f64>, fn(f64) -> String);

/// Everything, generator first.
pub fn parts(run: &Run) -> Vec<Part> {
    let rows = Rows(summary::groups(run));
    let all = [
        Part { title: "The generator", rows: generator(&rows) },
        Part { title: "Arrivals", rows: arrivals(&rows) },
        Part { title: "The machine", rows: machine(&rows) },
        Part { title: "Late wake-ups", rows: wake_ups(&rows) },
    ];
    let known = |row: &Row| row.cells.iter().any(|cell| cell.text != format::UNKNOWN);
    all.into_iter()
        .map(|part| Part { rows: part.rows.into_iter().filter(known).collect(), ..part })
        .filter(|part| !part.rows.is_empty())
        .collect()
}

/// Makes rows of the variants, of the worst of their repetitions each.
struct Rows<'a>(Vec<Group<'a>>);

impl Rows<'_> {
    fn of(&self, label: &str, cell: impl Fn(&Group<'_>) -> Cell) -> Row {
        Row { label: label.to_owned(), cells: self.0.iter().map(cell).collect() }
    }

    fn worst(&self, label: &str, read: Read<'_>, text: fn(f64) -> String) -> Row {
        self.of(label, |g| Cell::plain(g.spread(read).map_or_else(|| format::UNKNOWN.to_owned(), |s| text(s.max))))
    }

    fn share(&self, label: &str, read: Read<'_>) -> Row {
        self.worst(label, read, share)
    }

    fn number(&self, label: &str, read: Read<'_>) -> Row {
        self.worst(label, read, format::number)
    }

    /// Of those repetitions that have enough samples beyond it.
    fn quantile(&self, label: &str, read: fn(&TargetResult) -> Option<&Times>, q: f64) -> Row {
        let printed = |r: &TargetResult| {
            let times = read(r)?;
            let enough = stats::samples_beyond(times.count, q) >= stats::SAMPLES_BEYOND_TO_PRINT;
            enough.then(|| times.quantile_ns(q))
        };
        self.worst(&format!("{label} {}", format::quantile_name(q)), &printed, format::time)
    }

    fn largest(&self, label: &str, read: fn(&TargetResult) -> Option<&Times>) -> Row {
        self.worst(label, &|r| read(r).filter(|t| t.count > 0).map(|t| t.max_ns as f64), format::time)
    }
}

/// A share that is as good as none says so, without five zeros.
fn share(share: f64) -> String {
    if share > 0.0 && share < 1e-4 { "< 0.01 %".to_owned() } else { format::percent(share) }
}

fn health(r: &TargetResult) -> Option<&Health> {
    r.health.as_ref()
}

fn thread<'a>(r: &'a TargetResult, name: &str) -> Option<&'a ThreadUse> {
    health(r)?.threads.iter().find(|thread| thread.name == name)
}

/// Share of the time the sending thread waited for a processor.
fn waited(r: &TargetResult) -> Option<f64> {
    let sender = thread(r, SENDING_THREAD)?;
    Some(sender.run_queue_delay_ns? as f64 / 1e9 / sender.seconds.max(1e-9))
}

/// Share of all processors that other processes used.
fn others(r: &TargetResult) -> Option<f64> {
    let machine = health(r)?.machine.as_ref()?;
    Some(machine.other_cpu_s? / (health(r)?.seconds * f64::from(machine.cores)).max(1e-9))
}

/// Send delay as a share of the response time, both at quantile `q`.
fn own_share(r: &TargetResult, q: f64) -> Option<f64> {
    let (delay, response) = (&r.load.send_delay, &r.load.response_time);
    (delay.count > 0 && response.count > 0).then(|| delay.quantile_ns(q) / response.quantile_ns(q).max(1.0))
}

fn generator(rows: &Rows<'_>) -> Vec<Row> {
    let rest = |r: &TargetResult| {
        let all = health(r)?.threads.iter().filter(|thread| thread.name != SENDING_THREAD);
        all.map(ThreadUse::cpu_share).reduce(|a, b| Some(a? + b?))?
    };
    vec![
        rows.quantile("send delay", summary::send_delay, 0.99),
        rows.share("… of the response time, p50", &|r| own_share(r, 0.5)),
        rows.share("… of the response time, p99", &|r| own_share(r, 0.99)),
        rows.share("send loop at work", &|r| health(r)?.sender_busy_share),
        rows.share("sending thread, of a core (with spinning)", &|r| thread(r, SENDING_THREAD)?.cpu_share()),
        rows.share("… waited for a processor", &waited),
        rows.number("… was interrupted (times)", &|r| Some(thread(r, SENDING_THREAD)?.switches_involuntary? as f64)),
        rows.share("other threads, of a core", &rest),
    ]
}

fn arrivals(rows: &Rows<'_>) -> Vec<Row> {
    vec![
        rows.share("sent gaps that are not as asked", &|r| r.load.arrivals_check.as_ref()?.gap_distance_sent),
        rows.share("… in the schedule itself", &|r| r.load.arrivals_check.as_ref()?.gap_distance_planned),
        rows.of("dispersion sent (due), shortest windows", |g| dispersion(g, |windows| windows.first())),
        rows.of("dispersion sent (due), longest windows", |g| dispersion(g, |windows| windows.last())),
    ]
}

/// Index of dispersion as sent and as due, of the repetition where they differ most.
fn dispersion(group: &Group<'_>, pick: fn(&[ArrivalsWindow]) -> Option<&ArrivalsWindow>) -> Cell {
    let windows = group.results.iter().filter_map(|r| pick(&r.load.arrivals_check.as_ref()?.windows));
    let difference = |w: &ArrivalsWindow| (w.dispersion_sent - w.dispersion_planned).abs();
    let worst = windows.max_by(|a, b| difference(a).total_cmp(&difference(b)));
    Cell::plain(worst.map_or_else(
        || format::UNKNOWN.to_owned(),
        |w| format!("{} ({})", format::number(w.dispersion_sent), format::number(w.dispersion_planned)),
    ))
}

fn machine(rows: &Rows<'_>) -> Vec<Row> {
    let of = |read: fn(&MachineUse) -> Option<f64>| move |r: &TargetResult| read(health(r)?.machine.as_ref()?);
    let cores = |g: &Group<'_>| {
        let machine = g.results.iter().find_map(|r| health(r)?.machine.as_ref());
        let shared = machine.and_then(|m| Some(format!("{} of {}", m.cores_shared()?, m.generator_cores.len())));
        Cell::plain(shared.unwrap_or_else(|| format::UNKNOWN.to_owned()))
    };
    vec![
        rows.share("processors busy", &of(|m| Some(m.busy_share))),
        rows.share("… with other processes", &others),
        rows.share("… taken by the hypervisor", &of(|m| Some(m.steal_share))),
        rows.share("a thread waited for a processor (PSI)", &of(|m| Some(m.pressure_cpu?.some_share))),
        rows.share("… for a disk", &of(|m| Some(m.pressure_io?.some_share))),
        rows.share("… for memory", &of(|m| Some(m.pressure_memory?.some_share))),
        rows.worst("held back by a CPU quota", &of(|m| m.throttled_s), format::seconds),
        rows.number("load average at the begin", &of(|m| m.load_average_1m)),
        rows.of("generator's cores open to the server", cores),
    ]
}

fn hiccups(r: &TargetResult) -> Option<&Hiccups> {
    health(r)?.hiccups.as_ref()
}

fn standstill(r: &TargetResult) -> Option<&Times> {
    hiccups(r)?.standstill.as_ref()
}

fn late(r: &TargetResult) -> Option<&Times> {
    Some(&hiccups(r)?.late)
}

fn wake_ups(rows: &Rows<'_>) -> Vec<Row> {
    vec![
        rows.quantile("machine stood still", standstill, 0.5),
        rows.quantile("machine stood still", standstill, 0.99),
        rows.largest("machine stood still max", standstill),
        rows.quantile("… or ran other threads", late, 0.99),
        rows.largest("… or ran other threads max", late),
        rows.number("wake-ups 1 ms late and more", &|r| Some(hiccups(r)?.stalls_total as f64)),
    ]
}

/// The worst of all repetitions in one line; `None` when nobody watched.
pub fn line(run: &Run) -> Option<String> {
    run.results.iter().find(|r| r.health.is_some())?;
    let worst = |read: Read<'_>| run.results.iter().filter_map(read).reduce(f64::max);
    let machine = |read: fn(&MachineUse) -> f64| move |r: &TargetResult| health(r)?.machine.as_ref().map(read);
    let late = |r: &TargetResult| (r.load.send_delay.count > 0).then_some(r.load.send_delay.p99_ns as f64);
    let still = |r: &TargetResult| Some(standstill(r)?.max_ns as f64);
    let parts: [Named; 6] = [
        ("generator at worst: late at p99", worst(&late), format::time),
        ("waited", worst(&waited), format::percent),
        ("machine: busy", worst(&machine(|m| m.busy_share)), format::percent),
        ("others", worst(&others), format::percent),
        ("stolen", worst(&machine(|m| m.steal_share)), format::percent),
        ("stood still", worst(&still), format::time),
    ];
    let known = parts.iter().filter_map(|(name, value, text)| Some(format!("{name} {}", text((*value)?))));
    Some(known.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn what_was_not_watched_has_no_row_and_no_line() {
        let mut run = fixtures::three_modes();
        run.results.iter_mut().for_each(|r| (r.health, r.load.arrivals_check) = (None, None));
        let parts = parts(&run);
        assert_eq!(parts.iter().map(|part| part.title).collect::<Vec<_>>(), ["The generator"]);
        assert!(
            parts[0].rows.iter().all(|row| row.label.contains("send delay") || row.label.contains("response time"))
        );
        assert_eq!(line(&run), None);
    }

    #[test]
    fn one_repetition_that_was_watched_is_enough_for_every_row() {
        let mut run = fixtures::three_modes();
        run.results.iter_mut().skip(1).for_each(|r| (r.health, r.load.arrivals_check) = (None, None));
        let parts = parts(&run);
        assert_eq!(parts.len(), 4);
        // Only the quota has no number: the machine of the fixture has none.
        assert_eq!(parts.iter().map(|part| part.rows.len()).sum::<usize>(), 8 + 4 + 8 + 6);
    }

    #[test]
    fn a_tiny_share_is_not_written_out() {
        assert_eq!([0.0, 1e-6, 0.000_1, 0.5].map(share), ["0 %", "< 0.01 %", "0.01 %", "50 %"]);
    }

    #[test]
    fn the_worst_of_all_repetitions_is_told() {
        let mut run = fixtures::three_modes();
        let machine = |run: &mut Run, i: usize, share: f64| {
            run.results[i].health.as_mut().unwrap().machine.as_mut().unwrap().steal_share = share;
        };
        machine(&mut run, 0, 0.3);
        machine(&mut run, 4, 0.5);
        assert!(line(&run).unwrap().contains("stolen 50 %"), "{:?}", line(&run));
        let parts = parts(&run);
        let row = parts[2].rows.iter().find(|row| row.label.contains("hypervisor")).unwrap();
        assert_eq!(row.cells.iter().map(|c| c.text.as_str()).collect::<Vec<_>>(), ["30 %", "50 %", "0.4 %"]);
    }
}
