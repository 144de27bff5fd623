//! The fixed set of connections of one load. All are opened before the warm-up; one that breaks is opened again in the background,
//! and counted.
//!
//! First free, first used: the load spreads over all connections, and the one taken has been free the longest, which is what
//! [`crate::send`] needs to tell a late generator from a busy target.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use reports::histogram::TimeHistogram;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::clock::Clock;
use crate::connection::Connection;

/// A connection that cannot be opened within this is given up (and tried again).
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// First and longest pause between two attempts to open a connection again.
const REOPEN_PAUSE_MIN: Duration = Duration::from_millis(10);
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(1);

/// See the module. Shared by the tasks of the sending thread.
#[derive(Debug)]
pub struct Pool {
    address: SocketAddr,
    clock: Clock,
    idle: RefCell<VecDeque<Connection>>,
    in_use: Cell<usize>,
    freed: Notify,
    reconnects: Cell<u64>,
    connect_time: RefCell<TimeHistogram>,
}

impl Pool {
    /// Opens `size` connections, one after the other (a burst of connects could overflow the target's backlog).
    pub async fn open(address: SocketAddr, size: usize, clock: Clock) -> io::Result<Rc<Self>> {
        let mut idle = VecDeque::with_capacity(size);
        let mut connect_time = TimeHistogram::new();
        for _ in 0..size {
            let connection = Connection::open(address, clock, CONNECT_PATIENCE).await?;
            connect_time.record(connection.connect_ns);
            idle.push_back(connection);
        }
        Ok(Rc::new(Self {
            address,
            clock,
            idle: RefCell::new(idle),
            in_use: Cell::new(0),
            freed: Notify::new(),
            reconnects: Cell::new(0),
            connect_time: RefCell::new(connect_time),
        }))
    }

    /// The connection that has been free the longest; waits for one until `deadline_ns`.
    pub async fn take(self: &Rc<Self>, deadline_ns: u64) -> Option<Connection> {
        loop {
            while let Some(connection) = self.pop() {
                if !connection.is_closed() {
                    self.in_use.set(self.in_use.get() + 1);
                    return Some(connection);
                }
                self.reopen();
            }
            if !self.wait_for_change(deadline_ns).await {
                return None;
            }
        }
    }

    /// Gives a connection back after a whole answer; one that is over is replaced.
    pub async fn give_back(self: &Rc<Self>, mut connection: Connection) {
        if connection.is_reusable().await {
            self.push(connection);
        } else {
            self.reopen();
        }
        self.no_longer_in_use();
    }

    /// Drops a connection that gave no whole answer, and opens another in its place.
    pub fn discard(self: &Rc<Self>, connection: Connection) {
        drop(connection);
        self.reopen();
        self.no_longer_in_use();
    }

    fn no_longer_in_use(&self) {
        self.in_use.set(self.in_use.get() - 1);
        self.freed.notify_one();
    }

    /// Opens a connection, however long it takes (until the load is over).
    fn reopen(self: &Rc<Self>) {
        self.reconnects.set(self.reconnects.get() + 1);
        let pool = Rc::downgrade(self);
        let (address, clock) = (self.address, self.clock);
        tokio::task::spawn_local(async move {
            let mut pause = REOPEN_PAUSE_MIN;
            while pool.strong_count() > 0 {
                if let Ok(connection) = Connection::open(address, clock, CONNECT_PATIENCE).await {
                    if let Some(pool) = pool.upgrade() {
                        pool.connect_time.borrow_mut().record(connection.connect_ns);
                        pool.push(connection);
                    }
                    return;
                }
                sleep(pause).await;
                pause = (pause * 2).min(REOPEN_PAUSE_MAX);
            }
        });
    }

    /// Waits until no request is in flight, or until `deadline_ns`.
    pub async fn all_free(&self, deadline_ns: u64) {
        while self.in_use.get() > 0 && self.wait_for_change(deadline_ns).await {}
    }

    /// The clock the connections stamp with.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Connections opened again so far.
    pub fn reconnects(&self) -> u64 {
        self.reconnects.get()
    }

    /// How long opening a connection took, so far.
    pub fn connect_time(&self) -> TimeHistogram {
        self.connect_time.borrow().clone()
    }

    /// False once `deadline_ns` has passed.
    async fn wait_for_change(&self, deadline_ns: u64) -> bool {
        let left = Duration::from_nanos(deadline_ns.saturating_sub(self.clock.now_ns()));
        !left.is_zero() && timeout(left, self.freed.notified()).await.is_ok()
    }

    fn pop(&self) -> Option<Connection> {
        self.idle.borrow_mut().pop_front()
    }

    fn push(&self, connection: Connection) {
        self.idle.borrow_mut().push_back(connection);
        self.freed.notify_one();
    }
}
