//! A command line in place of a profile.

use std::time::Duration;

use super::{Action, DatabaseKind, Profile, Text, build};

const PORT: &str = "{port}";
const NAME_CHARACTERS_MAX: usize = 40;

/// See [`Profile::from_command`].
pub fn profile(line: &str) -> Result<Profile, String> {
    let command = words(line)?;
    let program = command.first().ok_or("it is empty")?;
    if !command.iter().any(|word| word.contains(PORT)) {
        return Err(format!("it has no {PORT}, and its target must listen on the port that it is given"));
    }
    let folder = std::env::current_dir().map_err(|error| format!("the current folder is gone: {error}"))?;
    let name = program.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let fits = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
    let name: String = name.chars().filter(fits).take(NAME_CHARACTERS_MAX).collect();
    let mut profile = build::profile("name = 'command'\n[start]\ncommand = ['x']", &folder)
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    if !name.is_empty() {
        profile.name = name;
    }
    profile.database = DatabaseKind::Any(Text::new("{data}/events.db"));
    profile.start = Some(Action {
        command: command.into_iter().map(Text::new).collect(),
        environment: vec![
            ("INGEST_DATABASE".to_owned(), Text::new("{database_url}")),
            ("INGEST_JOURNAL_DIR".to_owned(), Text::new("{data}/journal")),
        ],
        timeout: Duration::ZERO,
    });
    let known = ["port", "data", "profile", "loadgen", "database_url", "database_file", "database_name"];
    let parts = profile.start.iter().flat_map(|start| &start.command);
    let unknown = parts.flat_map(Text::placeholders).find(|name| !known.contains(name) && !name.starts_with("env."));
    match unknown {
        Some(name) => Err(format!("{{{name}}} stands for nothing; there are: {{{}}}", known.join("} {"))),
        None => Ok(profile),
    }
}

/// Words, split at white space outside of quotes; a backslash takes the next character as it is, except within single quotes.
fn words(line: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                word.get_or_insert_default().push(characters.next().ok_or("it ends with a backslash")?);
            }
            (None, space) if space.is_whitespace() => words.extend(word.take()),
            (_, other) => word.get_or_insert_default().push(other),
        }
    }
    if let Some(open) = quote {
        return Err(format!("the quote {open} is not closed"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        for (line, expected) in [
            ("a b  c", vec!["a", "b", "c"]),
            (r#"a 'b c' "d 'e'" f\ g "h\"i" '\j' k''l """#, vec!["a", "b c", "d 'e'", "f g", "h\"i", "\\j", "kl", ""]),
            ("  ", vec![]),
        ] {
            assert_eq!(words(line).expect(line), expected, "{line}");
        }
        assert!(words("a 'b").is_err() && words("a \\").is_err());
    }

    #[test]
    fn a_command_is_a_target_that_follows_the_contract() {
        let profile =
            Profile::from_command("./target/release/Ingest-Server --listen 127.0.0.1:{port}").expect("a target");
        assert_eq!((profile.name.as_str(), profile.target_name().as_str()), ("ingest-server", "ingest-server"));
        assert_eq!(*profile.dialect, crate::dialect::Dialect::contract());
        assert_eq!(profile.start.expect("a start").command[2].as_str(), "127.0.0.1:{port}");
        for (line, expected) in [
            ("", "is empty"),
            ("server --port 80", "it has no {port}"),
            ("server {port} {prot}", "{prot} stands for nothing; there are: {port} {data}"),
            ("server {port} 'x", "the quote ' is not closed"),
        ] {
            let error = Profile::from_command(line).expect_err(line).to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
