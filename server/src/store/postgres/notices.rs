//! How the server processes on one PostgreSQL wake each other: LISTEN and NOTIFY, on one channel.
//!
//! A process announces that it has written what is owed to webhooks: one NOTIFY for all that it has written since the last, and at most one in
//! [`ANNOUNCE_INTERVAL`]. (A NOTIFY takes a lock of the whole database cluster when it commits, so that one for each row would be felt.) It
//! delivers that itself; the others take a share of it, or all when it ends first. Announcements can be lost, and a process that is killed makes
//! none: the slow poll finds what is left.
//!
//! The connection that listens makes no statement while nothing happens. It is also what processes are counted by.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::doorbell::Doorbell;
use crate::metrics::Statement;
use crate::store::{Counter, StoreError};

/// By which the connections that listen are known.
pub(super) const LISTENER: &str = "millrace-listen";
const CHANNEL: &str = "millrace";
/// Between two announcements of one process.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
/// Before the connection that listens is opened again.
const RECONNECT_WAIT: Duration = Duration::from_secs(2);

/// See the module. Stops when dropped.
#[derive(Debug)]
pub(super) struct Notices {
    speaker: Speaker,
    wanted: Arc<Notify>,
    tasks: [JoinHandle<()>; 2],
}

/// Who announces.
#[derive(Clone, Debug)]
struct Speaker {
    pool: PgPool,
    counter: Counter,
    /// This process, by which it knows its own announcements.
    name: Arc<str>,
}

impl Notices {
    /// Starts on the current runtime; rings `doorbell` for what other processes announce.
    pub(super) fn start(options: PgConnectOptions, pool: PgPool, counter: Counter, doorbell: Arc<Doorbell>) -> Self {
        let wanted: Arc<Notify> = Arc::default();
        let speaker = Speaker { pool, counter, name: Uuid::now_v7().to_string().into() };
        let listening = tokio::spawn(listen(options.application_name(LISTENER), speaker.name.clone(), doorbell));
        let announcing = {
            let (speaker, wanted) = (speaker.clone(), Arc::clone(&wanted));
            tokio::spawn(async move {
                loop {
                    wanted.notified().await;
                    // What was not announced is found by the others' polls.
                    let _ = speaker.announce().await;
                    tokio::time::sleep(ANNOUNCE_INTERVAL).await;
                }
            })
        };
        Self { speaker, wanted, tasks: [listening, announcing] }
    }

    /// Announces once, at the latest after [`ANNOUNCE_INTERVAL`].
    pub(super) fn announce_soon(&self) {
        self.wanted.notify_one();
    }

    /// Announces now.
    pub(super) async fn announce(&self) -> Result<(), StoreError> {
        self.speaker.announce().await
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Speaker {
    async fn announce(&self) -> Result<(), StoreError> {
        let query = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(&*self.name);
        self.counter.run(Statement::Other, query.execute(&self.pool)).await?;
        Ok(())
    }
}

/// Listens for as long as it runs. On a connection of its own: one of the pool would be missing there.
async fn listen(options: PgConnectOptions, own_name: Arc<str>, doorbell: Arc<Doorbell>) {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_lazy_with(options);
    let mut is_told = false;
    loop {
        let Err(error) = listen_once(&pool, &own_name, &doorbell, &mut is_told).await;
        if !std::mem::replace(&mut is_told, true) {
            tracing::warn!(%error, "announcements of other processes are not heard; what they leave is found by polling");
        }
        tokio::time::sleep(RECONNECT_WAIT).await;
    }
}

async fn listen_once(
    pool: &PgPool,
    own_name: &str,
    doorbell: &Doorbell,
    is_told: &mut bool,
) -> Result<std::convert::Infallible, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    *is_told = false;
    loop {
        // For what was announced while nobody listened.
        doorbell.announce();
        while let Some(notice) = listener.try_recv().await? {
            if notice.payload() != own_name {
                doorbell.announce();
            }
        }
    }
}
