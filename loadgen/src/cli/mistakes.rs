//! Mistakes on the command line, in the form that every other error has: flag = value: what is wrong; what is allowed; what to do.
//!
//! What clap knows of a mistake is taken from it; the sentence is ours. What has no sentence here stays as clap says it.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::nearest::nearest;

/// One sentence, or a few lines; `None`: clap's own.
pub(super) fn sentence(error: &clap::Error, tree: &clap::Command, command: Option<&str>) -> Option<String> {
    let found = Found { error, tree, command };
    match error.kind() {
        ErrorKind::InvalidSubcommand => found.no_such_command(),
        ErrorKind::UnknownArgument => found.no_such_flag(),
        ErrorKind::InvalidValue => found.not_one_of(),
        ErrorKind::ValueValidation => found.not_a_value(),
        ErrorKind::ArgumentConflict => found.conflict(),
        ErrorKind::MissingRequiredArgument => found.missing(),
        ErrorKind::TooManyValues | ErrorKind::WrongNumberOfValues => found.too_many(),
        _ => None,
    }
}

struct Found<'a> {
    error: &'a clap::Error,
    tree: &'a clap::Command,
    command: Option<&'a str>,
}

impl Found<'_> {
    fn texts(&self, kind: ContextKind) -> Vec<String> {
        match self.error.get(kind) {
            Some(ContextValue::String(text)) => vec![text.clone()],
            Some(ContextValue::Strings(texts)) => texts.clone(),
            _ => Vec::new(),
        }
    }

    fn text(&self, kind: ContextKind) -> Option<String> {
        self.texts(kind).into_iter().next()
    }

    /// `--rate`, without the name of its value.
    fn flag(&self) -> Option<String> {
        Some(name_of(&self.text(ContextKind::InvalidArg)?))
    }

    /// `loadgen run`
    fn program(&self) -> String {
        self.command.map_or_else(|| "loadgen".to_owned(), |command| format!("loadgen {command}"))
    }

    /// What clap, or a look at the known words, takes for what was meant.
    fn meant(&self, suggestion: ContextKind, otherwise: String) -> String {
        match self.text(suggestion) {
            Some(meant) => format!("did you mean {meant}?"),
            None => otherwise,
        }
    }

    fn no_such_command(&self) -> Option<String> {
        let word = self.text(ContextKind::InvalidSubcommand)?;
        let names: Vec<&str> = self.tree.get_subcommands().map(clap::Command::get_name).collect();
        let meant = match nearest(&word, names.iter().copied()) {
            Some(meant) => format!("did you mean {meant}?"),
            None => "loadgen --help says what each does".to_owned(),
        };
        Some(format!("'{word}': is no command; allowed: {}; {meant}", names.join(", ")))
    }

    fn no_such_flag(&self) -> Option<String> {
        let flag = self.flag()?;
        let program = self.program();
        if !flag.starts_with('-') {
            return Some(format!("'{flag}': {program} takes no such word; leave it out, or see {program} --help"));
        }
        let of_others = |command: &&clap::Command| {
            command.get_arguments().any(|arg| arg.get_long().is_some_and(|long| flag == format!("--{long}")))
        };
        let others: Vec<&str> = self.tree.get_subcommands().filter(of_others).map(clap::Command::get_name).collect();
        let otherwise = match others.is_empty() {
            true => format!("{program} --help lists them"),
            false => format!("it is one of loadgen {}", others.join(", ")),
        };
        Some(format!("{flag}: {program} has no such flag; {}", self.meant(ContextKind::SuggestedArg, otherwise)))
    }

    fn not_one_of(&self) -> Option<String> {
        let flag = self.flag()?;
        let value = self.text(ContextKind::InvalidValue)?;
        let allowed = self.texts(ContextKind::ValidValue).join(", ");
        if value.is_empty() {
            let allowed = if allowed.is_empty() { self.about(&flag)? } else { allowed };
            return Some(format!("{flag}: has no value; allowed: {allowed}; write one behind it"));
        }
        let meant = self.meant(ContextKind::SuggestedValue, "choose one of these".to_owned());
        Some(format!("{flag} = {value}: is unknown; allowed: {allowed}; {meant}"))
    }

    fn not_a_value(&self) -> Option<String> {
        let flag = self.flag()?;
        let value = self.text(ContextKind::InvalidValue)?;
        let why = std::error::Error::source(self.error)?.to_string();
        let why = why.strip_prefix(&format!("'{value}' ")).unwrap_or(&why);
        let told = format!("{flag} = {value}: {why}");
        // What a library's parser says has no range; the flag's own line does.
        match ["allowed", "write", "give"].iter().any(|word| why.contains(word)) {
            true => Some(told),
            false => Some(format!("{told}; allowed: {}; choose such a value", self.about(&flag)?)),
        }
    }

    fn conflict(&self) -> Option<String> {
        let flag = self.flag()?;
        let others: Vec<String> = self.texts(ContextKind::PriorArg).iter().map(|text| name_of(text)).collect();
        if others.iter().all(|other| *other == flag) {
            return Some(format!("{flag}: is there twice; leave one out"));
        }
        Some(format!("{flag}: does not go with {}; leave one of the two out", others.join(", ")))
    }

    fn missing(&self) -> Option<String> {
        let missing = self.texts(ContextKind::InvalidArg);
        let told = |text: &String| match self.about(&name_of(text)) {
            Some(about) => format!("{text} ({about})"),
            None => text.clone(),
        };
        let told: Vec<String> = missing.iter().map(told).collect();
        Some(format!("{} is missing; {} needs it; add it", told.join(", "), self.program()))
    }

    fn too_many(&self) -> Option<String> {
        let flag = self.flag()?;
        let value = self.text(ContextKind::InvalidValue)?;
        Some(format!("{flag} = {value}: takes no value; write {flag} alone"))
    }

    /// The line that the help has on a flag or a word.
    fn about(&self, name: &str) -> Option<String> {
        let command = self.command.and_then(|command| self.tree.find_subcommand(command)).unwrap_or(self.tree);
        let is_it = |arg: &&clap::Arg| match arg.get_long() {
            Some(long) => name == format!("--{long}"),
            None => arg.get_value_names().is_some_and(|names| names.iter().any(|word| name.contains(word.as_str()))),
        };
        let arg = command.get_arguments().chain(self.tree.get_arguments()).find(is_it)?;
        let values = arg.get_possible_values();
        match values.is_empty() || !arg.get_action().takes_values() {
            true => Some(arg.get_help()?.to_string()),
            false => Some(values.iter().map(|value| value.get_name()).collect::<Vec<_>>().join(", ")),
        }
    }
}

/// `--rate` of `--rate <PER_S>`.
fn name_of(text: &str) -> String {
    text.split_whitespace().next().unwrap_or(text).to_owned()
}
