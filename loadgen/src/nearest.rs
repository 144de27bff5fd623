//! What somebody probably meant: the known word that a mistyped one is nearest to.

use std::path::Path;

/// The word of `known` that differs from `word` by a slip: a letter too much, too few or wrong, or two swapped, and a second one in
/// longer words.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let allowed = 1 + word.chars().count() / 4;
    let distances = known.into_iter().map(|known| (strsim::osa_distance(known, word), known));
    distances.filter(|(distance, _)| *distance <= allowed).min().map(|(_, known)| known)
}

/// `did you mean WORD?`, or what else to do.
pub fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>, otherwise: &str) -> String {
    nearest(word, known).map_or_else(|| otherwise.to_owned(), |known| format!("did you mean {known}?"))
}

/// A path that is there and differs from `path`, which is not, by a slip in its last part.
pub fn nearest_path(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = std::fs::read_dir(folder.unwrap_or(Path::new("."))).ok()?;
    let names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let found = nearest(name, names.iter().map(String::as_str))?;
    Some(folder.map_or_else(|| found.to_owned(), |folder| folder.join(found).display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood_and_another_word_is_not() {
        let modes = ["null", "cache-first", "journal-first", "db-first"];
        for (word, expected) in [
            ("cache-frist", Some("cache-first")),
            ("cachefirst", Some("cache-first")),
            ("nul", Some("null")),
            ("dbfirst", Some("db-first")),
            ("fast", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, modes), expected, "{word}");
        }
        assert_eq!(did_you_mean("wkae", ["wake", "fixed"], "choose one"), "did you mean wake?");
        assert_eq!(did_you_mean("no", ["wake", "fixed"], "choose one"), "choose one");
    }

    #[test]
    fn a_path_is_looked_for_beside_the_one_that_is_not_there() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("python")).expect("a folder");
        let found = nearest_path(&folder.path().join("pyhton"));
        assert_eq!(found, Some(folder.path().join("python").display().to_string()));
        assert_eq!(nearest_path(&folder.path().join("elixir")), None);
        assert_eq!(nearest_path(Path::new("/no/such/folder/python")), None);
    }
}
