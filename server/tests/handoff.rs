//! Every order (up to a bound) in which the threads at the hand-over of the journal can take their steps, by loom, with the code that the server runs: compiled
//! here a second time, with loom's lock and condition variable.

mod sync {
    pub(super) use std::sync::PoisonError;

    pub(super) use loom::sync::{Condvar, Mutex, MutexGuard};
}

#[allow(dead_code, unreachable_pub, missing_docs)]
#[path = "../src/journal/handoff.rs"]
mod handoff;

use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use handoff::Handoff;

/// How often a thread may be interrupted where it would not stop by itself. Nearly all mistakes of this kind need two; without a bound the orders are
/// too many to run.
const INTERRUPTIONS_MAX: usize = 3;

fn every_order(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(INTERRUPTIONS_MAX);
    builder.check(run);
}

/// What all threads see. Bit n stands for the event of sender n.
struct Seen {
    handoff: Handoff<usize>,
    synced: AtomicUsize,
    answered: AtomicUsize,
}

/// What the one thread that syncs does with what it took.
type Commit = fn(&Seen, usize);

fn sync_then_answer(seen: &Seen, events: usize) {
    seen.synced.fetch_or(events, Ordering::Release);
    seen.answered.fetch_or(events, Ordering::Release);
}

fn answer_then_sync(seen: &Seen, events: usize) {
    seen.answered.fetch_or(events, Ordering::Release);
    seen.synced.fetch_or(events, Ordering::Release);
}

/// Submits, and looks once whether there is an answer; what was refused.
fn send(seen: &Seen, event: usize) -> usize {
    let refused = seen.handoff.submit(event).err().unwrap_or(0);
    if seen.answered.load(Ordering::Acquire) & event != 0 {
        assert!(seen.synced.load(Ordering::Acquire) & event != 0, "told that it is safe before it is");
    }
    refused
}

/// Two senders, of whom one closes, and one that syncs.
fn run(commit: Commit) {
    every_order(move || {
        let seen =
            Arc::new(Seen { handoff: Handoff::new(), synced: AtomicUsize::new(0), answered: AtomicUsize::new(0) });
        let first = {
            let seen = seen.clone();
            thread::spawn(move || send(&seen, 1))
        };
        let second = {
            let seen = seen.clone();
            thread::spawn(move || {
                let refused = send(&seen, 2);
                seen.handoff.close();
                refused
            })
        };
        let (mut items, mut taken) = (Vec::new(), 0);
        while seen.handoff.take(&mut items) {
            for event in items.drain(..) {
                assert_eq!(taken & event, 0, "taken twice");
                taken |= event;
            }
            commit(&seen, taken);
        }
        let refused = first.join().unwrap() | second.join().unwrap();
        assert_eq!((taken | refused, taken & refused), (3, 0), "each is taken or refused");
    });
}

#[test]
fn what_is_submitted_is_taken_once_or_refused_and_answered_only_when_synced() {
    run(sync_then_answer);
}

#[test]
#[should_panic(expected = "told that it is safe before it is")]
fn the_test_above_finds_an_answer_that_comes_before_the_sync() {
    run(answer_then_sync);
}

/// No end: whoever waits must be woken by the arrival alone.
#[test]
fn an_arrival_always_wakes_the_one_that_takes() {
    every_order(|| {
        let handoff = Arc::new(Handoff::<usize>::new());
        let senders: Vec<_> = (0..2)
            .map(|number| {
                let handoff = handoff.clone();
                thread::spawn(move || handoff.submit(number).unwrap())
            })
            .collect();
        let mut items = Vec::new();
        while items.len() < 2 {
            assert!(handoff.take(&mut items), "it is not closed");
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        items.sort_unstable();
        assert_eq!(items, [0, 1]);
    });
}
