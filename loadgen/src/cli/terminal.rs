//! What is printed: results to standard output, everything else to standard error, in colours where those are wanted.

use std::io::Write;

use anstream::eprintln;
use anstyle::{AnsiColor, Style};
use clap::ValueEnum;

use super::secrets::without_passwords;
use super::{EXIT_INTERNAL, Failure};

/// Whether output has colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless NO_COLOR or CLICOLOR=0 says otherwise; CLICOLOR_FORCE=1: everywhere
    Auto,
    /// Also into a file or a pipe
    Always,
    /// Nowhere
    Never,
}

impl Color {
    /// From now on, for all that is printed.
    pub fn choose(self) {
        let choice = match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
    }
}

const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
const GREEN: Style = AnsiColor::Green.on_default().bold();

/// Tells what went wrong, and no password.
pub(super) fn tell_error(sentence: &str) {
    eprintln!("{RED}error:{RED:#} {}", without_passwords(sentence));
}

/// Tells what may be a mistake, and stops nothing.
pub(super) fn tell_warning(sentence: &str) {
    eprintln!("{YELLOW}warning:{YELLOW:#} {sentence}");
}

/// Tells a person something that a quiet run keeps to itself.
pub(super) fn say_unless(quiet: bool, sentence: &str) {
    if !quiet {
        eprintln!("{sentence}");
    }
}

/// Prints a result. Its verdict is coloured; every line says the same without.
pub(super) fn print_result(text: &str) {
    for line in text.split_inclusive('\n') {
        let style = match line.split_once(" (exit code ").filter(|(word, _)| !word.starts_with(' ')) {
            Some((_, code)) if code.starts_with('0') => GREEN,
            Some((_, code)) if code.starts_with('3') => RED,
            Some(_) => YELLOW,
            None => Style::new(),
        };
        print_text(&format!("{style}{}{style:#}\n", line.trim_end_matches('\n')));
    }
}

/// Prints to standard output. Whoever reads it may stop to (`| head`).
pub(super) fn print_text(text: &str) {
    if let Err(error) = anstream::stdout().write_all(text.as_bytes())
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        tell_error(&format!("cannot print: {error}"));
    }
}

/// Prints something as JSON on one line.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure(EXIT_INTERNAL, error.to_string()))?;
    print_text(&(text + "\n"));
    Ok(())
}
