//! How soon the sending thread gets a processor that others want too.

use std::io;

use reports::model::Plan;
use scheduling::Urgency;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// As the generator was started.
    AsStarted,
    /// With this niceness, -20 (goes first) to 19.
    Nice(i32),
    /// Before every other thread of the machine.
    Realtime,
}

impl Priority {
    /// What a plan asks for; see [`Plan::sender_nice`] and [`Plan::realtime`].
    pub fn of(plan: &Plan) -> Self {
        match (plan.realtime, plan.sender_nice) {
            (Some(who), _) if who.has_sender() => Self::Realtime,
            (_, Some(nice)) => Self::Nice(nice),
            (_, None) => Self::AsStarted,
        }
    }

    /// Gives it to the calling thread.
    ///
    /// # Errors
    /// Without the right to it, or where threads have no such thing.
    pub fn take(self) -> io::Result<()> {
        match self {
            Self::AsStarted => Ok(()),
            Self::Nice(nice) => scheduling::renice(nice),
            Self::Realtime => scheduling::take(Urgency::Sending),
        }
    }

    /// Whether [`Priority::take`] would work, found out on a thread that ends at once.
    ///
    /// # Errors
    /// Those of [`Priority::take`].
    pub fn try_out(self) -> io::Result<()> {
        scheduling::try_out(move || self.take())
    }
}
