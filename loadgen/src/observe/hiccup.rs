//! The hiccup meter: threads that do nothing but wake on a period and write down how late they were.
//!
//! What makes them late makes a response late as well, whatever the server does; so a report that shows both can tell a slow server
//! from a machine that stood still. The idea is jHiccup's (Gil Tene, 2012), with two changes.
//!
//! **One thread a core, pinned.** A hypervisor takes one virtual processor at a time, and a thread that may go anywhere wakes on
//! another one and never sees it; the thread that was sending or answering there does not get away. On more cores than
//! [`CORES_WATCHED_MAX`], so many of them evenly spread.
//!
//! **A budget of wake-ups.** On a virtual machine a wake-up costs 18–40 µs of CPU (KVM, two cores kept busy by others; 3 µs of it to read
//! `schedstat`; timer and halt leave the virtual machine, so real hardware is several times cheaper), and takes them from whoever was
//! running there. So all meters together wake once every [`TURN_NS`], in turns: measured, 0.5–0.7 % of each of two cores. One
//! wake-up a millisecond on each would have been 2.3 %. A stall shorter than a meter's period is seen with the probability
//! length ÷ period, so shares of time are right on average and the list of single stalls has gaps.
//!
//! **Two causes, told apart.** A thread runs late because the timer or the core came late (the machine stood still), or because other
//! threads ran on the core (it was busy, perhaps with the very server that is measured). The kernel counts the second
//! (`schedstat`: runnable and not running), and the rest is the first. Without this a server that keeps both cores busy would
//! pass as a bad machine.
//!
//! A stall swallows wake-ups. Those are recorded too, each with the time it would have waited: the histogram is then of moments, not of
//! wake-ups, and its quantiles compare with those of the response time of an open loop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use reports::histogram::TimeHistogram;
use reports::model::{Hiccups, Stall};

use crate::clock::Clock;

/// Between two wake-ups of all meters together: what one percent of a core buys.
pub const TURN_NS: u64 = 3_000_000;

/// Cores that get a meter.
pub const CORES_WATCHED_MAX: usize = 4;

/// A wake-up this late is a stall: longer than the response time that good servers promise.
pub const STALL_NS_MIN: u64 = 1_000_000;

/// Stalls kept one by one, the longest ones.
pub const STALLS_KEPT: usize = 100;

/// Stalls of a watch that still goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StallsSeen {
    /// How many.
    pub count: u64,
    /// The longest, ns; 0: there was none.
    pub longest_ns: u64,
}

/// What the meters count while they watch; touched only when there is a stall.
#[derive(Debug, Default)]
struct Seen {
    count: AtomicU64,
    longest_ns: AtomicU64,
}

/// Running meters.
#[derive(Debug)]
pub struct HiccupMeter {
    stop: Arc<AtomicBool>,
    seen: Arc<Seen>,
    cores: Vec<u32>,
    period_ns: u64,
    threads: Vec<JoinHandle<Record>>,
}

impl HiccupMeter {
    /// Starts to watch `cores` (see [`cores_to_watch`]; none: one meter that may run anywhere) until `until_ns` of the clock. Offsets of
    /// stalls count from `from_ns`, which must not lie in the future.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(clock: Clock, from_ns: u64, until_ns: u64, cores: Vec<u32>) -> io::Result<Self> {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Seen::default()));
        let places: Vec<Option<u32>> =
            if cores.is_empty() { vec![None] } else { cores.iter().copied().map(Some).collect() };
        let period_ns = TURN_NS * places.len() as u64;
        let first_ns = clock.now_ns() + period_ns;
        let mut threads = Vec::new();
        for (core, turn) in places.into_iter().zip(0..) {
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            let first_ns = first_ns + turn * TURN_NS;
            let meter = Meter { clock, core, from_ns, first_ns, until_ns, period_ns, stop, seen };
            let name = core.map_or_else(|| "hiccup".to_owned(), |core| format!("hiccup {core}"));
            threads.push(std::thread::Builder::new().name(name).spawn(move || meter.watch())?);
        }
        Ok(Self { stop, seen, cores, period_ns, threads })
    }

    /// The stalls until now, for whoever looks on.
    pub fn seen(&self) -> StallsSeen {
        StallsSeen {
            count: self.seen.count.load(Ordering::Relaxed),
            longest_ns: self.seen.longest_ns.load(Ordering::Relaxed),
        }
    }

    /// Ends the watch if it has not ended yet, within a period unless the machine stands still, and gives what was found.
    pub fn finish(self) -> Hiccups {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Record::new(self.period_ns);
        for record in self.threads.into_iter().filter_map(|thread| thread.join().ok()) {
            all.merge(record);
        }
        all.hiccups(self.cores)
    }
}

/// The cores this process may use, or [`CORES_WATCHED_MAX`] of them evenly spread; none where the system does not tell.
pub fn cores_to_watch() -> Vec<u32> {
    evenly_spread(super::processors::cores_of(None).unwrap_or_default())
}

fn evenly_spread(cores: Vec<u32>) -> Vec<u32> {
    let step = cores.len().div_ceil(CORES_WATCHED_MAX).max(1);
    cores.into_iter().step_by(step).collect()
}

/// One meter: where and how long it watches.
struct Meter {
    clock: Clock,
    core: Option<u32>,
    from_ns: u64,
    first_ns: u64,
    until_ns: u64,
    period_ns: u64,
    stop: Arc<AtomicBool>,
    seen: Arc<Seen>,
}

impl Meter {
    fn watch(self) -> Record {
        let mut record = Record::new(self.period_ns);
        let mut sleeper = imp::Sleeper::new(self.clock, self.core);
        let mut due_ns = self.first_ns;
        while due_ns < self.until_ns && !self.stop.load(Ordering::Relaxed) {
            sleeper.until(due_ns);
            let (now_ns, waited_ns) = (self.clock.now_ns(), sleeper.waited_ns());
            record.woken(due_ns, now_ns, waited_ns, self.until_ns);
            if now_ns.saturating_sub(due_ns) >= STALL_NS_MIN {
                self.seen.count.fetch_add(1, Ordering::Relaxed);
                self.seen.longest_ns.fetch_max(now_ns - due_ns, Ordering::Relaxed);
                record.stalled(Stall {
                    offset_ns: due_ns.saturating_sub(self.from_ns),
                    length_ns: now_ns - due_ns,
                    waited_ns: waited_ns.map(|waited| waited.min(now_ns - due_ns)),
                    core: self.core,
                });
            }
            due_ns += self.period_ns * (1 + now_ns.saturating_sub(due_ns) / self.period_ns);
        }
        record
    }
}

/// What a meter wrote down.
#[derive(Debug)]
struct Record {
    period_ns: u64,
    late: TimeHistogram,
    standstill: TimeHistogram,
    /// Whether every wake-up knew its cause.
    causes_known: bool,
    stalls_total: u64,
    stalls: Vec<Stall>,
}

impl Record {
    fn new(period_ns: u64) -> Self {
        let (late, standstill) = (TimeHistogram::new(), TimeHistogram::new());
        Self { period_ns, late, standstill, causes_known: true, stalls_total: 0, stalls: Vec::new() }
    }

    /// A wake-up that was due at `due_ns`, and all that were due since and before `until_ns`.
    fn woken(&mut self, due_ns: u64, now_ns: u64, waited_ns: Option<u64>, until_ns: u64) {
        self.causes_known &= waited_ns.is_some();
        let woken_ns = now_ns.saturating_sub(waited_ns.unwrap_or(0));
        let mut due_ns = due_ns;
        loop {
            self.late.record(now_ns.saturating_sub(due_ns));
            self.standstill.record(woken_ns.saturating_sub(due_ns));
            due_ns += self.period_ns;
            if due_ns > now_ns || due_ns >= until_ns {
                return;
            }
        }
    }

    fn stalled(&mut self, stall: Stall) {
        self.stalls_total += 1;
        self.stalls.push(stall);
        if self.stalls.len() >= 2 * STALLS_KEPT {
            self.keep_the_longest();
        }
    }

    fn keep_the_longest(&mut self) {
        self.stalls.sort_by_key(|stall| std::cmp::Reverse(stall.length_ns));
        self.stalls.truncate(STALLS_KEPT);
    }

    fn merge(&mut self, other: Self) {
        self.late.merge(&other.late);
        self.standstill.merge(&other.standstill);
        self.causes_known &= other.causes_known;
        self.stalls_total += other.stalls_total;
        self.stalls.extend(other.stalls);
    }

    fn hiccups(mut self, cores: Vec<u32>) -> Hiccups {
        self.keep_the_longest();
        self.stalls.sort_by_key(|stall| stall.offset_ns);
        Hiccups {
            period_ns: self.period_ns,
            cores,
            late: self.late.times(0),
            standstill: self.causes_known.then(|| self.standstill.times(0)),
            stalls_total: self.stalls_total,
            stalls: self.stalls,
        }
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use std::fs::File;
    use std::num::NonZeroU64;
    use std::os::unix::fs::FileExt;

    use rustix::thread::{ClockId, CpuSet, Timespec};

    use crate::clock::Clock;

    /// Sleeps until instants of a clock, on one core, as exactly as the kernel can.
    pub struct Sleeper {
        /// The kernel's monotonic clock less ours.
        ahead_ns: u64,
        schedstat: Option<File>,
        waited_before_ns: u64,
    }

    impl Sleeper {
        /// For the calling thread, which it pins to `core`. What the system refuses is done without.
        pub fn new(clock: Clock, core: Option<u32>) -> Self {
            // 50 µs of slack by default, in which the kernel may wake threads together.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
            if let Some(core) = core {
                let mut only = CpuSet::new();
                only.set(core as usize);
                let _ = rustix::thread::sched_setaffinity(None, &only);
            }
            let kernel = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let kernel_ns = kernel.tv_sec as u64 * 1_000_000_000 + kernel.tv_nsec as u64;
            let mut sleeper = Self {
                ahead_ns: kernel_ns.saturating_sub(clock.now_ns()),
                schedstat: File::open("/proc/thread-self/schedstat").ok(),
                waited_before_ns: 0,
            };
            sleeper.waited_ns();
            sleeper
        }

        pub fn until(&self, at_ns: u64) {
            let at_ns = at_ns + self.ahead_ns;
            let at = Timespec { tv_sec: (at_ns / 1_000_000_000) as i64, tv_nsec: (at_ns % 1_000_000_000) as i64 };
            while rustix::thread::clock_nanosleep_absolute(ClockId::Monotonic, &at) == Err(rustix::io::Errno::INTR) {}
        }

        /// Time since the last call in which this thread was runnable and others ran.
        pub fn waited_ns(&mut self) -> Option<u64> {
            let mut text = [0; 64];
            let length = self.schedstat.as_ref()?.read_at(&mut text, 0).ok()?;
            let text = std::str::from_utf8(&text[..length]).ok()?;
            let waited_ns: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
            Some(waited_ns.saturating_sub(std::mem::replace(&mut self.waited_before_ns, waited_ns)))
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::time::Duration;

    use crate::clock::Clock;

    /// Sleeps until instants of a clock, as exactly as the standard library can.
    pub struct Sleeper(Clock);

    impl Sleeper {
        pub fn new(clock: Clock, _: Option<u32>) -> Self {
            Self(clock)
        }

        pub fn until(&self, at_ns: u64) {
            std::thread::sleep(Duration::from_nanos(at_ns.saturating_sub(self.0.now_ns())));
        }

        pub fn waited_ns(&mut self) -> Option<u64> {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_stall_counts_for_every_wake_up_it_swallowed() {
        let mut record = Record::new(MS);
        // Due at 10, 11, 12 and 13 ms; woken at 13 after the machine stood still, run at 13.5 after other threads had run.
        record.woken(10 * MS, 27 * MS / 2, Some(MS / 2), 100 * MS);
        let values = |histogram: &TimeHistogram| histogram.iter().map(|(ns, n)| (ns / 100_000, n)).collect::<Vec<_>>();
        assert_eq!(values(&record.late), [(5, 1), (15, 1), (25, 1), (35, 1)]);
        assert_eq!(values(&record.standstill), [(0, 1), (10, 1), (20, 1), (30, 1)]);
    }

    #[test]
    fn nothing_is_counted_that_was_due_after_the_end() {
        let mut record = Record::new(MS);
        record.woken(10 * MS, 20 * MS, Some(0), 12 * MS);
        assert_eq!(record.late.count(), 2);
    }

    #[test]
    fn the_longest_stalls_are_kept_in_the_order_of_time_and_all_are_counted() {
        let mut record = Record::new(MS);
        for i in 0..10 * STALLS_KEPT as u64 {
            // The longest come in the middle.
            let length_ns = if (400..500).contains(&i) { 9 * MS + i } else { 2 * MS };
            record.stalled(Stall { offset_ns: i * MS, length_ns, waited_ns: None, core: None });
        }
        let hiccups = record.hiccups(Vec::new());
        assert_eq!((hiccups.stalls_total, hiccups.stalls.len()), (10 * STALLS_KEPT as u64, STALLS_KEPT));
        assert!(hiccups.stalls.iter().zip(400..).all(|(stall, i)| stall.offset_ns == i * MS));
    }

    #[test]
    fn one_wake_up_of_unknown_cause_leaves_the_causes_unknown() {
        let mut record = Record::new(MS);
        record.woken(10 * MS, 10 * MS, Some(0), 100 * MS);
        assert!(record.causes_known);
        record.woken(11 * MS, 11 * MS, None, 100 * MS);
        assert_eq!(record.hiccups(Vec::new()).standstill, None);
    }

    #[test]
    fn a_few_of_many_cores_are_watched() {
        let cases: [(u32, &[u32]); 5] =
            [(0, &[]), (1, &[0]), (4, &[0, 1, 2, 3]), (5, &[0, 2, 4]), (64, &[0, 16, 32, 48])];
        for (cores, expected) in cases {
            assert_eq!(evenly_spread((0..cores).collect()), expected, "{cores} cores");
        }
    }

    #[test]
    fn every_period_of_every_core_is_a_sample() {
        let clock = Clock::start();
        let until_ns = clock.now_ns() + 100 * MS;
        let cores = cores_to_watch();
        let meters = cores.len().max(1) as u64;
        let meter = HiccupMeter::start(clock, clock.now_ns(), until_ns, cores).expect("threads");
        while clock.now_ns() < until_ns {
            std::thread::yield_now();
        }
        let hiccups = meter.finish();
        // A thread that starts late has fewer; none has more.
        let wake_ups_max = 100 * MS / TURN_NS + meters;
        assert!((1..=wake_ups_max).contains(&hiccups.late.count), "{hiccups:?}");
        assert!(hiccups.standstill.is_none_or(|still| still.max_ns <= hiccups.late.max_ns));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_meter_stays_on_its_core() {
        for core in cores_to_watch() {
            let pinned = std::thread::spawn(move || {
                imp::Sleeper::new(Clock::start(), Some(core));
                super::super::processors::cores_of(None)
            });
            assert_eq!(pinned.join().expect("no panic"), Some(vec![core]));
        }
    }

    #[test]
    fn it_ends_before_its_time_when_told_to() {
        let clock = Clock::start();
        let meter = HiccupMeter::start(clock, 0, 3_600_000 * MS, Vec::new()).expect("threads");
        assert_eq!(meter.finish().cores, Vec::<u32>::new());
    }
}
