//! Floor 0 of the map: how soon a thread gets a processor that others want too.
//!
//! Within the usual class a niceness says how large a thread's share is. A scheduler that is fair lets a thread that has just been woken wait
//! all the same until the one before it has had its turn, which is a millisecond or three: on processors that are shared with a database, or
//! with the generator of a measurement, that is most of the response time of the slowest percent. So threads that work for microseconds and
//! then wait can be given a class of their own, in which they wait only for each other: `SCHED_RR` of
//! [sched(7)](https://man7.org/linux/man-pages/man7/sched.7.html). Linux keeps 5 % of the time for all others (`sched_rt_runtime_us`, or its
//! successor, the fair server).

use std::io;
use std::thread;

/// Gives the calling thread this niceness: below 0 it goes before others, down to -20; above, up to 19, after them.
///
/// # Errors
/// Below what it has without the right to it, or where a thread has no niceness of its own.
pub fn renice(nice: i32) -> io::Result<()> {
    imp::renice(nice)
}

/// [`renice`] to 0 or more, which anybody may: where it is refused all the same, the thread is only less polite.
pub fn go_later(nice: i32) {
    let _ = renice(nice);
}

/// How urgent a thread is among those that go before all others, 1 (least) to 99.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Urgency {
    /// Answers requests.
    Answering = 1,
    /// Writes the journal, on which answers wait.
    Journal = 2,
    /// Sends load by a schedule. It comes first, or what is measured would hang on what does the measuring.
    Sending = 3,
}

/// Puts the calling thread into the class that goes before all others. Threads that it starts later are not in it.
///
/// # Errors
/// Without the right to it (root, `CAP_SYS_NICE`, or `RLIMIT_RTPRIO` of at least the urgency), or where there is no such class.
pub fn take(urgency: Urgency) -> io::Result<()> {
    imp::take(i32::from(urgency as u8))
}

/// [`take`], where [`try_out`] has said that it works: should it not, the thread is only later than it could be.
pub fn take_or_log(urgency: Urgency) {
    if let Err(error) = take(urgency) {
        tracing::warn!(%error, ?urgency, "a thread cannot go before others");
    }
}

/// Whether a thread would be given what `take` asks for ([`take()`], [`renice`]), found out on one that ends at once.
///
/// # Errors
/// Those of `take`.
pub fn try_out(take: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    let tried = thread::Builder::new().spawn(take)?;
    tried.join().unwrap_or_else(|_| Err(io::Error::other("the thread that tried it panicked")))
}

#[cfg(target_os = "linux")]
mod imp {
    use std::io;

    pub fn renice(nice: i32) -> io::Result<()> {
        // On Linux the niceness is the thread's, and `None` the calling one.
        Ok(rustix::process::setpriority_process(None, nice)?)
    }

    #[allow(unsafe_code, reason = "no crate has a safe form that keeps new threads out of the class")]
    pub fn take(priority: i32) -> io::Result<()> {
        let parameter = libc::sched_param { sched_priority: priority };
        // SAFETY: the parameter outlives the call, which only reads it; 0 is the calling thread.
        match unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const parameter) } {
            0 => usual_disk_class(),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Takes the calling thread out of the disk's own class of such threads, into which the class for processors has brought it (ioprio_set(2)).
    ///
    /// A disk scheduler that knows classes (mq-deadline) leaves the others' requests lying while this one has any. Two files can share a block
    /// that both syncs have to write, so that the journal waits for a request that waits for it: 4 to 8 ms, several times a second.
    #[allow(unsafe_code, reason = "no crate has this call")]
    fn usual_disk_class() -> io::Result<()> {
        const WHO_PROCESS: libc::c_long = 1;
        const BEST_EFFORT: libc::c_long = 2 << 13;
        const MIDDLE: libc::c_long = 4;
        // SAFETY: it takes three numbers; 0 is the calling thread.
        match unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0 as libc::c_long, BEST_EFFORT | MIDDLE) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::io;

    pub fn renice(_: i32) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "here a niceness is that of a whole process"))
    }

    pub fn take(_: i32) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no such class"))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Class and priority of the calling thread; of proc_pid_stat(5) the fields 41 and 40.
    fn class_and_priority() -> (u32, u32) {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux");
        let behind_the_name: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        let field = |number: usize| behind_the_name[number - 3].parse().expect("a number");
        (field(41), field(40))
    }

    #[test]
    fn a_thread_is_in_the_class_alone_and_its_children_are_not_or_the_system_says_why() {
        const ROUND_ROBIN: u32 = 2;
        let before = class_and_priority();
        let taken = thread::spawn(|| {
            take(Urgency::Journal)?;
            Ok::<_, io::Error>((class_and_priority(), thread::spawn(class_and_priority).join().expect("no panic")))
        });
        match taken.join().expect("no panic") {
            Ok((own, of_child)) => assert_eq!((own, of_child), ((ROUND_ROBIN, 2), before)),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
        assert_eq!(class_and_priority(), before);
    }

    /// Of the calling thread, by ioprio_get(2).
    #[allow(unsafe_code, reason = "no crate has this call")]
    fn disk_class() -> libc::c_long {
        const WHO_PROCESS: libc::c_long = 1;
        // SAFETY: it takes two numbers; 0 is the calling thread.
        let priority = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0 as libc::c_long) };
        priority >> 13
    }

    #[test]
    fn at_the_disk_a_thread_of_the_class_stays_among_the_others() {
        const BEST_EFFORT: libc::c_long = 2;
        match thread::spawn(|| take(Urgency::Journal).map(|()| disk_class())).join().expect("no panic") {
            Ok(class) => assert_eq!(class, BEST_EFFORT),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
    }

    #[test]
    fn a_niceness_is_that_of_one_thread() {
        let of_this = || rustix::process::getpriority_process(None).expect("a niceness");
        let before = of_this();
        let taken = thread::spawn(move || {
            go_later(before + 1);
            of_this()
        });
        assert_eq!(taken.join().expect("no panic"), before + 1);
        try_out(move || renice(before + 1)).expect("anybody may go later");
        assert_eq!(of_this(), before);
    }
}
