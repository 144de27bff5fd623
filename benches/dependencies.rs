//! What is depended on: from the public registry alone, with its checksum, under licences that `deny.toml` allows. (`scripts/deny` asks cargo-deny
//! for more; compiling that takes too long for every run of the tests.)

use std::path::Path;
use std::process::Command;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The licences that `deny.toml` allows.
fn allowed() -> Vec<String> {
    let text = read("deny.toml");
    let list = text.split("[licenses]\nallow = [").nth(1).and_then(|rest| rest.split(']').next()).expect("a list");
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether a licence expression can be met: `AND` binds closer than `OR`, and `/` is an old `OR`.
fn is_met(expression: &str, allowed: &[String]) -> bool {
    let expression = expression.replace('/', " OR ");
    let split_at = |word: &str| {
        let (mut parts, mut depth) = (vec![String::new()], 0usize);
        for token in expression.split_whitespace() {
            if token == word && depth == 0 {
                parts.push(String::new());
                continue;
            }
            depth = (depth + token.matches('(').count()).saturating_sub(token.matches(')').count());
            parts.last_mut().expect("one at least").push_str(&format!(" {token}"));
        }
        parts
    };
    let (either, all) = (split_at("OR"), split_at("AND"));
    if either.len() > 1 {
        return either.iter().any(|part| is_met(part, allowed));
    }
    if all.len() > 1 {
        return all.iter().all(|part| is_met(part, allowed));
    }
    let name = expression.trim();
    match name.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        Some(inside) => is_met(inside, allowed),
        None => allowed.iter().any(|licence| licence == name),
    }
}

#[test]
fn every_dependency_is_from_the_public_registry_and_has_a_checksum() {
    for (file, ours) in [("Cargo.lock", 6), ("fuzz/Cargo.lock", 6)] {
        let lock = read(file);
        let packages: Vec<&str> = lock.split("[[package]]").skip(1).collect();
        let others = packages.iter().filter(|package| package.contains("\nsource = "));
        assert_eq!(packages.len() - others.clone().count(), ours, "{file}: a dependency without a source");
        for package in others {
            assert!(
                package.contains(&format!("source = \"{REGISTRY}\"")) && package.contains("checksum = "),
                "{file}: {package}"
            );
        }
    }
}

/// `reports` tests that a number is read back to its last bit; but a dependency of the tests alone asks serde_json for that, too, so that
/// only the fuzzer saw a program that did not.
#[test]
fn numbers_are_read_in_the_program_as_exactly_as_in_its_tests() {
    for file in ["Cargo.toml", "fuzz/Cargo.toml"] {
        let manifest = read(file);
        let line = manifest.lines().find(|line| line.starts_with("serde_json = ")).expect("it reads JSON");
        assert!(line.contains("\"float_roundtrip\""), "{file}: {line}");
    }
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed() {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"]);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let (packages, allowed) = (metadata["packages"].as_array().expect("packages"), allowed());
    assert!(packages.len() > 100 && allowed.len() > 3);
    for package in packages.iter().filter(|package| package["source"] == REGISTRY) {
        let licence = package["license"].as_str().unwrap_or("");
        assert!(is_met(licence, &allowed), "{} is under '{licence}', which deny.toml does not allow", package["name"]);
    }
}

#[test]
fn a_licence_expression_is_met_as_spdx_says() {
    let allowed = ["MIT".to_owned(), "ISC".to_owned()];
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("ISC AND MIT", true),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("(GPL-3.0 OR MIT) AND Zlib", false),
        ("(ISC AND MIT)", true),
        ("MIT WITH LLVM-exception", false),
    ] {
        assert_eq!(is_met(expression, &allowed), expected, "{expression}");
    }
}
