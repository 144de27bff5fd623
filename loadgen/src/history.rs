//! `loadgen history`: reads every run in a folder, has them put in the order of time, writes history.json and history.html.

use std::io;
use std::path::{Path, PathBuf};

use reports::history::{self, Entry, History, LeftOut};
use reports::html;
use reports::schema::{self, ReadError};

/// Largest file that is read, bytes: a run of a day has a tenth of it.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Most files that are looked at.
const FILES_MAX: usize = 10_000;

/// How deep folders in folders are looked at.
const DEPTH_MAX: usize = 16;

/// What this command writes itself, by name: no run, and no reason to tell anybody.
const OWN: &str = "history.json";

/// Why there is no history. All of it is for whoever gave the folder to mend.
#[derive(Debug, thiserror::Error)]
pub enum HistoryFailure {
    /// No such folder, or no right to read or write it.
    #[error("{0}: {1}")]
    File(String, io::Error),
    /// Nothing in it is a run.
    #[error("{folder}: no run in it{}; give the folder that has the folders with run.json in it", told(left_out))]
    Empty {
        /// As given.
        folder: String,
        /// What was found in place of runs.
        left_out: Vec<LeftOut>,
    },
}

/// The first few of what was found in place of runs.
fn told(left_out: &[LeftOut]) -> String {
    const TOLD_MAX: usize = 5;
    let lines: Vec<String> =
        left_out.iter().take(TOLD_MAX).map(|file| format!("\n  {}: {}", file.path, file.reason)).collect();
    let more = left_out.len().saturating_sub(TOLD_MAX);
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    if lines.is_empty() { String::new() } else { format!(", but{}{more}\n", lines.concat()) }
}

/// Makes every run in `folder`, and in the folders in it, a part of a history, and writes the two files to `out`, or to the folder itself;
/// where they are.
///
/// # Errors
/// See [`HistoryFailure`].
pub fn history(folder: &Path, out: Option<&Path>) -> Result<(History, [PathBuf; 2]), HistoryFailure> {
    let fail = |path: &Path, error: io::Error| HistoryFailure::File(path.display().to_string(), error);
    // Of this folder alone an error is one; what cannot be read inside of it is told.
    std::fs::read_dir(folder).map_err(|error| fail(folder, error))?;
    let mut found = Found { root: folder, entries: Vec::new(), left_out: Vec::new(), files: 0 };
    found.look_into(folder, 0);
    let Found { entries, left_out, .. } = found;
    if entries.is_empty() {
        return Err(HistoryFailure::Empty { folder: folder.display().to_string(), left_out });
    }
    let history = history::history(entries, left_out);
    let out = out.unwrap_or(folder);
    std::fs::create_dir_all(out).map_err(|error| fail(out, error))?;
    let files = [out.join(OWN), out.join("history.html")];
    for (path, text) in files.iter().zip([history::write(&history), html::history::render(&history)]) {
        std::fs::write(path, text).map_err(|error| fail(path, error))?;
    }
    Ok((history, files))
}

/// What is in a folder.
struct Found<'a> {
    root: &'a Path,
    entries: Vec<Entry>,
    left_out: Vec<LeftOut>,
    files: usize,
}

impl Found<'_> {
    fn look_into(&mut self, folder: &Path, depth: usize) {
        let mut paths: Vec<PathBuf> = match std::fs::read_dir(folder) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
            Err(error) => return self.leave_out(folder, format!("the folder cannot be read: {error}")),
        };
        paths.sort();
        for path in paths {
            // Of a link to a folder it is that of the link: following it could lead round in a circle.
            let Ok(kind) = path.symlink_metadata().map(|metadata| metadata.file_type()) else { continue };
            let is_json = path.extension().is_some_and(|extension| extension == "json");
            if kind.is_dir() && depth + 1 == DEPTH_MAX {
                self.leave_out(&path, format!("folders are looked into {DEPTH_MAX} deep, and this is deeper"));
            } else if kind.is_dir() {
                self.look_into(&path, depth + 1);
            } else if is_json && path.file_name().is_none_or(|name| name != OWN) {
                self.files += 1;
                match self.files.cmp(&(FILES_MAX + 1)) {
                    std::cmp::Ordering::Less => self.read(&path),
                    std::cmp::Ordering::Equal => {
                        self.leave_out(
                            &path,
                            format!("{FILES_MAX} files are looked at, and not this one and those after it"),
                        );
                    }
                    std::cmp::Ordering::Greater => {}
                }
            }
        }
    }

    fn read(&mut self, path: &Path) {
        match run_in(path) {
            Ok(run) => match Entry::of(&self.shown(path), run) {
                Ok(entry) => self.entries.push(entry),
                Err(left_out) => self.left_out.push(left_out),
            },
            Err(reason) => self.leave_out(path, reason),
        }
    }

    fn leave_out(&mut self, path: &Path, reason: String) {
        let path = self.shown(path);
        self.left_out.push(LeftOut { path, reason });
    }

    /// Without the part that all have in common.
    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(self.root).unwrap_or(path).display().to_string()
    }
}

fn run_in(path: &Path) -> Result<reports::model::Run, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("it has {length} bytes; files of up to {FILE_BYTES_MAX} are read"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    schema::read(&text).map_err(|error: ReadError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run that was committed, begun on day `day`.
    fn write_run(folder: &Path, day: u32) {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../reports/fixtures/three-modes.json");
        let mut run = schema::read(&std::fs::read_to_string(fixture).expect("a fixture")).expect("a run");
        (run.run_id, run.started_at) = (format!("run-{day}"), format!("2026-11-{day:02}T00:00:00Z"));
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(folder.join("run.json"), schema::write(&run)).expect("a file");
    }

    fn of(folder: &Path) -> Result<(History, [PathBuf; 2]), HistoryFailure> {
        history(folder, None)
    }

    #[test]
    fn runs_are_found_in_folders_of_folders_and_what_is_none_is_told_and_stops_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        for (place, day) in [("b", 1), ("a", 2), ("deep/er/c", 3)] {
            write_run(&folder.path().join(place), day);
        }
        for (name, text) in [("a/gate.json", r#"{"schema":"gate.v1"}"#), ("broken.json", "{"), ("notes.txt", "hello")] {
            std::fs::write(folder.path().join(name), text).expect("a file");
        }
        std::os::unix::fs::symlink(folder.path(), folder.path().join("circle")).expect("a link");
        for repetition in 0..2 {
            let (history, files) = of(folder.path()).expect("a history");
            let paths: Vec<&str> = history.settings[0].runs.iter().map(|run| run.path.as_str()).collect();
            assert_eq!(paths, ["b/run.json", "a/run.json", "deep/er/c/run.json"], "repetition {repetition}");
            let told: Vec<(&str, &str)> =
                history.left_out.iter().map(|file| (file.path.as_str(), &file.reason[..16])).collect();
            assert_eq!(told, [("a/gate.json", "this is no run.v"), ("broken.json", "this is not JSON")]);
            assert!(files.iter().all(|file| file.is_file()));
        }
    }

    #[test]
    fn a_folder_without_runs_is_refused_with_what_was_there_and_the_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("x.json"), "[]").expect("a file");
        let message = of(folder.path()).expect_err("nothing to show").to_string();
        assert!(message.contains("no run in it, but\n  x.json: this is no run.v1 result"), "{message}");
        assert!(message.ends_with("give the folder that has the folders with run.json in it"), "{message}");
        assert!(matches!(of(&folder.path().join("nowhere")), Err(HistoryFailure::File(..))));
    }
}
