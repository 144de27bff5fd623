//! What the generator saw of itself and of its machine, as rows of text and as one line. What of it is a reason for doubt is decided
//! in [`crate::caveat`].

use crate::format;
use crate::model::{ArrivalsCheck, Health, Hiccups, MachineUse, Run, SENDING_THREAD, TargetResult, ThreadUse, Times};
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

/// Makes rows of the variants.
struct Rows<'a>(Vec<Group<'a>>);

impl Rows<'_> {
    fn of(&self, label: &str, cell: impl Fn(&Group<'_>) -> Cell) -> Row {
        Row { label: label.to_owned(), cells: self.0.iter().map(cell).collect() }
    }

    fn share(&self, label: &str, read: Read<'_>) -> Row {
        self.of(label, |g| g.cell(read, format::percent))
    }

    fn number(&self, label: &str, read: Read<'_>) -> Row {
        self.of(label, |g| g.cell(read, format::number))
    }

    fn seconds(&self, label: &str, read: Read<'_>) -> Row {
        self.of(label, |g| g.cell(read, format::seconds))
    }

    fn quantile(&self, label: &str, read: fn(&TargetResult) -> Option<&Times>, q: f64) -> Row {
        self.of(&format!("{label} {}", format::quantile_name(q)), |g| g.quantile(read, q))
    }
}

fn thread<'a>(r: &'a TargetResult, name: &str) -> Option<&'a ThreadUse> {
    r.health.as_ref()?.threads.iter().find(|thread| thread.name == name)
}

fn generator(rows: &Rows<'_>) -> Vec<Row> {
    let own_share = |q: f64| {
        move |r: &TargetResult| {
            let (delay, response) = (&r.load.send_delay, &r.load.response_time);
            (delay.count > 0 && response.count > 0).then(|| delay.quantile_ns(q) / response.quantile_ns(q).max(1.0))
        }
    };
    let threads = |wanted: fn(&str) -> bool| {
        move |r: &TargetResult| {
            let all = r.health.as_ref()?.threads.iter().filter(|thread| wanted(&thread.name));
            all.map(ThreadUse::cpu_share).reduce(|a, b| Some(a? + b?))?
        }
    };
    vec![
        rows.quantile("send delay", summary::send_delay, 0.5),
        rows.quantile("send delay", summary::send_delay, 0.99),
        rows.quantile("send delay", summary::send_delay, 0.999),
        rows.share("… of the response time, p50", &own_share(0.5)),
        rows.share("… of the response time, p99", &own_share(0.99)),
        rows.share("send loop at work", &|r| r.health.as_ref()?.sender_busy_share),
        rows.share("sending thread, of a core (spinning included)", &threads(|name| name == SENDING_THREAD)),
        rows.share("… waited for a processor, of the time", &|r| {
            let sender = thread(r, SENDING_THREAD)?;
            Some(sender.run_queue_delay_ns? as f64 / 1e9 / sender.seconds.max(1e-9))
        }),
        rows.number("… was interrupted (times)", &|r| Some(thread(r, SENDING_THREAD)?.switches_involuntary? as f64)),
        rows.share("recording thread, of a core", &threads(|name| name == "recorder")),
        rows.share("wake-up threads, of a core", &threads(|name| name.starts_with("hiccup"))),
    ]
}

fn check(r: &TargetResult) -> Option<&ArrivalsCheck> {
    r.load.arrivals_check.as_ref()
}

fn arrivals(rows: &Rows<'_>) -> Vec<Row> {
    let dispersion = |g: &Group<'_>, pick: fn(&ArrivalsCheck) -> Option<(f64, f64)>| {
        let sent = g.cell(|r| Some(pick(check(r)?)?.0), format::number);
        let planned = g.cell(|r| Some(pick(check(r)?)?.1), format::number);
        let text = if sent.text == format::UNKNOWN { sent.text } else { format!("{} for {}", sent.text, planned.text) };
        Cell::plain(text)
    };
    vec![
        rows.share("sent gaps that are not exponential", &|r| check(r)?.gap_distance_sent),
        rows.share("… in the schedule itself", &|r| check(r)?.gap_distance_planned),
        rows.of("dispersion sent for due, shortest windows", |g| {
            dispersion(g, |c| c.windows.first().map(|w| (w.dispersion_sent, w.dispersion_planned)))
        }),
        rows.of("dispersion sent for due, longest windows", |g| {
            dispersion(g, |c| c.windows.last().map(|w| (w.dispersion_sent, w.dispersion_planned)))
        }),
    ]
}

fn machine(rows: &Rows<'_>) -> Vec<Row> {
    let of = |read: fn(&MachineUse) -> Option<f64>| move |r: &TargetResult| read(r.health.as_ref()?.machine.as_ref()?);
    let others = |r: &TargetResult| {
        let health = r.health.as_ref()?;
        let machine = health.machine.as_ref()?;
        Some(machine.other_cpu_s? / (health.seconds * f64::from(machine.cores)).max(1e-9))
    };
    let cores = |g: &Group<'_>| {
        let machine = g.results.iter().find_map(|r| r.health.as_ref()?.machine.as_ref());
        let shared = machine.and_then(|m| Some(format!("{} of {}", m.cores_shared()?, m.generator_cores.len())));
        Cell::plain(shared.unwrap_or_else(|| format::UNKNOWN.to_owned()))
    };
    vec![
        rows.share("processors busy", &of(|m| Some(m.busy_share))),
        rows.share("… with other processes", &others),
        rows.share("… taken by the hypervisor", &of(|m| Some(m.steal_share))),
        rows.share("time with a thread waiting for a processor (PSI)", &of(|m| Some(m.pressure_cpu?.some_share))),
        rows.share("… for a disk", &of(|m| Some(m.pressure_io?.some_share))),
        rows.share("… for memory", &of(|m| Some(m.pressure_memory?.some_share))),
        rows.seconds("held back by a CPU quota", &of(|m| m.throttled_s)),
        rows.number("load average when the phase began", &of(|m| m.load_average_1m)),
        rows.of("generator's cores that the server may use, too", cores),
    ]
}

fn hiccups(r: &TargetResult) -> Option<&Hiccups> {
    r.health.as_ref()?.hiccups.as_ref()
}

fn standstill(r: &TargetResult) -> Option<&Times> {
    hiccups(r)?.standstill.as_ref()
}

fn wake_ups(rows: &Rows<'_>) -> Vec<Row> {
    vec![
        rows.quantile("machine stood still", standstill, 0.5),
        rows.quantile("machine stood still", standstill, 0.99),
        rows.of("machine stood still max", |g| g.largest(standstill)),
        rows.quantile("… or ran other threads", |r| Some(&hiccups(r)?.late), 0.99),
        rows.of("… or ran other threads max", |g| g.largest(|r| Some(&hiccups(r)?.late))),
        rows.number("stalls of 1 ms and more", &|r| Some(hiccups(r)?.stalls_total as f64)),
    ]
}

/// The worst of all repetitions in one line; `None` when nobody watched.
pub fn line(run: &Run) -> Option<String> {
    let watched: Vec<(&TargetResult, &Health)> =
        run.results.iter().filter_map(|r| Some((r, r.health.as_ref()?))).collect();
    let worst = |read: &dyn Fn(&TargetResult, &Health) -> Option<f64>| {
        watched.iter().filter_map(|(r, health)| read(r, health)).reduce(f64::max)
    };
    let machine = |read: fn(&MachineUse) -> f64| move |_: &TargetResult, h: &Health| h.machine.as_ref().map(read);
    let parts = [
        worst(&|r, _| (r.load.send_delay.count > 0).then_some(r.load.send_delay.p99_ns as f64))
            .map(|ns| format!("generator at worst: late {} (p99)", format::time(ns))),
        worst(&|r, _| {
            let sender = thread(r, SENDING_THREAD)?;
            Some(sender.run_queue_delay_ns? as f64 / 1e9 / sender.seconds.max(1e-9))
        })
        .map(|share| format!("waited {}", format::percent(share))),
        worst(&machine(|m| m.busy_share)).map(|share| format!("machine: busy {}", format::percent(share))),
        worst(&|_, h| {
            let machine = h.machine.as_ref()?;
            Some(machine.other_cpu_s? / (h.seconds * f64::from(machine.cores)).max(1e-9))
        })
        .map(|share| format!("others {}", format::percent(share))),
        worst(&machine(|m| m.steal_share)).map(|share| format!("stolen {}", format::percent(share))),
        worst(&|r, _| Some(hiccups(r)?.standstill.as_ref()?.max_ns as f64))
            .map(|ns| format!("stood still {}", format::time(ns))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!watched.is_empty() && !parts.is_empty()).then(|| parts.join(", "))
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
        assert_eq!(parts.iter().map(|part| part.rows.len()).sum::<usize>(), 11 + 4 + 8 + 6);
    }

    #[test]
    fn the_line_tells_the_worst_of_all_repetitions() {
        let mut run = fixtures::three_modes();
        let machine = |run: &mut Run, i: usize, share: f64| {
            run.results[i].health.as_mut().unwrap().machine.as_mut().unwrap().steal_share = share;
        };
        machine(&mut run, 0, 0.3);
        machine(&mut run, 4, 0.5);
        assert!(line(&run).unwrap().contains("stolen 50 %"), "{:?}", line(&run));
    }
}
