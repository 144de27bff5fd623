//! What the numbers were measured on: read once, from what the system says of itself; unknown is said, not guessed.

use std::fs;
use std::path::Path;

use reports::model::Environment;

use crate::pace::{self, Pacing};

/// The environment of a run against a target on this host or another, whose data are under `data` when that is known.
pub fn environment(same_host: bool, data: Option<&Path>, pacing: Pacing) -> Environment {
    let kernel = rustix::system::uname();
    Environment {
        os: os_name().unwrap_or_else(|| kernel.sysname().to_string_lossy().into_owned()),
        kernel: kernel.release().to_string_lossy().into_owned(),
        cpu_model: value("/proc/cpuinfo", "model name", ':').unwrap_or_else(|| "unknown".to_owned()),
        cores: std::thread::available_parallelism().map_or(0, |cores| cores.get() as u32),
        memory_bytes: memory_bytes().unwrap_or(0),
        cpu_governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        virtualization: virtualization(),
        same_host,
        data_filesystem: data.and_then(filesystem),
        pacing: pace::description(pacing),
    }
}

fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn value(path: &str, key: &str, separator: char) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let (_, value) =
        text.lines().filter_map(|line| line.split_once(separator)).find(|(found, _)| found.trim() == key)?;
    Some(value.trim().trim_matches('"').to_owned())
}

fn os_name() -> Option<String> {
    value("/etc/os-release", "PRETTY_NAME", '=')
}

fn memory_bytes() -> Option<u64> {
    let kib: u64 = value("/proc/meminfo", "MemTotal", ':')?.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// The vendor that the firmware names, or that there is some hypervisor at all.
fn virtualization() -> Option<String> {
    let flags = value("/proc/cpuinfo", "flags", ':')?;
    let virtual_machine = flags.split_whitespace().any(|flag| flag == "hypervisor");
    virtual_machine
        .then(|| line("/sys/class/dmi/id/sys_vendor").unwrap_or_else(|| "hypervisor of unknown kind".to_owned()))
}

/// Type of the filesystem that holds `path`: the longest mount point that is a prefix of it.
pub fn filesystem(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let holding = fields.filter(|fields| fields.len() > 2 && path.starts_with(fields[1]));
    holding.max_by_key(|fields| fields[1].len()).map(|fields| fields[2].to_owned())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cores_memory_and_a_filesystem() {
        let environment = environment(true, Some(Path::new("/proc/self")), Pacing::Hybrid);
        assert!(environment.cores >= 1 && environment.memory_bytes > 0);
        assert_eq!(environment.data_filesystem.as_deref(), Some("proc"));
    }
}
