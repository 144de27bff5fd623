//! Burning processor time on the thread that answers.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::spec::Cpu;

thread_local! {
    /// Processor time of this thread when it burnt the last time.
    static LAST: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// What one look at the clock costs: a system call, and so a good part of the few microseconds that a fault may ask for.
static LOOK: LazyLock<Duration> = LazyLock::new(|| {
    const LOOKS: u32 = 64;
    let of_many = |_| {
        let begin = thread_cpu();
        for _ in 0..LOOKS {
            std::hint::black_box(thread_cpu());
        }
        (thread_cpu() - begin) / (LOOKS + 1)
    };
    // The least disturbed of several.
    (0..8).map(of_many).min().unwrap_or_default()
});

/// Burns as much as asked for: processor time, so that a thread that has to wait for its processor burns no less. Right on average to
/// within a fraction of a microsecond; less than two looks at the clock (some 0.5 to 1 us in all) cannot be burnt.
pub fn burn(cpu: Cpu) {
    let look = *LOOK;
    let begin = thread_cpu();
    let burn = match cpu {
        Cpu::Time(time) => time,
        // All that the thread did since the last request counts: reading, writing, waking up. The first one has nothing before it.
        Cpu::Share(share) => begin.saturating_sub(LAST.get().unwrap_or(begin)).mul_f64(share),
    };
    // Not seen from begin to end: half a look on either side. And the end is passed by half a look on average.
    let seen = burn.saturating_sub(look * 3 / 2);
    let mut now = thread_cpu();
    while now - begin < seen {
        std::hint::spin_loop();
        now = thread_cpu();
    }
    LAST.set(Some(now));
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

    #[test]
    fn small_doses_are_no_more_and_no_less_than_asked_for() {
        const BURNS: u32 = 200;
        for dose in [Duration::from_micros(5), Duration::from_micros(20)] {
            let of_many = |_| {
                let begin = thread_cpu();
                (0..BURNS).for_each(|_| burn(Cpu::Time(dose)));
                (thread_cpu() - begin) / BURNS
            };
            // Whatever interrupts a thread can be on its account: the least disturbed of several.
            let burnt = (0..20).map(of_many).min().expect("several");
            assert!(burnt >= dose.mul_f64(0.8) && burnt <= dose.mul_f64(1.2), "{burnt:?} in place of {dose:?}");
        }
    }
}
