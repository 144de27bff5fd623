//! The terminal of the live view: taken, drawn on, asked for keys, and given back on every way out.
//!
//! It is on stderr, since stdout is for results. Given back means: the screen that was there before, a cursor, and keys that are echoed. That is
//! done when the view ends, before the program exits on its own, and before a panic of any thread says what it has to say.

use std::io::{self, BufWriter, IsTerminal, Stderr};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};

use super::screen::{self, Look};
use super::view::View;

/// Whether the terminal is taken. There is one, so this is one for all threads.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Events that are read in one look: whoever pastes a book must not hold up what the control thread is there for.
const EVENTS_A_LOOK_MAX: usize = 64;

/// What somebody pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `q`: to end early.
    End,
    /// Ctrl-C: the same, and the second time to quit at once.
    Interrupt,
}

/// Whether there is a terminal to take.
pub fn is_there() -> bool {
    io::stderr().is_terminal()
}

/// Whether it is taken: then nobody else may write on it.
pub fn is_taken() -> bool {
    IS_TAKEN.load(Ordering::SeqCst)
}

/// Gives the terminal back, if it is taken. Anybody may call it at any time.
pub fn give_back() {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        // Each as far as it goes: if the terminal is gone, nobody is left to be told.
        let _ = execute!(io::stderr(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// A terminal that is taken.
#[derive(Debug)]
pub struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stderr>>>,
    look: Look,
}

impl Screen {
    /// Takes it.
    ///
    /// # Errors
    /// When it cannot be taken: no terminal, or not one that can be written on.
    pub fn take() -> io::Result<Self> {
        give_back_on_panic();
        // First, so that whatever fails below is undone.
        IS_TAKEN.store(true, Ordering::SeqCst);
        Self::taken().inspect_err(|_| give_back())
    }

    fn taken() -> io::Result<Self> {
        enable_raw_mode()?;
        execute!(io::stderr(), EnterAlternateScreen, Hide)?;
        // A whole picture at a time: unbuffered, every cell would be a system call.
        let terminal = Terminal::new(CrosstermBackend::new(BufWriter::new(io::stderr())))?;
        // As for everything else that is printed: --color, NO_COLOR, and what the terminal can.
        let has_colours = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
        Ok(Self { terminal, look: Look::new(has_colours) })
    }

    /// Draws, whatever size the terminal has by now; nothing once it was given back.
    pub fn draw(&mut self, view: &View) {
        if is_taken() {
            // A terminal that is gone is no reason to end a measurement.
            let _ = self.terminal.draw(|frame| screen::draw(frame, view, self.look));
        }
    }

    /// The next key that means something and was pressed already.
    pub fn key(&mut self) -> Option<Key> {
        for _ in 0..EVENTS_A_LOOK_MAX {
            if !is_taken() || !event::poll(Duration::ZERO).unwrap_or(false) {
                break;
            }
            match event::read() {
                Ok(Event::Key(pressed)) if key_of(pressed).is_some() => return key_of(pressed),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        None
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn key_of(pressed: KeyEvent) -> Option<Key> {
    let control = pressed.modifiers.contains(KeyModifiers::CONTROL);
    match pressed.code {
        _ if pressed.kind == KeyEventKind::Release => None,
        KeyCode::Char('c') if control => Some(Key::Interrupt),
        KeyCode::Char('q' | 'Q') if !control => Some(Key::End),
        _ => None,
    }
}

/// What a panic says would be written on a screen that is about to go, by a terminal that does not end lines.
fn give_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_ends_ctrl_c_interrupts_and_nothing_else_does_anything() {
        let press = |code, modifiers| key_of(KeyEvent::new(code, modifiers));
        assert_eq!(press(KeyCode::Char('q'), KeyModifiers::NONE), Some(Key::End));
        assert_eq!(press(KeyCode::Char('Q'), KeyModifiers::SHIFT), Some(Key::End));
        assert_eq!(press(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Interrupt));
        for (code, modifiers) in [
            (KeyCode::Char('c'), KeyModifiers::NONE),
            (KeyCode::Char('q'), KeyModifiers::CONTROL),
            (KeyCode::Esc, KeyModifiers::NONE),
            (KeyCode::Enter, KeyModifiers::NONE),
        ] {
            assert_eq!(press(code, modifiers), None, "{code:?}");
        }
        let released =
            KeyEvent { kind: KeyEventKind::Release, ..KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE) };
        assert_eq!(key_of(released), None);
    }
}
