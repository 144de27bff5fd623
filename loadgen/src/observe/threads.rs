//! The generator's own threads: what each used of the processors, and how often the machine made it wait.
//!
//! A thread leaves nothing behind in `/proc` when it ends, and the sending thread ends with the phase; so the threads are looked at
//! several times, and what was seen last counts.

use std::collections::BTreeMap;
use std::fs;

use reports::model::ThreadUse;

use crate::clock::Clock;

/// Watches the threads of this process.
#[derive(Debug)]
pub struct ThreadWatch {
    clock: Clock,
    begin_ns: u64,
    before: BTreeMap<u32, Counters>,
    last: BTreeMap<u32, (u64, Counters)>,
}

/// What one thread has used so far.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counters {
    name: String,
    cpu_ns: Option<u64>,
    run_queue_delay_ns: Option<u64>,
    switches_voluntary: Option<u64>,
    switches_involuntary: Option<u64>,
}

impl ThreadWatch {
    /// What the threads have used until now does not count.
    pub fn begin(clock: Clock) -> Self {
        Self { clock, begin_ns: clock.now_ns(), before: threads_now(), last: BTreeMap::new() }
    }

    /// Looks at all of them; threads that have ended keep what was seen last.
    pub fn look(&mut self) {
        let at_ns = self.clock.now_ns();
        self.last.extend(threads_now().into_iter().map(|(id, counters)| (id, (at_ns, counters))));
    }

    /// What was used from the begin until each was last seen, by name; empty where the system does not tell.
    pub fn finish(self) -> Vec<ThreadUse> {
        let mut by_name: BTreeMap<String, ThreadUse> = BTreeMap::new();
        for (id, (at_ns, counters)) in &self.last {
            let used = counters.since(self.before.get(id), (at_ns - self.begin_ns) as f64 / 1e9);
            match by_name.get_mut(&counters.name) {
                Some(sum) => add(sum, &used),
                None => drop(by_name.insert(counters.name.clone(), used)),
            }
        }
        by_name.into_values().collect()
    }
}

impl Counters {
    /// One that was not there before has used everything since.
    fn since(&self, before: Option<&Self>, seconds: f64) -> ThreadUse {
        let difference =
            |read: fn(&Self) -> Option<u64>| Some(read(self)?.saturating_sub(before.and_then(read).unwrap_or(0)));
        ThreadUse {
            name: self.name.clone(),
            threads: 1,
            seconds,
            cpu_s: difference(|c| c.cpu_ns).map(|ns| ns as f64 / 1e9),
            run_queue_delay_ns: difference(|c| c.run_queue_delay_ns),
            switches_voluntary: difference(|c| c.switches_voluntary),
            switches_involuntary: difference(|c| c.switches_involuntary),
        }
    }
}

fn add(sum: &mut ThreadUse, one: &ThreadUse) {
    let plus = |a: Option<u64>, b: Option<u64>| Some(a? + b?);
    sum.threads += one.threads;
    sum.seconds = sum.seconds.max(one.seconds);
    sum.cpu_s = sum.cpu_s.zip(one.cpu_s).map(|(a, b)| a + b);
    sum.run_queue_delay_ns = plus(sum.run_queue_delay_ns, one.run_queue_delay_ns);
    sum.switches_voluntary = plus(sum.switches_voluntary, one.switches_voluntary);
    sum.switches_involuntary = plus(sum.switches_involuntary, one.switches_involuntary);
}

fn threads_now() -> BTreeMap<u32, Counters> {
    let Ok(entries) = fs::read_dir("/proc/self/task") else { return BTreeMap::new() };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| Some((id, counters(id)?))).collect()
}

/// `None` when the thread has ended meanwhile.
fn counters(id: u32) -> Option<Counters> {
    let read = |file: &str| fs::read_to_string(format!("/proc/self/task/{id}/{file}")).ok();
    // schedstat: nanoseconds on a processor, nanoseconds waiting for one, time slices. proc(5)'s stat has the first in ticks of
    // 10 ms only.
    let schedstat = read("schedstat");
    let number = |at: usize| schedstat.as_ref()?.split_whitespace().nth(at)?.parse().ok();
    let status = read("status")?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok();
    Some(Counters {
        name: read("comm")?.trim_end().to_owned(),
        cpu_ns: number(0),
        run_queue_delay_ns: number(1),
        switches_voluntary: field("voluntary_ctxt_switches:"),
        switches_involuntary: field("nonvoluntary_ctxt_switches:"),
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_has_ended_keeps_what_was_seen_of_it_last() {
        let mut watch = ThreadWatch::begin(Clock::start());
        let (work_done, looked) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
        let thread = std::thread::Builder::new().name("worker of a test".to_owned()[..15].to_owned());
        let thread = thread.spawn(move || {
            let begin = std::time::Instant::now();
            while begin.elapsed().as_millis() < 30 {
                std::hint::black_box(0);
            }
            work_done.0.send(()).expect("the test listens");
            looked.1.recv().expect("the test has looked");
        });
        work_done.1.recv().expect("work");
        watch.look();
        looked.0.send(()).expect("the thread waits");
        thread.expect("a thread").join().expect("no panic");
        watch.look();
        let used = watch.finish().into_iter().find(|used| used.name == "worker of a tes").expect("the thread");
        assert!(used.cpu_s.is_some_and(|s| s > 0.0) && used.cpu_share().is_some_and(|share| share > 0.0), "{used:?}");
        assert_eq!(used.threads, 1);
        assert!(used.switches_voluntary.is_some() && used.run_queue_delay_ns.is_some());
    }

    #[test]
    fn threads_of_one_name_add_up_and_what_one_does_not_know_is_unknown_of_all() {
        let counters = |cpu_ns, voluntary| Counters {
            name: "x".to_owned(),
            cpu_ns: Some(cpu_ns),
            switches_voluntary: voluntary,
            ..Counters::default()
        };
        let clock = Clock::start();
        let watch = ThreadWatch {
            clock,
            begin_ns: 0,
            before: BTreeMap::from([(1, counters(1_000_000_000, Some(3)))]),
            last: BTreeMap::from([
                (1, (2_000_000_000, counters(1_500_000_000, Some(4)))),
                (2, (4_000_000_000, counters(500_000_000, None))),
            ]),
        };
        let used = watch.finish();
        assert_eq!(used.len(), 1);
        assert_eq!((used[0].threads, used[0].seconds, used[0].cpu_s), (2, 4.0, Some(1.0)));
        assert_eq!((used[0].switches_voluntary, used[0].run_queue_delay_ns), (None, None));
    }
}
