//! Puts the git revision into the build, so that every result says what measured it. Outside a checkout it is `unknown`.

use std::process::Command;

fn main() {
    let revision = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    println!("cargo::rustc-env=MILLRACE_REVISION={revision}{}", if dirty { "-dirty" } else { "" });
    println!("cargo::rustc-env=MILLRACE_BUILD_PROFILE={}", std::env::var("PROFILE").unwrap_or_default());
    if let Some(folder) = git(&["rev-parse", "--absolute-git-dir"]) {
        for file in ["HEAD", "index", "logs/HEAD"] {
            println!("cargo::rerun-if-changed={folder}/{file}");
        }
    }
    // All that the program is built of: a change to another crate makes this build one of a changed revision too.
    for path in ["src", "Cargo.toml", "../Cargo.lock", "../Cargo.toml", "../server/migrations"] {
        println!("cargo::rerun-if-changed={path}");
    }
    for member in ["otlp", "reports", "scheduling", "server"] {
        println!("cargo::rerun-if-changed=../{member}/src");
        println!("cargo::rerun-if-changed=../{member}/Cargo.toml");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
