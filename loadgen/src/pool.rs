//! The fixed set of connections of one load. All are opened before the warm-up; one that breaks is opened again, and counted.
//!
//! First free, first used: the load spreads over all connections, and the one taken has been free the longest, which is what
//! [`crate::send`] needs to tell a late generator from a busy target. With HTTP/2 each stream of a connection is free by itself.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::time::Duration;

use reports::histogram::TimeHistogram;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::clock::Clock;
use crate::connection::{Connection, Destination, Done, Scratch, Standing};
use crate::exchange::{ExchangeError, Request};
use crate::poller::{Poller, Ready};

/// A connection that is not open after this is given up (and tried again).
const CONNECT_PATIENCE_NS: u64 = 2_000_000_000;
/// First and longest pause between two attempts to open a connection again.
const REOPEN_PAUSE_NS_MIN: u64 = 10_000_000;
const REOPEN_PAUSE_NS_MAX: u64 = 1_000_000_000;
/// Files that may be open beside the connections.
const FILES_BESIDE_CONNECTIONS: u64 = 128;

/// See the module. `F` is what the caller wants back with each answer. Belongs to the sending thread.
pub struct Pool<F> {
    destination: Destination,
    clock: Clock,
    poller: Poller,
    places: Vec<Place<F>>,
    free: VecDeque<Free>,
    /// Places whose connection is not open, by when they are to be opened (again) at the latest, ns.
    unopened: BTreeSet<(u64, u32)>,
    /// Places that are to be looked after like those whose socket is ready: a request could not be written there, or its sending has read
    /// what no socket will tell of again.
    unseen: Vec<u32>,
    /// Requests on their way, oldest first; some of those behind the oldest have ended.
    deadlines: VecDeque<Deadline>,
    serial: u64,
    flights: usize,
    scratch: Scratch,
    events: Vec<Ready>,
    reconnects: u64,
    connect_time: TimeHistogram,
}

struct Place<F> {
    connection: Option<Connection<F>>,
    /// Of the connection: tells what is meant for it from what was meant for the one before.
    generation: u32,
    begun_ns: u64,
    /// Entry of this place in [`Pool::unopened`].
    turn_ns: Option<u64>,
    /// A request has been sent over this connection.
    used: bool,
    pause_ns: u64,
}

/// A connection (or a stream of it) that could take a request.
#[derive(Clone, Copy)]
struct Free {
    place: u32,
    generation: u32,
    since_ns: u64,
}

struct Deadline {
    at_ns: u64,
    place: u32,
    generation: u32,
    serial: u64,
}

impl<F> Pool<F> {
    /// Opens `size` connections, one after the other (a burst of connects could overflow the target's backlog).
    pub fn open(destination: Destination, size: usize, clock: Clock) -> io::Result<Self> {
        allow_files(size as u64 + FILES_BESIDE_CONNECTIONS);
        let mut pool = Self {
            destination,
            clock,
            poller: Poller::new()?,
            places: Vec::with_capacity(size),
            free: VecDeque::new(),
            unopened: BTreeSet::new(),
            unseen: Vec::new(),
            deadlines: VecDeque::new(),
            serial: 0,
            flights: 0,
            scratch: Scratch::default(),
            events: Vec::new(),
            reconnects: 0,
            connect_time: TimeHistogram::new(),
        };
        for place in 0..size as u32 {
            pool.places.push(Place::new());
            pool.begin_to_open(place)?;
            let deadline_ns = clock.now_ns() + CONNECT_PATIENCE_NS;
            while pool.places[place as usize].turn_ns.is_some() {
                let left_ns = deadline_ns.saturating_sub(clock.now_ns());
                if left_ns == 0 {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                pool.wait(Some(Duration::from_nanos(left_ns)))?;
                while let Some(ready) = pool.events.pop() {
                    let (index, _) = split(ready.token);
                    pool.drive(index, ready, &mut |_| {})?;
                }
            }
        }
        Ok(pool)
    }

    /// Since when a connection has been free: the one that [`Pool::send`] would use.
    pub fn free_since_ns(&mut self) -> Option<u64> {
        while let Some(free) = self.free.front() {
            let at = &self.places[free.place as usize];
            if at.generation == free.generation && at.connection.as_ref().is_some_and(Connection::is_open) {
                return Some(free.since_ns);
            }
            self.free.pop_front();
        }
        None
    }

    /// Sends a request over the connection that has been free the longest; there must be one. Given back when it could not be sent.
    pub fn send(&mut self, request: &Request<'_>, timeout_ns: u64, flight: F) -> Result<(), (F, ExchangeError)> {
        let Some(Free { place, generation, .. }) = self.free.pop_front() else {
            return Err((flight, ExchangeError::Closed));
        };
        let at = &mut self.places[place as usize];
        let Some(connection) = &mut at.connection else { return Err((flight, ExchangeError::Closed)) };
        self.serial += 1;
        let serial = self.serial;
        at.used = true;
        at.pause_ns = REOPEN_PAUSE_NS_MIN;
        if let Err(failed) = connection.send(request, &self.destination.origin, serial, flight) {
            // A stream that could not be opened is not free again: the target allows fewer than before.
            self.unseen.push(place);
            return Err(failed);
        }
        if connection.has_news() {
            self.unseen.push(place);
        }
        self.flights += 1;
        self.forget_ended();
        self.deadlines.push_back(Deadline { at_ns: self.clock.now_ns() + timeout_ns, place, generation, serial });
        Ok(())
    }

    /// Drops the deadlines of requests that have ended, so that there are about as many as requests on their way. Two for each one that
    /// is added suffice.
    fn forget_ended(&mut self) {
        for _ in 0..2 {
            let Some(Deadline { place, generation, serial, .. }) = self.deadlines.front() else { return };
            let at = &self.places[*place as usize];
            let connection = at.connection.as_ref().filter(|_| at.generation == *generation);
            if connection.is_some_and(|connection| connection.carries(*serial)) {
                return;
            }
            self.deadlines.pop_front();
        }
    }

    /// Requests on their way.
    pub fn flights(&self) -> usize {
        self.flights
    }

    /// Waits until a socket is ready, at most `limit`; [`Pool::next`] then tells what came of it.
    pub fn wait(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.poller.wait(limit, &mut self.events)
    }

    /// Whether [`Pool::next`] has something to look after.
    pub fn has_news(&self) -> bool {
        !self.events.is_empty() || !self.unseen.is_empty()
    }

    /// Looks after the next socket that is ready, and tells of each request that came to its end there. False: there is none.
    pub fn next(&mut self, done: &mut impl FnMut(Done<'_, F>)) -> bool {
        let unseen = self.unseen.pop().map(|place| Ready {
            token: token(place, self.places[place as usize].generation),
            readable: true,
            writable: true,
            ending: true,
        });
        let Some(ready) = unseen.or_else(|| self.events.pop()) else { return false };
        let (place, generation) = split(ready.token);
        if self.places[place as usize].generation == generation && self.drive(place, ready, done).is_err() {
            self.reopen(place);
        }
        true
    }

    fn drive(&mut self, place: u32, ready: Ready, done: &mut impl FnMut(Done<'_, F>)) -> io::Result<()> {
        let at = &mut self.places[place as usize];
        let Some(connection) = &mut at.connection else { return Ok(()) };
        let (mut ended, mut done_ns) = (0, 0);
        let standing = connection.ready(ready, &mut self.scratch, &mut |one| {
            ended += 1;
            done_ns = one.done_ns;
            done(one);
        })?;
        self.flights -= ended;
        match standing {
            Standing::Opening => {}
            Standing::Opened => {
                let now_ns = self.clock.now_ns();
                self.connect_time.record(now_ns - at.begun_ns);
                let streams = connection.streams_max().min(self.destination.streams);
                self.take_turn(place);
                self.set_free(place, streams, now_ns);
                // The end may have come with the news of the begin, and a socket tells of each but once.
                self.unseen.push(place);
            }
            Standing::Open => self.set_free(place, ended, done_ns),
            Standing::Over => self.reopen(place),
        }
        Ok(())
    }

    fn set_free(&mut self, place: u32, streams: usize, since_ns: u64) {
        let generation = self.places[place as usize].generation;
        self.free.extend(std::iter::repeat_n(Free { place, generation, since_ns }, streams));
    }

    /// The next time at which [`Pool::turn`] has something to do.
    pub fn next_turn_ns(&self) -> Option<u64> {
        let unopened = self.unopened.first().map(|&(at_ns, _)| at_ns);
        self.deadlines.front().map(|deadline| deadline.at_ns).into_iter().chain(unopened).min()
    }

    /// Gives up what has taken too long, and opens again what broke.
    pub fn turn(&mut self, done: &mut impl FnMut(Done<'_, F>)) {
        let now_ns = self.clock.now_ns();
        while let Some(&Deadline { place, generation, serial, .. }) =
            self.deadlines.front().filter(|d| d.at_ns <= now_ns)
        {
            self.deadlines.pop_front();
            self.give_up(place, generation, serial, now_ns, done);
        }
        while let Some(&(_, place)) = self.unopened.first().filter(|(at_ns, _)| *at_ns <= now_ns) {
            self.take_turn(place);
            self.places[place as usize].connection = None;
            if self.begin_to_open(place).is_err() {
                self.pause(place);
            }
        }
    }

    fn give_up(&mut self, place: u32, generation: u32, serial: u64, now_ns: u64, done: &mut impl FnMut(Done<'_, F>)) {
        let at = &mut self.places[place as usize];
        let Some(connection) = at.connection.as_mut().filter(|_| at.generation == generation) else { return };
        let Some((flight, sent_ns)) = connection.give_up(serial) else { return };
        let over = connection.is_over();
        self.flights -= 1;
        done(Done { flight, sent_ns, done_ns: now_ns, answer: Err(ExchangeError::TimedOut) });
        if over { self.reopen(place) } else { self.set_free(place, 1, now_ns) }
    }

    /// Drops a connection, and opens another in its place: at once, or after a pause when the last attempt failed, or the connection was
    /// closed before anything was asked, which a target that closes all of them would make an endless circle.
    fn reopen(&mut self, place: u32) {
        let attempt_failed = self.take_turn(place);
        let at = &mut self.places[place as usize];
        at.connection = None;
        at.generation = at.generation.wrapping_add(1);
        self.reconnects += u64::from(!attempt_failed);
        if attempt_failed || !at.used || self.begin_to_open(place).is_err() {
            self.pause(place);
        }
    }

    fn begin_to_open(&mut self, place: u32) -> io::Result<()> {
        let at = &mut self.places[place as usize];
        at.begun_ns = self.clock.now_ns();
        at.used = false;
        let turn_ns = at.begun_ns + CONNECT_PATIENCE_NS;
        let token = token(place, at.generation);
        let poller = &self.poller;
        at.connection = Some(Connection::open(&self.destination, self.clock, |socket| poller.add(socket, token))?);
        self.set_turn(place, turn_ns);
        Ok(())
    }

    fn pause(&mut self, place: u32) {
        let at = &mut self.places[place as usize];
        let turn_ns = self.clock.now_ns() + at.pause_ns;
        at.pause_ns = (2 * at.pause_ns).min(REOPEN_PAUSE_NS_MAX);
        self.set_turn(place, turn_ns);
    }

    fn set_turn(&mut self, place: u32, at_ns: u64) {
        self.take_turn(place);
        self.places[place as usize].turn_ns = Some(at_ns);
        self.unopened.insert((at_ns, place));
    }

    /// Whether there was one: whether the place's connection was not open.
    fn take_turn(&mut self, place: u32) -> bool {
        let turn_ns = self.places[place as usize].turn_ns.take();
        turn_ns.is_some_and(|at_ns| self.unopened.remove(&(at_ns, place)))
    }

    /// Connections opened again so far.
    pub fn reconnects(&self) -> u64 {
        self.reconnects
    }

    /// Times to open a connection so far.
    pub fn connect_time(&self) -> &TimeHistogram {
        &self.connect_time
    }
}

impl<F> Place<F> {
    fn new() -> Self {
        Self { connection: None, generation: 0, begun_ns: 0, turn_ns: None, used: false, pause_ns: REOPEN_PAUSE_NS_MIN }
    }
}

/// A process may open 1,024 files by default on many systems. Where it may not be allowed more, opening the connection says so.
fn allow_files(files: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < files) {
        let allowed = maximum.map_or(files, |maximum| maximum.min(files));
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum });
    }
}

fn token(place: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(place)
}

fn split(token: u64) -> (u32, u32) {
    (token as u32, (token >> 32) as u32)
}
