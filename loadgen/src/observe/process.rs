//! CPU time and memory of processes, from `/proc`. Elsewhere than on Linux everything is `None`.

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
        Self {
            cpu_s: cpu_s(&format!("/proc/{pid}/stat")),
            rss_peak_bytes: rss_peak_bytes(&format!("/proc/{pid}/status")),
        }
    }

    /// Of this process.
    pub fn own() -> Self {
        Self { cpu_s: cpu_s("/proc/self/stat"), rss_peak_bytes: rss_peak_bytes("/proc/self/status") }
    }
}

/// Sum of the CPU time of several processes, s; those that are gone count nothing.
pub fn cpu_s_of_all(pids: &[u32]) -> f64 {
    pids.iter().filter_map(|&pid| ProcessUsage::of(pid).cpu_s).sum()
}

fn cpu_s(path: &str) -> Option<f64> {
    let stat = fs::read_to_string(path).ok()?;
    // The command may hold spaces and parentheses; the numbers begin after the last one. utime and stime are fields 14 and 15 of
    // proc(5), the 12th and 13th after the command.
    let mut numbers = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = numbers.next()?.parse::<f64>().ok()? + numbers.next()?.parse::<f64>().ok()?;
    Some(ticks / rustix::param::clock_ticks_per_second() as f64)
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
    fn cpu_time_grows_with_work_and_memory_is_there() {
        let before = ProcessUsage::own();
        let begin = std::time::Instant::now();
        let mut work = 0u64;
        while begin.elapsed().as_millis() < 50 {
            work = work.wrapping_mul(31).wrapping_add(1);
        }
        std::hint::black_box(work);
        let after = ProcessUsage::of(std::process::id());
        assert!(after.cpu_s > before.cpu_s, "{before:?} {after:?}");
        assert!(after.rss_peak_bytes > Some(100_000));
    }

    #[test]
    fn a_process_that_is_gone_has_no_numbers() {
        assert_eq!(ProcessUsage::of(u32::MAX), ProcessUsage::default());
        assert_eq!(cpu_s_of_all(&[u32::MAX]), 0.0);
    }
}
