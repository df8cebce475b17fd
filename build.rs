//! Notes facts of the build for `factlib --version`: the target, and the commit.

use std::{env, process::Command};

/// The commit is `FACTLIB_COMMIT` where it is set, as in an image, else git's in a release build;
/// a build for development would begin anew with each commit.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=FACTLIB_COMMIT");
    // Cargo sets these for what it runs, too: named FACTLIB_, they would be settings there.
    println!("cargo:rustc-env=BUILT_FOR_TARGET={}", env::var("TARGET").unwrap_or_default());
    let given = env::var("FACTLIB_COMMIT").ok().filter(|commit| !commit.is_empty());
    if let Some(commit) = given.or_else(commit_of_git) {
        println!("cargo:rustc-env=BUILT_OF_COMMIT={commit}");
    }
}

fn commit_of_git() -> Option<String> {
    if env::var("PROFILE").ok()? != "release" {
        return None;
    }
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        Some(text.trim().to_owned()).filter(|_| output.status.success())
    };
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if std::path::Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}
