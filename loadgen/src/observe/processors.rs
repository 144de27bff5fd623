//! The processors of this machine over a span of time: how busy, taken by whom, and who had to wait. From `/proc` and the control
//! group; elsewhere than on Linux nothing is known.

use std::fs;

use reports::model::{MachineUse, Pressure};

/// What the system has counted so far.
#[derive(Debug)]
pub struct Processors {
    at_ns: u64,
    times: Option<Times>,
    load_average_1m: Option<f64>,
    /// Pressure on processors, disks and memory.
    pressure: [Option<PressureTotal>; 3],
    throttled_ns: Option<u64>,
}

/// First line of `/proc/stat`: ticks of all cores together.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Times {
    cores: u32,
    busy: u64,
    idle: u64,
    iowait: u64,
    steal: u64,
}

/// Totals of one file of `/proc/pressure`, µs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct PressureTotal {
    some: u64,
    full: u64,
}

impl Processors {
    /// As they are now; `now_ns` is the time on any clock that [`Processors::since`] is told too.
    pub fn now(now_ns: u64) -> Self {
        let read = |path: &str| fs::read_to_string(path).ok();
        Self {
            at_ns: now_ns,
            times: read("/proc/stat").and_then(|text| Times::parse(&text)),
            load_average_1m: read("/proc/loadavg").and_then(|text| text.split_whitespace().next()?.parse().ok()),
            pressure: ["cpu", "io", "memory"]
                .map(|what| read(&format!("/proc/pressure/{what}")).map(|text| PressureTotal::parse(&text))),
            throttled_ns: read("/proc/self/cgroup").and_then(|groups| throttled_ns(&groups)),
        }
    }

    /// What happened since `earlier`. `known_cpu_s` is what the generator, the server and its database used meanwhile, if all of it is
    /// known; `server_pid` is the server's process, if it is ours.
    pub fn since(&self, earlier: &Self, known_cpu_s: Option<f64>, server_pid: Option<u32>) -> Option<MachineUse> {
        let (then, now) = (earlier.times?, self.times?);
        let ticks = |read: fn(&Times) -> u64| read(&now).saturating_sub(read(&then)) as f64;
        let all = ticks(Times::all).max(1.0);
        let busy_s = ticks(|t| t.busy) / rustix::param::clock_ticks_per_second() as f64;
        let seconds = self.at_ns.saturating_sub(earlier.at_ns).max(1) as f64 / 1e9;
        let pressure = |i: usize| Some(self.pressure[i]?.since(earlier.pressure[i]?, seconds));
        Some(MachineUse {
            cores: now.cores,
            busy_share: ticks(|t| t.busy) / all,
            idle_share: ticks(|t| t.idle) / all,
            iowait_share: ticks(|t| t.iowait) / all,
            steal_share: ticks(|t| t.steal) / all,
            // Below zero only by the coarseness of ticks.
            other_cpu_s: known_cpu_s.map(|known| (busy_s - known).max(0.0)),
            load_average_1m: earlier.load_average_1m,
            pressure_cpu: pressure(0),
            pressure_io: pressure(1),
            pressure_memory: pressure(2),
            throttled_s: Some(self.throttled_ns?.saturating_sub(earlier.throttled_ns?) as f64 / 1e9),
            generator_cores: cores_of(None).unwrap_or_default(),
            server_cores: server_pid.and_then(|pid| cores_of(Some(pid))),
        })
    }
}

impl Times {
    fn parse(stat: &str) -> Option<Self> {
        let mut lines = stat.lines();
        let first = lines.next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = first.split_whitespace().map_while(|tick| tick.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; what follows (guests) is in user and nice already.
        let [user, nice, system, idle, iowait, irq, softirq, steal] = *ticks.get(..8)? else { return None };
        let cores = lines.filter(|line| line.starts_with("cpu")).count() as u32;
        Some(Self { cores, busy: user + nice + system + irq + softirq, idle, iowait, steal })
    }

    fn all(&self) -> u64 {
        self.busy + self.idle + self.iowait + self.steal
    }
}

impl PressureTotal {
    fn parse(text: &str) -> Self {
        let total = |kind: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
            line.split_whitespace().find_map(|word| word.strip_prefix("total=")?.parse().ok())
        };
        Self { some: total("some").unwrap_or(0), full: total("full").unwrap_or(0) }
    }

    fn since(self, earlier: Self, seconds: f64) -> Pressure {
        let share = |now: u64, then: u64| (now.saturating_sub(then) as f64 / 1e6 / seconds).min(1.0);
        Pressure { some_share: share(self.some, earlier.some), full_share: share(self.full, earlier.full) }
    }
}

/// Time that the control group of this process was kept from running by its quota, from the list in `/proc/self/cgroup`.
fn throttled_ns(groups: &str) -> Option<u64> {
    let (file, name, unit_ns) = throttling_counter(groups)?;
    let stat = fs::read_to_string(file).ok()?;
    let count: u64 = stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())?;
    Some(count * unit_ns)
}

/// Where that is counted, under which name and in which unit: version 1 where the controller `cpu` has a hierarchy of its own, else
/// version 2.
fn throttling_counter(groups: &str) -> Option<(String, &'static str, u64)> {
    let path_of = |wanted: fn(&str) -> bool| {
        groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            wanted(controllers).then_some(path)
        })
    };
    if let Some(path) = path_of(|controllers| controllers.split(',').any(|controller| controller == "cpu")) {
        return Some((format!("/sys/fs/cgroup/cpu{path}/cpu.stat"), "throttled_time ", 1));
    }
    Some((format!("/sys/fs/cgroup{}/cpu.stat", path_of(str::is_empty)?), "throttled_usec ", 1_000))
}

/// Cores that a process (its main thread), or the calling thread, may use.
#[cfg(target_os = "linux")]
pub fn cores_of(pid: Option<u32>) -> Option<Vec<u32>> {
    use rustix::thread::CpuSet;
    let pid = match pid {
        Some(pid) => Some(rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?),
        None => None,
    };
    let cores = rustix::thread::sched_getaffinity(pid).ok()?;
    Some((0..CpuSet::MAX_CPU).filter(|&core| cores.is_set(core)).map(|core| core as u32).collect())
}

/// Cores that a process, or the calling thread, may use: not known here.
#[cfg(not(target_os = "linux"))]
pub fn cores_of(_: Option<u32>) -> Option<Vec<u32>> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_are_not_counted_twice() {
        let times = Times::parse("cpu  100 20 30 400 50 6 7 8 90 1\ncpu0 1 2\ncpu1 1 2\nintr 1\n").expect("times");
        assert_eq!(times, Times { cores: 2, busy: 163, idle: 400, iowait: 50, steal: 8 });
        for text in ["", "cpu  1 2 3", "something else"] {
            assert_eq!(Times::parse(text), None, "{text:?}");
        }
    }

    fn processors(at_ns: u64, busy: u64, idle: u64, steal: u64, some: u64) -> Processors {
        Processors {
            at_ns,
            times: Some(Times { cores: 2, busy, idle, iowait: 0, steal }),
            load_average_1m: Some(1.5),
            pressure: [Some(PressureTotal { some, full: 0 }), None, None],
            throttled_ns: Some(7_000 + at_ns / 100),
        }
    }

    #[test]
    fn shares_are_of_the_span_and_what_nobody_is_known_to_have_used_is_others() {
        let ticks = rustix::param::clock_ticks_per_second();
        let (before, after) = (
            processors(0, 1_000, 5_000, 10, 7),
            processors(10_000_000_000, 1_000 + 12 * ticks, 5_000 + 6 * ticks, 10 + 2 * ticks, 2_000_007),
        );
        let used = after.since(&before, Some(9.0), None).expect("times");
        let about = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
        about(used.busy_share, 0.6);
        about(used.idle_share, 0.3);
        about(used.steal_share, 0.1);
        about(used.other_cpu_s.expect("others"), 3.0);
        about(used.pressure_cpu.expect("pressure").some_share, 0.2);
        about(used.throttled_s.expect("throttled"), 0.1);
        assert_eq!((used.pressure_io, used.server_cores), (None, None));
        assert_eq!(after.since(&before, None, None).expect("times").other_cpu_s, None);
        assert_eq!(after.since(&before, Some(99.0), None).expect("times").other_cpu_s, Some(0.0));
    }

    #[test]
    fn pressure_is_read_from_its_totals() {
        let text = "some avg10=0.00 avg60=0.23 total=94916580\nfull avg10=0.00 total=63900772\n";
        assert_eq!(PressureTotal::parse(text), PressureTotal { some: 94_916_580, full: 63_900_772 });
        assert_eq!(PressureTotal::parse("something else"), PressureTotal::default());
    }

    #[test]
    fn throttling_is_counted_where_the_control_group_of_the_processor_is() {
        for (groups, expected) in [
            ("0::/user.slice/a:b\n", Some(("/sys/fs/cgroup/user.slice/a:b/cpu.stat", "throttled_usec ", 1_000))),
            ("9:cpuset:/x\n2:cpu,cpuacct:/y\n0::/z\n", Some(("/sys/fs/cgroup/cpu/y/cpu.stat", "throttled_time ", 1))),
            ("2:cpuacct:/y\n", None),
            ("", None),
        ] {
            let found = throttling_counter(groups);
            assert_eq!(found.as_ref().map(|(file, name, unit)| (file.as_str(), *name, *unit)), expected, "{groups:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_tells_its_times_and_the_cores_of_a_process() {
        let earlier = Processors::now(0);
        let used = Processors::now(1).since(&earlier, None, Some(std::process::id())).expect("times");
        assert!(used.cores >= 1 && !used.generator_cores.is_empty());
        assert_eq!(used.cores_shared(), Some(used.generator_cores.len()));
        assert_eq!(cores_of(Some(u32::MAX)), None);
    }
}
