//! A service of its own, built from the blocks of README.md as a reader would.

use std::{env, fs, path::Path, process::Command};

#[test]
fn the_service_of_the_readme_compiles() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let (_, section) = readme.split_once("\n## Emit facts\n").unwrap();
    let service = tempfile::tempdir().unwrap();
    let manifest = block(section, "toml").replace("../factlib", root.to_str().unwrap());
    let package = "[package]\nname = \"service\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n";
    fs::write(service.path().join("Cargo.toml"), package.to_owned() + &manifest).unwrap();
    fs::create_dir(service.path().join("src")).unwrap();
    fs::write(service.path().join("src/lib.rs"), block(section, "rust,no_run")).unwrap();
    // The versions that are here already.
    fs::copy(root.join("Cargo.lock"), service.path().join("Cargo.lock")).unwrap();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("service");
    let check = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["check", "--offline", "--quiet"])
        .current_dir(service.path())
        .env("CARGO_TARGET_DIR", target)
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

/// The first block of a language.
fn block<'a>(section: &'a str, language: &str) -> &'a str {
    let (_, rest) = section.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0
}
