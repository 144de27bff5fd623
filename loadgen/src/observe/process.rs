//! CPU time and memory of processes, from their CPU clocks and `/proc`. Elsewhere than on Linux everything is `None`.

use std::fs;

/// What one process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUsage {
    /// User and system time of all its threads, s.
    pub cpu_s: Option<f64>,
    /// Largest resident memory so far, bytes.
    pub rss_peak_bytes: Option<u64>,
}

impl ProcessUsage {
    /// Of process `pid`.
    pub fn of(pid: u32) -> Self {
        Self { cpu_s: cpu_s(pid), rss_peak_bytes: rss_peak_bytes(&format!("/proc/{pid}/status")) }
    }

    /// Of processes and all their descendants, also of those that have ended if somebody waited for them. Memory is the sum of what
    /// each had at most: what they share counts for each.
    pub fn of_trees(roots: &[u32]) -> Self {
        let mut all = Self::default();
        for pid in with_descendants(roots) {
            // cutime and cstime are fields 16 and 17 of proc(5): what children used that are gone.
            let of_children_s = ticks_s(&format!("/proc/{pid}/stat"), 13..15);
            all.cpu_s = sum(all.cpu_s, sum(cpu_s(pid), of_children_s));
            all.rss_peak_bytes = sum(all.rss_peak_bytes, rss_peak_bytes(&format!("/proc/{pid}/status")));
        }
        all
    }

    /// Of this process.
    pub fn own() -> Self {
        Self::of(std::process::id())
    }
}

/// What processes have used so far and hold now: a file a process, so that it can be read while something is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessState {
    /// User and system time of all their threads, s.
    pub cpu_s: Option<f64>,
    /// Resident memory now, bytes; what they share counts for each.
    pub rss_bytes: Option<u64>,
}

impl ProcessState {
    /// Of these processes without their descendants; those that are gone count nothing.
    pub fn of(pids: &[u32]) -> Self {
        pids.iter().map(|&pid| Self::read(pid)).fold(Self::default(), |all, one| Self {
            cpu_s: sum(all.cpu_s, one.cpu_s),
            rss_bytes: sum(all.rss_bytes, one.rss_bytes),
        })
    }

    /// Of this process.
    pub fn own() -> Self {
        Self::read(std::process::id())
    }

    /// The resident pages are field 24 of proc(5), the 22nd after the command.
    fn read(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let page_bytes = rustix::param::page_size() as u64;
        let pages = numbers(&stat).and_then(|mut numbers| numbers.nth(21)?.parse::<u64>().ok());
        Self { cpu_s: cpu_s(pid), rss_bytes: pages.map(|pages| pages * page_bytes) }
    }
}

/// Sum of the CPU time of several processes, s; those that are gone count nothing.
pub fn cpu_s_of_all(pids: &[u32]) -> f64 {
    pids.iter().filter_map(|&pid| ProcessUsage::of(pid).cpu_s).sum()
}

/// These processes and what they started, as far as it runs now.
pub fn with_descendants(roots: &[u32]) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut all: Vec<u32> = roots.iter().copied().filter(|root| parents.iter().any(|(pid, _)| pid == root)).collect();
    let mut next = 0;
    while let Some(&parent) = all.get(next) {
        let children = parents.iter().filter(|(pid, of)| *of == parent && !all.contains(pid)).map(|(pid, _)| *pid);
        let children: Vec<u32> = children.collect();
        all.extend(children);
        next += 1;
    }
    all
}

/// Whether any process is in the group of this number.
pub fn is_group(group: u32) -> bool {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.any(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        numbers(&stat).and_then(|mut numbers| numbers.nth(2)) == Some(group.to_string().as_str())
    })
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    numbers(&stat)?.nth(1)?.parse().ok()
}

fn sum<T: std::ops::Add<Output = T>>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

/// User and system time of all threads of a process, those that have ended included, by its CPU clock (clock_getcpuclockid(3)): in nanoseconds.
/// proc(5) tells whole ticks of 10 ms, which is 8 % of what a server uses in half a second.
#[cfg(target_os = "linux")]
fn cpu_s(pid: u32) -> Option<f64> {
    let clock = nix::time::clock_getcpuclockid(nix::unistd::Pid::from_raw(i32::try_from(pid).ok()?)).ok()?;
    let used = nix::time::clock_gettime(clock).ok()?;
    Some(used.tv_sec() as f64 + used.tv_nsec() as f64 / 1e9)
}

#[cfg(not(target_os = "linux"))]
fn cpu_s(_pid: u32) -> Option<f64> {
    None
}

/// The sum of these fields, counted from the one after the command.
fn ticks_s(path: &str, fields: std::ops::Range<usize>) -> Option<f64> {
    let stat = fs::read_to_string(path).ok()?;
    let ticks = numbers(&stat)?.skip(fields.start).take(fields.len()).map(str::parse::<f64>);
    Some(ticks.sum::<Result<f64, _>>().ok()? / rustix::param::clock_ticks_per_second() as f64)
}

/// What comes after the command, which may hold spaces and parentheses.
fn numbers(stat: &str) -> Option<std::str::SplitWhitespace<'_>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace())
}

fn rss_peak_bytes(path: &str) -> Option<u64> {
    field(path, "VmHWM:").map(|kib| kib * 1024)
}

fn field(path: &str, name: &str) -> Option<u64> {
    let status = fs::read_to_string(path).ok()?;
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_grows_with_two_milliseconds_of_work_and_memory_is_there() {
        let before = ProcessUsage::own();
        let begin = std::time::Instant::now();
        let mut work = 0u64;
        while begin.elapsed().as_millis() < 2 {
            work = work.wrapping_mul(31).wrapping_add(1);
        }
        std::hint::black_box(work);
        let after = ProcessUsage::of(std::process::id());
        assert!(after.cpu_s > before.cpu_s, "{before:?} {after:?}");
        assert!(after.rss_peak_bytes > Some(100_000));
    }

    #[test]
    fn what_a_process_holds_now_is_of_the_size_of_what_it_held_at_most() {
        let (now, peak) = (ProcessState::own(), ProcessUsage::own());
        let twice = peak.rss_peak_bytes.map(|bytes| 2 * bytes);
        assert!(now.rss_bytes > Some(100_000) && now.rss_bytes < twice, "{now:?} {peak:?}");
        assert!(now.cpu_s.is_some());
        assert_eq!(ProcessState::of(&[u32::MAX]), ProcessState::default());
    }

    #[test]
    fn a_process_that_is_gone_has_no_numbers() {
        assert_eq!(ProcessUsage::of(u32::MAX), ProcessUsage::default());
        assert_eq!(cpu_s_of_all(&[u32::MAX]), 0.0);
        assert_eq!(ProcessUsage::of_trees(&[u32::MAX]), ProcessUsage::default());
    }

    #[test]
    fn what_children_and_their_children_use_counts_also_when_they_are_gone() {
        use std::io::{BufRead, BufReader, Write};
        use std::process::{Command, Stdio};
        // A shell that waits for a grandchild that works, says so, and stays.
        let work =
            "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; echo done; sleep 600 & read line; kill $!";
        let shell = Command::new("sh").args(["-c", work]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut shell = shell.expect("a shell");
        let mut line = String::new();
        BufReader::new(shell.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let usage = ProcessUsage::of_trees(&[shell.id()]);
        let own = ProcessUsage::of(shell.id());
        // The `sleep` may not have been started yet.
        let begin = std::time::Instant::now();
        while with_descendants(&[shell.id()]).len() < 2 && begin.elapsed().as_secs() < 10 {
            std::thread::yield_now();
        }
        let family = with_descendants(&[shell.id()]);
        shell.stdin.take().expect("piped").write_all(b"\n").expect("a line");
        shell.wait().expect("it ends");
        assert!(usage.cpu_s > own.cpu_s.map(|own| own + 0.01), "{usage:?} {own:?}");
        assert!(usage.rss_peak_bytes >= own.rss_peak_bytes);
        assert_eq!((family.len(), family[0]), (2, shell.id()), "{family:?}");
    }
}
