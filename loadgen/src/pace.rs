//! Waiting for an intended time, finer than tokio's 1 ms timer, without burning a core.
//!
//! On Linux: sleep on a timerfd (high-resolution timer, in the same epoll as the sockets) until shortly before the time, then spin by
//! yielding, so that answers that come in meanwhile are still read. Elsewhere: tokio's timer until 2 ms before, then spin; the
//! result names which of the two it was ([`Pacer::DESCRIPTION`]).

use std::io;

use tokio::task::yield_now;

use crate::clock::Clock;

/// Waits for times of a [`Clock`]. Lives on the sending thread.
#[derive(Debug)]
pub struct Pacer {
    clock: Clock,
    timer: imp::Timer,
}

impl Pacer {
    /// How this build waits, for the result.
    pub const DESCRIPTION: &'static str = imp::DESCRIPTION;

    /// Needs a running tokio runtime with I/O enabled.
    pub fn new(clock: Clock) -> io::Result<Self> {
        Ok(Self { clock, timer: imp::Timer::new()? })
    }

    /// Returns at `at_ns` or as soon after it as the machine lets this thread run, never before.
    pub async fn until(&self, at_ns: u64) -> io::Result<()> {
        loop {
            let left_ns = at_ns.saturating_sub(self.clock.now_ns());
            if left_ns == 0 {
                return Ok(());
            }
            match left_ns.checked_sub(imp::SPIN_NS) {
                Some(sleep_ns) if sleep_ns > 0 => self.timer.sleep(sleep_ns).await?,
                _ => yield_now().await,
            }
        }
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use std::io;
    use std::os::fd::OwnedFd;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    pub const DESCRIPTION: &str = "timerfd, then spin for the last 100 µs";

    /// Begin of the spin before the intended time. A timer of a virtual machine wakes some 50–100 µs late (halted core, interrupt
    /// through the host); spinning longer costs CPU that the server on the same cores would miss.
    pub const SPIN_NS: u64 = 100_000;

    #[derive(Debug)]
    pub struct Timer(AsyncFd<OwnedFd>);

    impl Timer {
        pub fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            // SAFETY: the AsyncFd owns the descriptor, which is open and which nothing else closes while it is registered.
            #[allow(
                unsafe_code,
                reason = "tokio has no safe way to register a descriptor; see its documentation of AsyncFd"
            )]
            let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?;
            Ok(Self(timer))
        }

        pub async fn sleep(&self, sleep_ns: u64) -> io::Result<()> {
            let once = Itimerspec {
                it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
                it_value: Timespec {
                    tv_sec: (sleep_ns / 1_000_000_000) as i64,
                    tv_nsec: (sleep_ns % 1_000_000_000) as i64,
                },
            };
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
            loop {
                let mut ready = self.0.readable().await?;
                let mut expirations = [0; 8];
                // WouldBlock: readiness left over from an earlier timer.
                if ready.try_io(|fd| rustix::io::read(fd, &mut expirations).map_err(Into::into)).is_ok() {
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::io;
    use std::time::Duration;

    pub const DESCRIPTION: &str = "tokio timer, then spin for the last 2 ms";

    /// tokio's timer is 1 ms coarse and rounds up.
    pub const SPIN_NS: u64 = 2_000_000;

    #[derive(Debug)]
    pub struct Timer;

    impl Timer {
        pub fn new() -> io::Result<Self> {
            Ok(Self)
        }

        pub async fn sleep(&self, sleep_ns: u64) -> io::Result<()> {
            tokio::time::sleep(Duration::from_nanos(sleep_ns)).await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn never_returns_before_the_time() {
        let clock = Clock::start();
        let pacer = Pacer::new(clock).expect("a timer");
        for wait_ns in [0, 1, 20_000, 150_000, 3_000_000] {
            let at_ns = clock.now_ns() + wait_ns;
            pacer.until(at_ns).await.expect("the wait");
            assert!(clock.now_ns() >= at_ns);
        }
    }

    #[tokio::test]
    async fn other_tasks_run_while_it_waits() {
        let clock = Clock::start();
        let pacer = Pacer::new(clock).expect("a timer");
        let other = tokio::spawn(async { 7 });
        pacer.until(clock.now_ns() + 50_000).await.expect("the wait");
        assert!(other.is_finished(), "the spin must yield to tasks that are ready");
    }
}
