//! How this program was called: its words, and an environment variable for every flag.
//!
//! The variables are made here and nowhere else, by walking the commands: `--some-flag` is also `LOADGEN_SOME_FLAG`, in every command that
//! has such a flag. A flag wins over a variable, a variable over a plan file; one that does not go with what was typed is left out; an
//! empty one is none.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::builder::{BoolishValueParser, OsStr, Resettable};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches};

use super::secrets::without_secrets;
use super::{Cli, Command, help};
use crate::nearest::did_you_mean;
use crate::plan::Asked;

/// Of every variable.
const PREFIX: &str = "LOADGEN_";
/// Between several values in one variable, where the flag has no separator of its own.
const SEPARATOR: char = ';';

/// See the module.
#[derive(Debug)]
pub(super) struct Invocation {
    words: Vec<OsString>,
    command: Option<String>,
    given: Vec<Given>,
    left_out: BTreeSet<String>,
}

/// A variable that says what no flag says.
#[derive(Debug)]
struct Given {
    variable: String,
    /// With its dashes.
    flag: String,
    value: String,
}

/// All commands with their flags, variables and help, as they are for everybody who sets no variable.
pub(super) fn tree() -> clap::Command {
    with_variables(help::taught(Cli::command()), &BTreeSet::new(), false)
}

impl Invocation {
    /// The words begin with the program's name.
    pub fn new(words: Vec<OsString>) -> Self {
        let text: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let mut given = Vec::new();
        let mut command = None;
        let tree = tree();
        if let Some(used) = text.iter().skip(1).find_map(|word| tree.find_subcommand(word)) {
            command = Some(used.get_name().to_owned());
            for arg in tree.get_arguments().chain(used.get_arguments()) {
                let Some((variable, flag)) = variable_of(arg).zip(arg.get_long()) else { continue };
                let flag = format!("--{flag}");
                let value = std::env::var_os(&variable).filter(|value| !value.is_empty());
                if let Some(value) = value.filter(|_| !is_typed(&text, &flag)) {
                    given.push(Given { variable, flag, value: value.to_string_lossy().into_owned() });
                }
            }
        }
        let is_empty = |(name, value): (OsString, OsString)| {
            Some(name.into_string().ok()?).filter(|name| name.starts_with(PREFIX) && value.is_empty())
        };
        Self { words, command, given, left_out: std::env::vars_os().filter_map(is_empty).collect() }
    }

    /// What was asked for.
    pub fn read(&mut self) -> Result<Cli, clap::Error> {
        // `-h` has a line for each flag, and no variables.
        let is_short = self.words.iter().any(|word| word == "-h");
        loop {
            let mut tree = with_variables(help::taught(Cli::command()), &self.left_out, is_short);
            let error = match tree.try_get_matches_from_mut(&self.words) {
                Ok(matches) => {
                    self.given.retain(|given| is_used(&tree, &matches, given));
                    return Cli::from_arg_matches(&matches);
                }
                Err(error) => error,
            };
            let displaced = self.displaced(&error);
            if displaced.is_empty() {
                return Err(error);
            }
            self.given.retain(|given| !displaced.contains(&given.variable));
            self.left_out.extend(displaced);
        }
    }

    /// Variables that do not go with what was typed, which wins.
    fn displaced(&self, error: &clap::Error) -> Vec<String> {
        let named = |flags: &[String]| -> Vec<String> {
            let given = self.given.iter().filter(|given| flags.contains(&given.flag));
            given.map(|given| given.variable.clone()).collect()
        };
        match error.kind() {
            ErrorKind::ArgumentConflict => {
                let flags = flags_of(error);
                let variables = named(&flags);
                // Two variables that do not go together are a mistake.
                if variables.len() < flags.len() { variables } else { Vec::new() }
            }
            ErrorKind::MissingRequiredArgument => {
                let mends = |given: &&Given| {
                    let mut left_out = self.left_out.clone();
                    left_out.insert(given.variable.clone());
                    parse(&self.words, &left_out).is_ok()
                };
                self.given.iter().find(mends).map(|given| given.variable.clone()).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// A plan of which flags say one part and variables another, as [`Asked::over`] has it: a flag displaces what a variable says in another
    /// way.
    pub fn layered(&self, together: Asked, of: fn(Command) -> Option<Asked>) -> Asked {
        if self.given.is_empty() {
            return together;
        }
        let variables = self.given.iter().map(|given| given.variable.clone());
        let without: BTreeSet<String> = self.left_out.iter().cloned().chain(variables).collect();
        let bare: Vec<OsString> =
            self.words.iter().take(1).cloned().chain(self.command.clone().map(Into::into)).collect();
        let part = |words: &[OsString], left_out: &BTreeSet<String>| of(parse(words, left_out).ok()?.command);
        match part(&self.words, &without).zip(part(&bare, &self.left_out)) {
            Some((flags, variables)) => flags.over(variables),
            None => together,
        }
    }

    /// Where the flags of a sentence come from that nobody typed.
    pub fn origins(&self, sentence: &str) -> String {
        let words: Vec<&str> = sentence.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect();
        let told = self.given.iter().filter(|given| words.contains(&given.flag.as_str()));
        told.map(|given| format!("\n  {} comes from the environment variable {}", given.flag, given.variable)).collect()
    }

    /// The name of the command, if there is one.
    pub fn command(&self) -> Option<&str> {
        self.command.as_deref()
    }

    /// How a flag that may stand anywhere is set; for what must be known before anything else.
    pub fn early(&self, flag: &str) -> Option<String> {
        let mut words = self.words.iter().map(|word| word.to_string_lossy());
        let mut typed = None;
        while let Some(word) = words.next() {
            match word.strip_prefix(flag) {
                Some("") => typed = words.next().map(|value| value.into_owned()),
                Some(rest) if rest.starts_with('=') => typed = Some(rest[1..].to_owned()),
                _ => {}
            }
        }
        let given = || self.given.iter().find(|given| given.flag == flag).map(|given| given.value.clone());
        typed.or_else(given)
    }

    /// The command line for the result, which is meant to be shown around and typed again: with the variables, and without keys and
    /// passwords.
    pub fn command_line(&self) -> Vec<String> {
        let variables = self.given.iter().map(|given| format!("{}={}", given.variable, given.value));
        let env = (!self.given.is_empty()).then(|| "env".to_owned());
        let words = self.words.iter().map(|word| word.to_string_lossy().into_owned());
        without_secrets(env.into_iter().chain(variables).chain(words))
    }
}

fn parse(words: &[OsString], left_out: &BTreeSet<String>) -> Result<Cli, clap::Error> {
    let tree = with_variables(help::taught(Cli::command()), left_out, false);
    Cli::from_arg_matches(&tree.try_get_matches_from(words)?)
}

/// A sentence on each variable that looks like one of ours and is none. Not an error: others may name theirs so.
pub(super) fn unknown_variables() -> Vec<String> {
    let tree = tree();
    let all = std::iter::once(&tree).chain(tree.get_subcommands());
    let known: BTreeSet<String> = all.flat_map(clap::Command::get_arguments).filter_map(variable_of).collect();
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let unknown = set.filter(|name| name.starts_with(PREFIX) && !known.contains(name));
    let told = |name: String| {
        let otherwise = "a flag's is LOADGEN_ and its name, such as LOADGEN_RATE for --rate";
        let remedy = did_you_mean(&name, known.iter().map(String::as_str), otherwise);
        format!("{name}: is the variable of no flag, and changes nothing; {remedy}")
    };
    unknown.map(told).collect()
}

fn with_variables(command: clap::Command, left_out: &BTreeSet<String>, is_short: bool) -> clap::Command {
    let change = |arg: Arg| match variable_of(&arg) {
        Some(name) if !left_out.contains(&name) && !is_off(&arg, &name) => with_variable(arg, name).hide_env(is_short),
        Some(_) => arg.env(Resettable::<OsStr>::Reset),
        None => arg.hide_env(is_short),
    };
    command.mut_args(change).mut_subcommands(|inner| with_variables(inner, left_out, is_short))
}

/// The server's flags have variables of their own, and what is hidden has none.
fn variable_of(arg: &Arg) -> Option<String> {
    let flag = arg.get_long().filter(|flag| !arg.is_hide_set() && !matches!(*flag, "help" | "version"))?;
    match arg.get_env().map(|name| name.to_string_lossy().into_owned()) {
        Some(own) => own.starts_with(PREFIX).then_some(own),
        None => Some(format!("{PREFIX}{}", flag.to_uppercase().replace('-', "_"))),
    }
}

fn with_variable(arg: Arg, name: String) -> Arg {
    let arg = match arg.get_action() {
        ArgAction::SetTrue => arg.value_parser(BoolishValueParser::new()),
        ArgAction::Append if arg.get_value_delimiter().is_none() => arg.value_delimiter(SEPARATOR),
        _ => arg,
    };
    // A help page is looked at by others, too.
    arg.env(name).hide_env_values(true)
}

/// A flag without a value that its variable says not to set: as if nothing had been said.
fn is_off(arg: &Arg, name: &str) -> bool {
    let value = std::env::var(name).unwrap_or_default().to_lowercase();
    matches!(arg.get_action(), ArgAction::SetTrue) && matches!(value.as_str(), "0" | "false" | "f" | "no" | "n" | "off")
}

fn is_used(tree: &clap::Command, matches: &ArgMatches, given: &Given) -> bool {
    let Some((name, matches)) = matches.subcommand() else { return false };
    let arguments = tree.find_subcommand(name).into_iter().flat_map(clap::Command::get_arguments);
    let id = arguments.filter(|arg| variable_of(arg).as_ref() == Some(&given.variable)).map(Arg::get_id).next();
    id.is_some_and(|id| matches.value_source(id.as_str()) == Some(ValueSource::EnvVariable))
}

/// Before a `--`, behind which nothing is a flag.
fn is_typed(words: &[String], flag: &str) -> bool {
    let is_it = |word: &String| word.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
    words.iter().take_while(|word| *word != "--").any(is_it)
}

/// What does not go together, as far as it is a flag or a word.
fn flags_of(error: &clap::Error) -> Vec<String> {
    let texts = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    };
    let all = texts(ContextKind::InvalidArg).into_iter().chain(texts(ContextKind::PriorArg));
    all.map(|text| text.split_whitespace().next().unwrap_or_default().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_typed_with_its_value_behind_it_or_in_it_and_not_behind_two_dashes() {
        for (words, expected) in [
            ("run --rate 5", true),
            ("run --rate=5", true),
            ("run --rate-max 5", false),
            ("run -- --rate", false),
            ("run", false),
        ] {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            assert_eq!(is_typed(&words, "--rate"), expected, "{words:?}");
        }
    }
}
