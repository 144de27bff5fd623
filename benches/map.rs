//! Reads the workspace as text and holds it against ARCHITECTURE.md: arrows between crates, no circles between modules, the server's
//! code touched in one place of the load generator, functions that fit a screen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Lines from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Crates from the bottom floor up, with the crates of ours that each may use.
const FLOORS: [(&str, &[&str]); 6] = [
    ("reports", &[]),
    ("scheduling", &[]),
    ("otlp", &["scheduling"]),
    ("server", &["scheduling", "otlp"]),
    ("loadgen", &["reports", "scheduling", "otlp", "server"]),
    ("benches", &["reports", "server", "loadgen"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The code without its tests and comments.
fn code(path: &Path) -> String {
    let text = read(path);
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn crates_use_only_crates_below_them() {
    for (name, allowed) in FLOORS {
        let manifest = read(&root().join(name).join("Cargo.toml"));
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let dependencies = dependencies.split("\n[dev-dependencies]").next().unwrap_or_default();
        for (other, _) in FLOORS {
            let uses = dependencies
                .lines()
                .any(|line| line.starts_with(&format!("{other}.")) || line.starts_with(&format!("{other} ")));
            assert!(!uses || allowed.contains(&other), "{name} must not depend on {other}");
        }
    }
}

#[test]
fn the_load_generator_touches_the_server_in_one_file() {
    for path in sources(&root().join("loadgen/src")) {
        if !path.ends_with("serve.rs") {
            // Not what another crate calls so (`hyper::server::`).
            let uses = code(&path).replace("::server::", "").contains("server::");
            assert!(!uses, "{}: only serve.rs may use the server's code", path.display());
        }
    }
}

#[test]
fn the_bottom_floor_has_no_clock_no_network_and_no_async() {
    for path in sources(&root().join("reports/src")) {
        for word in ["std::time", "std::net", "async ", "tokio", "SystemTime", "Instant::"] {
            assert!(!code(&path).contains(word), "{}: {word} has no place in reports", path.display());
        }
    }
}

/// The top-level module of its crate that a file belongs to; `None` for the crate's root and the binary.
fn module_of(path: &Path, source: &Path) -> Option<String> {
    let first = path.strip_prefix(source).ok()?.components().next()?.as_os_str().to_str()?;
    let name = first.trim_end_matches(".rs");
    (!matches!(name, "lib" | "main")).then(|| name.to_owned())
}

/// Modules named behind `crate::`, also inside braces.
fn modules_used(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (_, rest) in code.match_indices("crate::").map(|(at, found)| code.split_at(at + found.len())) {
        let path = rest.split(';').next().unwrap_or_default();
        let names = match path.strip_prefix('{') {
            Some(list) => list
                .split('}')
                .next()
                .unwrap_or_default()
                .split(',')
                .map(|item| item.trim().split("::").next().unwrap_or_default())
                .collect(),
            None => vec![path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()],
        };
        used.extend(names.into_iter().map(str::to_owned));
    }
    used
}

fn imports(krate: &str) -> BTreeMap<String, BTreeSet<String>> {
    let source = root().join(krate).join("src");
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in sources(&source) {
        // Compiled for tests only, which may look anywhere.
        if path.ends_with("tests.rs") || path.ends_with("fixtures.rs") {
            continue;
        }
        if let Some(module) = module_of(&path, &source) {
            imports.entry(module).or_default().extend(modules_used(&code(&path)));
        }
    }
    let modules: BTreeSet<String> = imports.keys().cloned().collect();
    for (module, used) in &mut imports {
        used.retain(|other| modules.contains(other) && other != module);
    }
    imports
}

fn circle_through(module: &str, imports: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut paths = vec![vec![module.to_owned()]];
    let mut seen = BTreeSet::new();
    while let Some(path) = paths.pop() {
        for next in &imports[path.last()?] {
            if next == module {
                return Some(path);
            }
            if seen.insert(next.clone()) {
                paths.push([path.as_slice(), std::slice::from_ref(next)].concat());
            }
        }
    }
    None
}

#[test]
fn modules_of_a_crate_form_no_circle() {
    for krate in ["reports", "scheduling", "otlp", "server", "loadgen"] {
        let imports = imports(krate);
        for module in imports.keys() {
            if let Some(circle) = circle_through(module, &imports) {
                panic!("circle in {krate}: {} -> {module}", circle.join(" -> "));
            }
        }
    }
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    for krate in ["reports/src", "otlp/src", "server/src", "loadgen/src", "benches"] {
        for path in sources(&root().join(krate)) {
            assert!(read(&path).starts_with("//!"), "{}: begin with //! and what the file is for", path.display());
        }
    }
}

#[test]
fn functions_fit_a_screen() {
    let mut long = Vec::new();
    for folder in ["reports", "scheduling", "otlp", "server", "loadgen", "benches"] {
        for path in sources(&root().join(folder)) {
            long.extend(long_functions(&read(&path)).map(|found| format!("{}:{found}", path.display())));
        }
    }
    assert!(long.is_empty(), "functions of more than {FUNCTION_LINES_MAX} lines:\n{}", long.join("\n"));
}

/// Relies on rustfmt: a function ends at the first line that is its own indentation and a brace.
fn long_functions(text: &str) -> impl Iterator<Item = String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (begin, line) in lines.iter().enumerate() {
        let name = line.trim_start();
        let is_function =
            ["fn ", "pub fn ", "async fn ", "pub async fn ", "pub(crate) fn ", "const fn ", "pub const fn "]
                .iter()
                .any(|start| name.starts_with(start));
        if is_function && !line.ends_with(['}', ';']) {
            let end = format!("{}}}", " ".repeat(line.len() - name.len()));
            let length = lines[begin..].iter().position(|line| *line == end).map_or(1, |at| at + 1);
            if length > FUNCTION_LINES_MAX {
                found.push(format!("{} {} has {length} lines", begin + 1, name.split('(').next().unwrap_or_default()));
            }
        }
    }
    found.into_iter()
}

#[test]
fn the_checks_of_this_file_can_fail() {
    let body = "    let x = 1;\n".repeat(FUNCTION_LINES_MAX);
    assert_eq!(long_functions(&format!("fn long() {{\n{body}}}\n")).count(), 1);
    assert_eq!(long_functions("fn short() {\n    let x = 1;\n}\n").count(), 0);
    let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(modules_used("use crate::{a::B, c};\nlet x = crate::d::e();"), set(&["a", "c", "d"]));
    let imports: BTreeMap<_, _> = [("a", vec!["b"]), ("b", vec!["c"]), ("c", vec!["a"]), ("d", vec!["a"])]
        .into_iter()
        .map(|(module, used)| (module.to_owned(), set(&used)))
        .collect();
    assert!(circle_through("a", &imports).is_some());
    assert!(circle_through("d", &imports).is_none());
}
