//! What the generator says of itself and of its machine, in real runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{acknowledge, answer, begin, run, target};
use reports::model::{CaveatKind, Health, Outcome, SENDING_THREAD};
use rustix::process::{Pid, Signal, kill_process};

fn health(done: &crate::support::Done) -> &Health {
    done.run.results[0].health.as_ref().expect("somebody watched")
}

#[test]
fn the_result_says_how_the_generator_and_its_machine_fared() {
    let done = run(&["--mode", "null"]);
    let (result, health) = (&done.run.results[0], health(&done));
    let thread = |name: &str| {
        let found = health.threads.iter().find(|thread| thread.name == name);
        found.unwrap_or_else(|| panic!("no {name} among {:?}", health.threads))
    };
    let sender = thread(SENDING_THREAD);
    assert!(sender.cpu_s.is_some_and(|s| s > 0.0) && sender.seconds <= health.seconds, "{sender:?}");
    assert!(sender.switches_voluntary.is_some_and(|n| n > 0), "{sender:?}");
    assert_eq!(result.resources.generator_run_queue_delay_ns, sender.run_queue_delay_ns);
    thread("recorder");

    let hiccups = health.hiccups.as_ref().expect("meters");
    assert!(hiccups.late.count > 0 && !hiccups.cores.is_empty(), "{hiccups:?}");
    for core in &hiccups.cores {
        thread(&format!("hiccup {core}"));
    }
    let standstill = hiccups.standstill.as_ref().expect("causes");
    assert!(standstill.count == hiccups.late.count && standstill.max_ns <= hiccups.late.max_ns);

    let machine = health.machine.as_ref().expect("a machine that tells");
    let shares = machine.busy_share + machine.idle_share + machine.iowait_share + machine.steal_share;
    assert!((shares - 1.0).abs() < 1e-6 && machine.busy_share > 0.0, "{machine:?}");
    assert!(machine.other_cpu_s.is_some(), "generator and server are ours, so the rest is known");
    assert_eq!(machine.cores_shared(), Some(machine.generator_cores.len()), "nobody pinned either");
    assert!(done.text.contains("generator at worst: late at p99"), "{}", done.text);
}

#[test]
fn what_a_strange_server_brings_along_is_not_called_other_processes() {
    let number = AtomicU64::new(1);
    let address = target(move |request, stream| match () {
        () if request.is_event() => acknowledge(stream, number.fetch_add(1, Ordering::Relaxed)),
        // Its own CPU time is known, that of its database is not.
        () if request.line.starts_with("GET /metrics ") => answer(stream, 200, "process_cpu_seconds_total 1.5\n"),
        () => answer(stream, 404, "{}"),
    });
    let done = run(&["--target", &format!("http://{address}"), "--api-key", "k", "--no-ledger"]);
    assert_eq!(done.run.results[0].resources.server_cpu_s, Some(0.0), "its metrics are read");
    let machine = health(&done).machine.as_ref().expect("a machine that tells");
    assert_eq!((machine.other_cpu_s, machine.server_cores.as_deref()), (None, None));
}

/// Stops the generator for 300 ms in the middle of its load, as a hypervisor does.
#[test]
fn a_generator_that_stood_still_knows_when_and_condemns_the_run() {
    const STOPPED: Duration = Duration::from_millis(300);
    let generator = Arc::new(AtomicU32::new(0));
    let (known, number) = (Arc::clone(&generator), AtomicU64::new(1));
    let address = target(move |request, stream| {
        if !request.is_event() {
            return answer(stream, 404, "{}");
        }
        let number = number.fetch_add(1, Ordering::Relaxed);
        if number == 200 {
            let id = Pid::from_raw(known.load(Ordering::Relaxed) as i32).expect("the generator runs");
            kill_process(id, Signal::STOP).expect("it may be stopped");
            thread::sleep(STOPPED);
            kill_process(id, Signal::CONT).expect("it may go on");
        }
        acknowledge(stream, number)
    });
    let url = format!("http://{address}");
    // Connections for all that is late, or the late events wait for one another and seem to wait for the target.
    let arguments = ["--target", &url, "--api-key", "k", "--no-ledger", "--duration", "3s", "--connections", "96"];
    let running = begin(&arguments);
    generator.store(running.id(), Ordering::Relaxed);
    let done = running.end();
    let hiccups = health(&done).hiccups.as_ref().expect("meters");
    let longest = hiccups.stalls.iter().map(|stall| stall.length_ns - stall.waited_ns.unwrap_or(0)).max();
    // A meter that was about to be woken sees nearly all of it.
    assert!(longest.is_some_and(|ns| ns > STOPPED.as_nanos() as u64 / 2), "{:?}\n{}", hiccups.stalls, done.text);
    assert_eq!(done.run.verdict.outcome, Outcome::Invalid, "{}", done.text);
    assert!(done.run.caveats.iter().any(|caveat| caveat.kind == CaveatKind::GeneratorSaturated), "{}", done.text);
}
