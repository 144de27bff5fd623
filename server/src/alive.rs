//! How the supervisor hears that a part has ended which should live as long as the server. None has a way out, so that it was a defect: a
//! panic. The server then stops and says so, because a server without that part would go on acknowledging what nobody persists or sends.

use tokio::sync::watch;

/// Held by the part; goes with it, however it ends.
#[derive(Debug)]
pub struct Alive {
    _sender: watch::Sender<()>,
}

/// Hears when it has gone.
#[derive(Clone, Debug)]
pub struct Pulse(watch::Receiver<()>);

/// A part's two ends.
pub fn alive() -> (Alive, Pulse) {
    let (sender, receiver) = watch::channel(());
    (Alive { _sender: sender }, Pulse(receiver))
}

impl Pulse {
    /// Resolves when the part has ended.
    pub async fn stopped(mut self) {
        while self.0.changed().await.is_ok() {}
    }

    /// Whether it has.
    pub fn is_stopped(&self) -> bool {
        self.0.has_changed().is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_is_heard() {
        let (alive, pulse) = alive();
        assert!(!pulse.is_stopped());
        let part = tokio::spawn(async move {
            let _alive = alive;
            panic!("a defect");
        });
        pulse.clone().stopped().await;
        assert!(pulse.is_stopped() && part.await.is_err());
    }
}
