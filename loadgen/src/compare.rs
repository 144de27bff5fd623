//! `loadgen compare`: reads results, puts them side by side, writes compare.json and compare.html.

use std::path::{Path, PathBuf};

use reports::comparison::{self, CompareError, Comparison, Input};
use reports::html;
use reports::schema::{self, ReadError};

/// Why there is no comparison. All of it is for whoever gave the files to mend.
#[derive(Debug, thiserror::Error)]
pub enum CompareFailure {
    /// No such file, or no right to read or write it.
    #[error("{0}: {1}")]
    File(String, std::io::Error),
    /// It is no result.
    #[error("{0}: {1}")]
    NotARun(String, ReadError),
    /// The results do not go together.
    #[error(transparent)]
    Comparison(#[from] CompareError),
}

/// Compares these results (files, or their folders), and writes the two files; where they are. Ratios are to `reference`, or to the first;
/// the files go to `out`, or beside the first.
///
/// # Errors
/// See [`CompareFailure`].
pub fn compare(
    runs: &[PathBuf],
    reference: Option<&str>,
    out: Option<&Path>,
) -> Result<(Comparison, [PathBuf; 2]), CompareFailure> {
    let paths: Vec<PathBuf> =
        runs.iter().map(|path| if path.is_dir() { path.join("run.json") } else { path.clone() }).collect();
    let names = distinct_names(&paths);
    let mut inputs = Vec::new();
    for (path, name) in paths.iter().zip(names) {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| CompareFailure::File(shown.clone(), error))?;
        inputs.push(Input { name, run: schema::read(&text).map_err(|error| CompareFailure::NotARun(shown, error))? });
    }
    let comparison = comparison::compare(&inputs, reference)?;
    let folder = out.or_else(|| paths.first()?.parent()).unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder).map_err(|error| CompareFailure::File(folder.display().to_string(), error))?;
    let files = [folder.join("compare.json"), folder.join("compare.html")];
    for (path, text) in files.iter().zip([comparison::write(&comparison), html::comparison::render(&comparison)]) {
        std::fs::write(path, text).map_err(|error| CompareFailure::File(path.display().to_string(), error))?;
    }
    Ok((comparison, files))
}

/// The parts of the paths that tell them apart; of a single one, its folder.
fn distinct_names(paths: &[PathBuf]) -> Vec<String> {
    let parts: Vec<Vec<String>> = paths
        .iter()
        .map(|path| path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect())
        .collect();
    let shortest = parts.iter().map(Vec::len).min().unwrap_or(0);
    let all_share = |read: &dyn Fn(&[String]) -> String| parts.iter().all(|of| read(of) == read(&parts[0]));
    let front = (0..shortest).take_while(|i| all_share(&|of| of[*i].clone())).count();
    let back =
        (0..shortest - front.min(shortest)).take_while(|i| all_share(&|of| of[of.len() - 1 - i].clone())).count();
    parts
        .iter()
        .map(|of| match of.get(front..of.len() - back).unwrap_or_default() {
            [] => of[of.len().saturating_sub(2)..].first().cloned().unwrap_or_default(),
            told => told.join("/"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_called_by_what_tells_them_apart() {
        for (paths, names) in [
            (&["results/old/run.json", "results/new/run.json"][..], &["old", "new"][..]),
            (&["a.json", "b.json"], &["a", "b"]),
            (&["x/a/1/run.json", "x/b/run.json"], &["a/1", "b"]),
            (&["results/one/run.json"], &["one"]),
            (&["run.json"], &["run"]),
        ] {
            let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
            assert_eq!(distinct_names(&paths), names, "{paths:?}");
        }
    }
}
