//! Burning processor time on the thread that answers.

use std::cell::Cell;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::spec::Cpu;

thread_local! {
    /// Processor time of this thread when it burnt the last time.
    static LAST: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Burns as much as asked for: processor time, so that a thread that has to wait for its processor burns no less.
pub fn burn(cpu: Cpu) {
    let begin = thread_cpu();
    let burn = match cpu {
        Cpu::Time(time) => time,
        // All that the thread did since the last request counts: reading, writing, waking up. The first one has nothing before it.
        Cpu::Share(share) => begin.saturating_sub(LAST.get().unwrap_or(begin)).mul_f64(share),
    };
    while thread_cpu() - begin < burn {
        std::hint::spin_loop();
    }
    LAST.set(Some(thread_cpu()));
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_the_time_or_the_share_asked_for_is_burnt() {
        let begin = thread_cpu();
        burn(Cpu::Time(Duration::from_millis(3)));
        assert!(thread_cpu() - begin >= Duration::from_millis(3));

        let used = thread_cpu();
        while thread_cpu() - used < Duration::from_millis(4) {}
        let begin = thread_cpu();
        burn(Cpu::Share(0.5));
        assert!(thread_cpu() - begin >= Duration::from_millis(2), "half of the 4 ms before");
    }
}
