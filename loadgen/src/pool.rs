//! The fixed set of connections of one load. All are opened before the warm-up; one that breaks is opened again, and counted.
//!
//! First free, first used: the load spreads over all connections, and the one taken has been free the longest, which is what
//! [`crate::send`] needs to tell a late generator from a busy target. With HTTP/2 each stream of a connection is free by itself.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use reports::histogram::TimeHistogram;

use crate::clock::Clock;
use crate::connection::{Connection, Destination, Done, Scratch, Standing};
use crate::exchange::{ExchangeError, Request};
use crate::poller::{Poller, Ready};

/// A connection that is not open after this is given up (and tried again).
const CONNECT_PATIENCE_NS: u64 = 2_000_000_000;
/// First and longest pause between two attempts to open a connection again.
const REOPEN_PAUSE_NS_MIN: u64 = 10_000_000;
const REOPEN_PAUSE_NS_MAX: u64 = 1_000_000_000;

/// See the module. `F` is what the caller wants back with each answer. Belongs to the sending thread.
pub struct Pool<F> {
    destination: Destination,
    clock: Clock,
    poller: Poller,
    places: Vec<Place<F>>,
    free: VecDeque<Free>,
    /// Places whose connection is not open: what to do about it, and when at the latest.
    unopened: Vec<Unopened>,
    /// Places whose connection could not be written to, to be looked after like those whose socket is ready.
    broken: Vec<u32>,
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
    pause_ns: u64,
}

/// A connection (or a stream of it) that could take a request.
#[derive(Clone, Copy)]
struct Free {
    place: u32,
    generation: u32,
    since_ns: u64,
}

struct Unopened {
    place: u32,
    at_ns: u64,
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
        let mut pool = Self {
            destination,
            clock,
            poller: Poller::new()?,
            places: Vec::with_capacity(size),
            free: VecDeque::new(),
            unopened: Vec::new(),
            broken: Vec::new(),
            deadlines: VecDeque::new(),
            serial: 0,
            flights: 0,
            scratch: Scratch::default(),
            events: Vec::new(),
            reconnects: 0,
            connect_time: TimeHistogram::new(),
        };
        for place in 0..size as u32 {
            pool.places.push(Place { connection: None, generation: 0, begun_ns: 0, pause_ns: REOPEN_PAUSE_NS_MIN });
            pool.begin_to_open(place)?;
            let deadline_ns = clock.now_ns() + CONNECT_PATIENCE_NS;
            while pool.unopened.iter().any(|unopened| unopened.place == place) {
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
            if self.places[free.place as usize].generation == free.generation {
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
        if let Err(failed) = connection.send(request, &self.destination.origin, serial, flight) {
            self.broken.push(place);
            return Err(failed);
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
        !self.events.is_empty() || !self.broken.is_empty()
    }

    /// Looks after the next socket that is ready, and tells of each request that came to its end there. False: there is none.
    pub fn next(&mut self, done: &mut impl FnMut(Done<'_, F>)) -> bool {
        let broken = self.broken.pop().map(|place| Ready {
            token: token(place, self.places[place as usize].generation),
            readable: true,
            writable: true,
            ending: true,
        });
        let Some(ready) = broken.or_else(|| self.events.pop()) else { return false };
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
                at.pause_ns = REOPEN_PAUSE_NS_MIN;
                self.unopened.retain(|unopened| unopened.place != place);
                self.set_free(place, self.destination.streams, now_ns);
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
        let unopened = self.unopened.iter().map(|unopened| unopened.at_ns).min();
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
        while let Some(index) = self.unopened.iter().position(|unopened| unopened.at_ns <= now_ns) {
            let Unopened { place, .. } = self.unopened.swap_remove(index);
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

    /// Drops a connection, and opens another in its place: at once, or after a pause when the last attempt failed, too.
    fn reopen(&mut self, place: u32) {
        let at = &mut self.places[place as usize];
        at.connection = None;
        at.generation = at.generation.wrapping_add(1);
        if self.unopened.iter().any(|unopened| unopened.place == place) {
            self.unopened.retain(|unopened| unopened.place != place);
            self.pause(place);
            return;
        }
        self.reconnects += 1;
        if self.begin_to_open(place).is_err() {
            self.pause(place);
        }
    }

    fn begin_to_open(&mut self, place: u32) -> io::Result<()> {
        let at = &mut self.places[place as usize];
        at.begun_ns = self.clock.now_ns();
        let token = token(place, at.generation);
        let poller = &self.poller;
        at.connection = Some(Connection::open(&self.destination, self.clock, |socket| poller.add(socket, token))?);
        self.unopened.push(Unopened { place, at_ns: at.begun_ns + CONNECT_PATIENCE_NS });
        Ok(())
    }

    fn pause(&mut self, place: u32) {
        let at = &mut self.places[place as usize];
        self.unopened.push(Unopened { place, at_ns: self.clock.now_ns() + at.pause_ns });
        at.pause_ns = (2 * at.pause_ns).min(REOPEN_PAUSE_NS_MAX);
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

fn token(place: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(place)
}

fn split(token: u64) -> (u32, u32) {
    (token as u32, (token >> 32) as u32)
}
