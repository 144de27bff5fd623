//! The pending buffer: events that are acknowledged and not yet persisted. Bounded by events and by bytes; full means a
//! refusal, never a silent drop. An event leaves the queue once, and stays visible to readers until the store has it.

use std::sync::Arc;

use uuid::Uuid;

use crate::event::Event;

/// See the module.
#[derive(Debug)]
pub struct Pending {}

/// The buffer has reached its bound of events or of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the pending buffer is full")]
pub struct Full;

impl Pending {
    /// An empty buffer that refuses what would take it over either bound.
    pub fn new(_events_max: usize, _bytes_max: usize) -> Self {
        todo!()
    }

    /// Adds an event, or refuses it; on success wakes who waits in [`Pending::arrived`].
    pub fn put(&self, _event: Arc<Event>) -> Result<(), Full> {
        todo!()
    }

    /// Takes up to `events_max` of the oldest events out of the queue; they count against the bounds and stay visible to
    /// [`Pending::get`] until [`Pending::persisted`] or [`Pending::put_back`].
    pub fn take(&self, _events_max: usize) -> Vec<Arc<Event>> {
        todo!()
    }

    /// The store has these: forget them.
    pub fn persisted(&self, _events: &[Arc<Event>]) {
        todo!()
    }

    /// The store refused: the events go back to the front, in order.
    pub fn put_back(&self, _events: Vec<Arc<Event>>) {
        todo!()
    }

    /// An event that is pending or being written.
    pub fn get(&self, _id: Uuid) -> Option<Arc<Event>> {
        todo!()
    }

    /// Events held (queued or being written).
    pub fn events(&self) -> usize {
        todo!()
    }

    /// Bytes held by the same measure as the bound.
    pub fn bytes(&self) -> usize {
        todo!()
    }

    /// Resolves when an event has been put since the last call resolved (a permit is kept: no lost wake-ups).
    pub async fn arrived(&self) {
        todo!()
    }
}
