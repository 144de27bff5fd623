//! How soon a thread gets a processor that others want too.

use std::io;
use std::thread;

/// Gives the calling thread this niceness, -20 (goes first) to 19.
///
/// # Errors
/// Below what it has without the right to it, or where a thread has no niceness of its own.
pub fn take(nice: i32) -> io::Result<()> {
    imp::take(nice)
}

/// Whether [`take`] would work, found out on a thread that ends at once.
///
/// # Errors
/// Those of [`take`].
pub fn try_out(nice: i32) -> io::Result<()> {
    let tried = thread::Builder::new().spawn(move || take(nice))?;
    tried.join().unwrap_or_else(|_| Err(io::Error::other("the thread that tried it panicked")))
}

#[cfg(target_os = "linux")]
mod imp {
    use std::io;

    pub fn take(nice: i32) -> io::Result<()> {
        // On Linux the niceness is the thread's, and `None` the calling one.
        Ok(rustix::process::setpriority_process(None, nice)?)
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::io;

    pub fn take(_: i32) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "here a niceness is that of a whole process"))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_niceness_is_that_of_one_thread() {
        let of_this = || rustix::process::getpriority_process(None).expect("a niceness");
        let before = of_this();
        let taken = thread::spawn(move || take(before + 1).map(|()| of_this()));
        assert_eq!(taken.join().expect("no panic").expect("anybody may go later"), before + 1);
        try_out(before + 1).expect("anybody may go later");
        assert_eq!(of_this(), before);
    }
}
