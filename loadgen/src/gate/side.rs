//! One of the two things that a gate compares: a build of the reference server, a target profile, or any other server by its command line.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reports::gate::model;
use reports::model::Variant;
use sha2::{Digest, Sha256};

use crate::plan::{Resolved, ServerBuild};
use crate::profile::{Profile, ProfileError};

/// Flags of the reference server that a round decides itself.
const OWN_FLAGS: [&str; 3] = ["--listen", "--database", "--exit-with-stdin"];

/// A command that cannot be one of the two.
#[derive(Debug, thiserror::Error)]
pub enum SideError {
    /// Not what starts the reference server.
    #[error(
        "--{side} = {text}: {problem}; give a command such as 'loadgen serve --mode cache-first' or './old/loadgen serve', a target profile (a file, \
         or its folder), or the command of another server with {{port}} in it"
    )]
    Command {
        /// `baseline` or `candidate`.
        side: &'static str,
        /// As given.
        text: String,
        /// What is wrong.
        problem: String,
    },
    /// Not a profile.
    #[error("--{side}: {source}")]
    Profile {
        /// `baseline` or `candidate`.
        side: &'static str,
        /// What is wrong with it.
        source: ProfileError,
    },
    /// No such program.
    #[error("--{side} = {text}: cannot read the program {program}: {source}; build it, or mend the path")]
    Program {
        /// `baseline` or `candidate`.
        side: &'static str,
        /// As given.
        text: String,
        /// Where it was looked for.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Side {
    /// For the result.
    pub shown: model::Side,
    /// What is measured.
    pub variant: Variant,
    /// How it is started, if it is the reference server.
    pub server: ServerBuild,
    /// How it is started, if it is not.
    pub profile: Option<Arc<Profile>>,
}

impl Side {
    /// Out of a command or the place of a profile; `None`: this program. `mode` and `polling` are for a reference server that does not say.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(
        side: &'static str,
        text: Option<&str>,
        faults: &[String],
        unsaid: (&str, &str),
    ) -> Result<Self, SideError> {
        match text {
            Some(text) if Path::new(text).is_dir() || text.ends_with(".toml") || text.contains("{port}") => {
                Self::of_profile(side, text, faults)
            }
            _ => Self::of_reference(side, text.unwrap_or("loadgen serve"), faults, unsaid),
        }
    }

    fn of_profile(side: &'static str, text: &str, faults: &[String]) -> Result<Self, SideError> {
        if let Some(fault) = faults.first() {
            let problem = format!("--{side}-fault {fault} is for the reference server alone");
            return Err(SideError::Command { side, text: text.to_owned(), problem });
        }
        let profile = match text.contains("{port}") {
            true => Profile::from_command(text),
            false => Profile::load(Path::new(text)),
        };
        let profile = profile.map_err(|source| SideError::Profile { side, source })?;
        let place = std::path::absolute(text).map_or_else(|_| text.to_owned(), |path| path.display().to_string());
        Ok(Self {
            shown: model::Side {
                name: text.to_owned(),
                command: vec![place],
                program_sha256: None,
                version: None,
                faults: Vec::new(),
            },
            variant: Variant { name: side.to_owned(), ..profile.variant() },
            server: ServerBuild::default(),
            profile: Some(Arc::new(profile)),
        })
    }

    /// What is to be followed to measure it, where everything else is as in `resolved`.
    pub fn in_plan(&self, resolved: &Resolved) -> Resolved {
        let profiles = self.profile.iter().map(|profile| (self.variant.name.clone(), Arc::clone(profile)));
        let profiles: BTreeMap<_, _> = profiles.collect();
        Resolved { server: self.server.clone(), profiles, ..resolved.clone() }
    }

    fn of_reference(
        side: &'static str,
        text: &str,
        faults: &[String],
        (mode, polling): (&str, &str),
    ) -> Result<Self, SideError> {
        let refuse = |problem: String| SideError::Command { side, text: text.to_owned(), problem };
        let words = words(text).ok_or_else(|| refuse("a quote is not closed".to_owned()))?;
        let (first, flags) = words.split_first().ok_or_else(|| refuse("there is nothing in it".to_owned()))?;
        let flags = if flags.first().is_some_and(|word| word == "serve") { &flags[1..] } else { flags };
        if let Some(own) = OWN_FLAGS.iter().find(|own| flags.iter().any(|flag| flag.split('=').next() == Some(**own))) {
            return Err(refuse(format!(
                "{own} is decided by the gate, which starts each round on data and a port of its own"
            )));
        }
        let program = if first == "loadgen" { None } else { Some(PathBuf::from(first)) };
        let path = program.clone().map_or_else(std::env::current_exe, Ok);
        let sha256 = path.and_then(|path| sha256(&path)).map_err(|source| SideError::Program {
            side,
            text: text.to_owned(),
            program: program.clone().unwrap_or_default(),
            source,
        })?;
        let value = |flag: &str| {
            let at = flags.iter().position(|word| word == flag).and_then(|at| flags.get(at + 1).cloned());
            at.or_else(|| flags.iter().find_map(|word| word.strip_prefix(flag)?.strip_prefix('=').map(str::to_owned)))
        };
        let variant = Variant {
            name: side.to_owned(),
            url: None,
            mode: Some(value("--mode").unwrap_or_else(|| mode.to_owned())),
            polling: Some(value("--polling").unwrap_or_else(|| polling.to_owned())),
            role: None,
            profile: None,
        };
        let fault_flags = faults.iter().flat_map(|fault| ["--fault".to_owned(), fault.clone()]);
        // Absolute, since a path is otherwise looked for where the server is started.
        let program = program.map(|program| std::path::absolute(&program).unwrap_or(program));
        Ok(Self {
            shown: model::Side {
                name: text.to_owned(),
                command: words.clone(),
                program_sha256: Some(sha256),
                version: None,
                faults: faults.to_vec(),
            },
            variant,
            server: ServerBuild { program, flags: without_variant(flags).chain(fault_flags).collect() },
            profile: None,
        })
    }
}

/// What is given already as mode and policy cannot be given twice.
fn without_variant(flags: &[String]) -> impl Iterator<Item = String> + '_ {
    let mut is_value = false;
    flags
        .iter()
        .filter(move |flag| {
            if std::mem::take(&mut is_value) {
                return false;
            }
            let of_variant = ["--mode", "--polling"].into_iter().find(|own| flag.split('=').next() == Some(own));
            is_value = of_variant.is_some_and(|own| *flag == own);
            of_variant.is_none()
        })
        .cloned()
}

/// Words as a shell divides them: at spaces outside of quotes. `None`: a quote is not closed.
fn words(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in text.chars() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => digest.update(&buffer[..read]),
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(text: &str) -> Result<Side, String> {
        Side::of("baseline", Some(text), &["cpu=1us".to_owned()], ("cache-first", "wake"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_command_says_how_the_server_is_started() {
        for (text, mode, polling, flags) in [
            ("loadgen serve", "cache-first", "wake", &[][..]),
            ("loadgen serve --mode db-first", "db-first", "wake", &[]),
            ("loadgen serve --polling=fixed --http-threads 2 --mode=null", "null", "fixed", &["--http-threads", "2"]),
        ] {
            let side = side(text).expect(text);
            assert_eq!(
                (side.variant.mode.as_deref(), side.variant.polling.as_deref()),
                (Some(mode), Some(polling)),
                "{text}"
            );
            assert_eq!(side.server.flags, [flags, &["--fault", "cpu=1us"]].concat(), "{text}");
            assert_eq!(side.server.program, None);
            assert_eq!(side.shown.program_sha256.map(|text| text.len()), Some(64));
        }
        let program = std::env::current_exe().expect("this test");
        let other = side(&format!("'{}' serve", program.display())).expect("it is there");
        assert_eq!(other.server.program, Some(program));
        assert!(other.shown.is_same_as(&side("loadgen serve").expect("it is there").shown), "from another path");
    }

    #[test]
    fn another_server_is_started_by_its_profile_or_its_command() {
        let other = |text| Side::of("candidate", Some(text), &[], ("cache-first", "wake"));
        let command = other("python3 server.py --port {port}").expect("a command");
        assert!(command.profile.is_some() && command.variant.mode.is_none());
        assert!(
            other("/nowhere/profile.toml").expect_err("nothing there").to_string().contains("cannot read the profile")
        );
        assert!(command.shown.is_same_as(&command.shown.clone()));
        assert!(!command.shown.is_same_as(&other("python3 other.py --port {port}").expect("a command").shown));
    }

    #[test]
    fn what_starts_no_server_is_refused() {
        for (text, part) in [
            (" ", "there is nothing in it"),
            ("loadgen serve '--mode", "a quote is not closed"),
            ("loadgen serve --listen=127.0.0.1:1", "--listen is decided by the gate"),
            ("/nowhere/loadgen serve", "cannot read the program /nowhere/loadgen"),
            ("/nowhere/profile.toml", "--baseline-fault cpu=1us is for the reference server alone"),
        ] {
            let told = side(text).expect_err(text);
            assert!(told.contains(part), "{text} should be told {part:?}: {told}");
        }
    }
}
