//! Asking the store from a thread that answers requests: the call runs on the background runtime, which owns the store's
//! connections, and is given up after `--store-timeout-ms`.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::problem::Problem;
use crate::store::{Store, StoreError};

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Offload {
    store: Store,
    background: Handle,
    timeout: Duration,
}

impl Offload {
    /// A way to `store` through `background`.
    pub fn new(store: Store, background: Handle, timeout: Duration) -> Self {
        Self { store, background, timeout }
    }

    /// Runs one question, and says of a failure only what the sender of a request may know.
    pub async fn call<T, F>(&self, question: impl FnOnce(Store) -> F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let asked = question(self.store.clone());
        let timeout = self.timeout;
        // The time-out is inside of the task, so that a question that nobody waits for any more ends too.
        match self.background.spawn(tokio::time::timeout(timeout, asked)).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(error))) => Err(problem(&error)),
            Ok(Err(_elapsed)) => Err(Problem::StoreUnavailable),
            // The background runtime is gone: the server is stopping.
            Err(_) => Err(Problem::Stopping),
        }
    }
}

/// What a sender is told of a failure of the store; the log is told the rest.
pub fn problem(error: &StoreError) -> Problem {
    match error {
        StoreError::BadCursor => {
            Problem::field("cursor", "'cursor' is not one that this server gave out; leave it out to begin anew")
        }
        StoreError::Refused(_) => {
            tracing::error!(%error, "a statement was refused");
            Problem::Internal
        }
        _ => Problem::StoreUnavailable,
    }
}
