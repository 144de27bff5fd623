//! Readiness of sockets and waiting for a time, in one system call and finer than a millisecond.
//!
//! On Linux epoll, edge-triggered, so that a connection is registered once and never again, and waited for with `epoll_pwait2`, whose
//! limit is in nanoseconds. Elsewhere mio, whose limit is as fine as the system's own call. A runtime is not used: its timer is 1 ms
//! coarse, and a task and a wake-up for each request were a third of the cost of a request.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// What a socket may be used for now; one that was closed or broke is both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The number the socket was added with.
    pub token: u64,
    /// There may be bytes, or the end.
    pub readable: bool,
    /// Bytes may be written; for a new connection: the attempt has ended.
    pub writable: bool,
    /// The other side will send no more: what is left to read ends with the end of the stream.
    pub ending: bool,
}

/// See the module. Belongs to one thread.
#[derive(Debug)]
pub struct Poller(imp::Poller);

impl Poller {
    /// The call that waits.
    pub const DESCRIPTION: &'static str = imp::DESCRIPTION;

    /// With nothing to watch. Lowers the calling thread's timer slack, which is 50 µs by default on Linux.
    pub fn new() -> io::Result<Self> {
        imp::Poller::new().map(Self)
    }

    /// Watches a non-blocking socket until it is closed; tells of each change once.
    pub fn add(&self, socket: &impl AsFd, token: u64) -> io::Result<()> {
        self.0.add(socket, token)
    }

    /// Puts what has become ready into `ready` (in place of what was there); waits for it at most `limit`, or for ever.
    pub fn wait(&mut self, limit: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        match self.0.wait(limit, ready) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            waited => waited,
        }
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use std::io;
    use std::num::NonZeroU64;
    use std::os::fd::{AsFd, OwnedFd};
    use std::time::Duration;

    use rustix::buffer::spare_capacity;
    use rustix::event::{Timespec, epoll};
    use rustix::thread::set_current_timer_slack;

    use super::Ready;

    pub const DESCRIPTION: &str = "epoll_pwait2";

    /// Changes taken with one call.
    const EVENTS_MAX: usize = 256;

    pub struct Poller {
        epoll: OwnedFd,
        events: Vec<epoll::Event>,
    }

    impl std::fmt::Debug for Poller {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_tuple("Poller").field(&self.epoll).finish()
        }
    }

    impl Poller {
        pub fn new() -> io::Result<Self> {
            set_current_timer_slack(NonZeroU64::new(1))?;
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            Ok(Self { epoll, events: Vec::with_capacity(EVENTS_MAX) })
        }

        pub fn add(&self, socket: &impl AsFd, token: u64) -> io::Result<()> {
            use epoll::EventFlags as On;
            let on = On::IN | On::OUT | On::RDHUP | On::ET;
            Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token), on)?)
        }

        pub fn wait(&mut self, limit: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
            use epoll::EventFlags as On;
            let limit = limit
                .map(|limit| Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) });
            epoll::wait(&self.epoll, spare_capacity(&mut self.events), limit.as_ref())?;
            ready.extend(self.events.drain(..).map(|event| {
                let (flags, broken) = (event.flags, On::HUP | On::ERR);
                Ready {
                    token: event.data.u64(),
                    readable: flags.intersects(On::IN | On::RDHUP | broken),
                    writable: flags.intersects(On::OUT | broken),
                    ending: flags.intersects(On::RDHUP | broken),
                }
            }));
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::io;
    use std::os::fd::{AsFd, AsRawFd};
    use std::time::Duration;

    use mio::unix::SourceFd;
    use mio::{Events, Interest, Poll, Token};

    use super::Ready;

    pub const DESCRIPTION: &str = "mio";

    const EVENTS_MAX: usize = 256;

    #[derive(Debug)]
    pub struct Poller {
        poll: Poll,
        events: Events,
    }

    impl Poller {
        pub fn new() -> io::Result<Self> {
            Ok(Self { poll: Poll::new()?, events: Events::with_capacity(EVENTS_MAX) })
        }

        pub fn add(&self, socket: &impl AsFd, token: u64) -> io::Result<()> {
            let (socket, interest) = (socket.as_fd().as_raw_fd(), Interest::READABLE | Interest::WRITABLE);
            self.poll.registry().register(&mut SourceFd(&socket), Token(token as usize), interest)
        }

        pub fn wait(&mut self, limit: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
            self.poll.poll(&mut self.events, limit)?;
            ready.extend(self.events.iter().map(|event| Ready {
                token: event.token().0 as u64,
                readable: event.is_readable() || event.is_read_closed() || event.is_error(),
                writable: event.is_writable() || event.is_error(),
                ending: event.is_read_closed() || event.is_error(),
            }));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        near.set_nonblocking(true).expect("a non-blocking socket");
        (near, listener.accept().expect("a connection").0)
    }

    #[test]
    fn says_once_what_has_become_ready() {
        let (near, mut far) = pair();
        let mut poller = Poller::new().expect("a poller");
        poller.add(&near, 7).expect("a watch");
        let mut ready = Vec::new();
        poller.wait(None, &mut ready).expect("a wait");
        assert_eq!(ready, [Ready { token: 7, readable: false, writable: true, ending: false }]);
        poller.wait(Some(Duration::ZERO), &mut ready).expect("a wait");
        assert_eq!(ready, [], "nothing has changed");
        far.write_all(b"x").expect("a write");
        poller.wait(None, &mut ready).expect("a wait");
        assert!(ready.len() == 1 && ready[0].readable, "{ready:?}");
    }

    #[test]
    fn a_peer_that_goes_away_is_readable() {
        let (near, far) = pair();
        let mut poller = Poller::new().expect("a poller");
        poller.add(&near, 1).expect("a watch");
        drop(far);
        let mut ready = Vec::new();
        while !ready.iter().any(|ready: &Ready| ready.readable && ready.ending) {
            poller.wait(None, &mut ready).expect("a wait");
        }
    }

    #[test]
    fn a_limit_below_a_millisecond_is_not_rounded_to_one() {
        let mut poller = Poller::new().expect("a poller");
        let limit = Duration::from_micros(200);
        let shortest = (0..200)
            .map(|_| {
                let begin = Instant::now();
                poller.wait(Some(limit), &mut Vec::new()).expect("a wait");
                begin.elapsed()
            })
            .min();
        let shortest = shortest.expect("there are many");
        assert!(shortest >= limit, "{shortest:?}");
        #[cfg(target_os = "linux")]
        assert!(shortest < Duration::from_millis(1), "not one of 200 ended within a millisecond: {shortest:?}");
    }
}
