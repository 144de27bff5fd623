//! Tells whoever waits what is going on: one line that is rewritten on a terminal, plain lines everywhere else. On stderr: stdout is
//! for results.

#![allow(clippy::print_stderr, reason = "this module is the one that talks")]

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reports::format;
use tokio::task::JoinHandle;

use crate::recorder::Snapshot;

const REDRAW_EVERY: Duration = Duration::from_millis(200);
const PLAIN_LINE_EVERY: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Progress {
    state: Arc<Mutex<State>>,
    bar: ProgressBar,
    ticker: JoinHandle<()>,
    plain: bool,
}

#[derive(Debug)]
struct State {
    begin: Instant,
    total: Duration,
    subject: String,
    phase: &'static str,
    phase_begin: Instant,
    numbers: Option<Arc<Mutex<Snapshot>>>,
    accepted_before: (Instant, u64),
}

impl Progress {
    /// For a run that takes `total`; draws nothing when `quiet`. Needs a running tokio runtime.
    pub fn start(total: Duration, quiet: bool) -> Self {
        let now = Instant::now();
        let state = State {
            begin: now,
            total,
            subject: String::new(),
            phase: "starting",
            phase_begin: now,
            numbers: None,
            accepted_before: (now, 0),
        };
        let state = Arc::new(Mutex::new(state));
        let terminal = std::io::stderr().is_terminal() && !quiet;
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total.as_millis() as u64), target);
        let style = ProgressStyle::with_template("{bar:24} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        let plain = !terminal && !quiet;
        let ticker = tokio::spawn(draw_for_ever(Arc::clone(&state), bar.clone(), plain));
        Self { state, bar, ticker, plain }
    }

    /// The next phase begins; `numbers` are shown while it lasts.
    pub fn phase(&self, subject: &str, phase: &'static str, numbers: Option<&Arc<Mutex<Snapshot>>>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        subject.clone_into(&mut state.subject);
        state.phase = phase;
        state.phase_begin = now;
        state.numbers = numbers.cloned();
        if self.plain {
            eprintln!("{}", state.line(now));
        }
    }

    /// The phase goes on, with something else: told with the next line.
    pub fn step(&self, subject: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        subject.clone_into(&mut state.subject);
    }

    /// A sentence that stays.
    pub fn say(&self, sentence: &str) {
        if self.plain {
            eprintln!("{sentence}");
        } else {
            self.bar.println(sentence);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.ticker.abort();
        self.bar.finish_and_clear();
    }
}

async fn draw_for_ever(state: Arc<Mutex<State>>, bar: ProgressBar, plain: bool) {
    let mut ticks = tokio::time::interval(if plain { PLAIN_LINE_EVERY } else { REDRAW_EVERY });
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let line = state.line(now);
        if plain {
            eprintln!("{line}");
        } else {
            bar.set_position((now - state.begin).as_millis() as u64);
            bar.set_message(line);
        }
    }
}

impl State {
    fn line(&mut self, now: Instant) -> String {
        let left = self.total.saturating_sub(now - self.begin).as_secs();
        let mut line = format!("{} · {} {} s", self.subject, self.phase, (now - self.phase_begin).as_secs());
        if let Some(numbers) = &self.numbers {
            let numbers = *numbers.lock().unwrap_or_else(PoisonError::into_inner);
            let outcomes = numbers.outcomes;
            let (then, accepted) = std::mem::replace(&mut self.accepted_before, (now, outcomes.accepted));
            let rate_per_s = outcomes.accepted.saturating_sub(accepted) as f64 / (now - then).as_secs_f64().max(1e-3);
            let errors = outcomes.total() - outcomes.accepted;
            let (p50, p99) =
                (format::time_ns(numbers.response_time_ns_p50), format::time_ns(numbers.response_time_ns_p99));
            line += &format!(" · {rate_per_s:.0}/s · p50 {p50} p99 {p99} · {errors} errors");
        }
        line + &format!(" · about {left} s left")
    }
}
