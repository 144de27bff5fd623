//! Tells whoever waits what is going on: one line that is rewritten on a terminal, plain lines everywhere else, the live view where it was
//! asked for. On stderr: stdout is for results.

#![allow(clippy::print_stderr, reason = "this module is the one that talks")]

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reports::format;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::live::terminal::{self, Key, Screen};
use crate::live::view::{TargetLook, View};
use crate::observe::hiccup::StallsSeen;
use crate::observe::prometheus::Scrape;
use crate::recorder::Snapshot;

const REDRAW_EVERY: Duration = Duration::from_millis(200);
const PLAIN_LINE_EVERY: Duration = Duration::from_secs(5);
/// Exit code of a program that was told to end at once.
const EXIT_INTERRUPTED: i32 = 130;

/// How progress is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Talk {
    /// A line.
    #[default]
    Line,
    /// Not at all.
    Nothing,
    /// The whole screen.
    Live,
}

/// See the module.
#[derive(Debug)]
pub struct Progress {
    state: Arc<Mutex<State>>,
    shown: Shown,
    ticker: Option<JoinHandle<()>>,
}

/// Where it goes.
#[derive(Debug)]
enum Shown {
    Nowhere,
    Lines,
    Bar(ProgressBar),
    Screen,
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
    /// Of the live view alone.
    view: Option<View>,
}

impl Progress {
    /// For a run that takes `total`; whoever looks on live may set `stop`. Needs a running tokio runtime.
    pub fn start(total: Duration, talk: Talk, stop: &Arc<AtomicBool>) -> Self {
        let state = Arc::new(Mutex::new(State::new(total)));
        let for_ticker = Arc::clone(&state);
        let (shown, ticker) = match talk {
            Talk::Nothing => (Shown::Nowhere, None),
            Talk::Live => match Screen::take() {
                Ok(screen) => {
                    lock(&state).view = Some(View::new(total));
                    (Shown::Screen, Some(tokio::spawn(show_live(for_ticker, screen, Arc::clone(stop)))))
                }
                Err(error) => {
                    eprintln!("--tui: {error}; going on without the live view");
                    (Shown::Lines, Some(tokio::spawn(tell_lines(for_ticker))))
                }
            },
            Talk::Line if std::io::stderr().is_terminal() => {
                let bar = ProgressBar::with_draw_target(Some(total.as_millis() as u64), ProgressDrawTarget::stderr());
                let style = ProgressStyle::with_template("{bar:24} {msg}");
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                let ticker = tokio::spawn(draw_bar(for_ticker, bar.clone()));
                (Shown::Bar(bar), Some(ticker))
            }
            Talk::Line => (Shown::Lines, Some(tokio::spawn(tell_lines(for_ticker)))),
        };
        Self { state, shown, ticker }
    }

    /// For what is no business of whoever waits.
    pub fn silent() -> Self {
        Self { state: Arc::new(Mutex::new(State::new(Duration::ZERO))), shown: Shown::Nowhere, ticker: None }
    }

    /// The next phase begins; `numbers` are shown while it lasts.
    pub fn phase(&self, subject: &str, phase: &'static str, numbers: Option<&Arc<Mutex<Snapshot>>>) {
        let mut state = lock(&self.state);
        let now = Instant::now();
        subject.clone_into(&mut state.subject);
        state.phase = phase;
        state.phase_begin = now;
        state.numbers = numbers.cloned();
        state.in_view(|view, now| view.phase(now, subject, phase, numbers.is_some()));
        if matches!(self.shown, Shown::Lines) {
            eprintln!("{}", state.line(now));
        }
    }

    /// The phase goes on, with something else: told with the next line.
    pub fn step(&self, subject: &str) {
        let mut state = lock(&self.state);
        subject.clone_into(&mut state.subject);
        state.in_view(|view, _| subject.clone_into(&mut view.subject));
    }

    /// The rate that this phase asks for, per second; 0: none.
    pub fn offered(&self, per_s: f64) {
        lock(&self.state).in_view(|view, _| view.offered_per_s = Some(per_s).filter(|per_s| *per_s > 0.0));
    }

    /// What the target says of itself, if it said anything.
    pub fn target(&self, scrape: Option<&Scrape>) {
        if let Some(scrape) = scrape {
            lock(&self.state).in_view(|view, now| view.target(now, TargetLook::of(scrape)));
        }
    }

    /// The stalls of the machine in this load until now.
    pub fn stalls(&self, seen: Option<StallsSeen>) {
        lock(&self.state).in_view(|view, _| view.stalls = seen);
    }

    /// A sentence that stays.
    pub fn say(&self, sentence: &str) {
        match &self.shown {
            Shown::Nowhere => {}
            Shown::Lines => eprintln!("{sentence}"),
            Shown::Bar(bar) => bar.println(sentence),
            Shown::Screen => lock(&self.state).in_view(|view, _| view.say(sentence)),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.ticker.iter().for_each(JoinHandle::abort);
        match &self.shown {
            Shown::Bar(bar) => bar.finish_and_clear(),
            Shown::Screen => {
                // Not left to the task, which is dropped later.
                terminal::give_back();
                let state = lock(&self.state);
                state.view.iter().flat_map(|view| &view.sentences).for_each(|sentence| eprintln!("{sentence}"));
            }
            Shown::Nowhere | Shown::Lines => {}
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn tell_lines(state: Arc<Mutex<State>>) {
    let mut ticks = tokio::time::interval(PLAIN_LINE_EVERY);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let line = lock(&state).line(Instant::now());
        eprintln!("{line}");
    }
}

async fn draw_bar(state: Arc<Mutex<State>>, bar: ProgressBar) {
    let mut ticks = tokio::time::interval(REDRAW_EVERY);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let mut state = lock(&state);
        bar.set_position((now - state.begin).as_millis() as u64);
        bar.set_message(state.line(now));
    }
}

async fn show_live(state: Arc<Mutex<State>>, mut screen: Screen, stop: Arc<AtomicBool>) {
    let mut ticks = tokio::time::interval(REDRAW_EVERY);
    // A terminal that is slow gets fewer pictures, not all of them later.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Whoever closes the terminal wants what there is; without this the program would end without it. (Ctrl-C is a key here.)
    let mut hang_ups = signal(SignalKind::hangup()).ok();
    loop {
        let hung_up = async {
            match &mut hang_ups {
                Some(hang_ups) => hang_ups.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = ticks.tick() => {}
            _ = hung_up => stop.store(true, Ordering::Relaxed),
        }
        while let Some(key) = screen.key() {
            match key {
                Key::End => stop.store(true, Ordering::Relaxed),
                Key::Interrupt => interrupt(&stop),
            }
        }
        let mut state = lock(&state);
        let numbers = state.numbers.as_ref().map(|numbers| *lock(numbers));
        state.in_view(|view, now| {
            view.is_ending = stop.load(Ordering::Relaxed);
            view.look(now, numbers.as_ref());
            screen.draw(view);
        });
    }
}

/// Somebody wants it to end, by a key or a signal: the first time early, with what there is, the second time at once.
pub fn interrupt(stop: &AtomicBool) {
    if stop.swap(true, Ordering::Relaxed) {
        terminal::give_back();
        std::process::exit(EXIT_INTERRUPTED);
    }
}

impl State {
    fn new(total: Duration) -> Self {
        let now = Instant::now();
        Self {
            begin: now,
            total,
            subject: String::new(),
            phase: "starting",
            phase_begin: now,
            numbers: None,
            accepted_before: (now, 0),
            view: None,
        }
    }

    /// Tells the live view, where there is one, with the time since the begin.
    fn in_view(&mut self, tell: impl FnOnce(&mut View, Duration)) {
        let now = self.begin.elapsed();
        if let Some(view) = &mut self.view {
            tell(view, now);
        }
    }

    fn line(&mut self, now: Instant) -> String {
        let left = self.total.saturating_sub(now - self.begin).as_secs();
        let mut line = format!("{} · {} {} s", self.subject, self.phase, (now - self.phase_begin).as_secs());
        if let Some(numbers) = &self.numbers {
            let numbers = *lock(numbers);
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
