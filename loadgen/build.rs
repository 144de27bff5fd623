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
    println!("cargo::rerun-if-changed=src");
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
