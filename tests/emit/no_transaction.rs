//! The compiler says of what is no transaction which drivers, features and versions there are.

use std::{env, fs, path::Path, process::Command};

/// Compiles against the library that this test has, and gives what the compiler says.
fn compile(program: &str) -> String {
    let test = env::current_exe().expect("this test");
    let folder = test.parent().expect("a folder").to_owned();
    let is_ours = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("libfactlib-") && name.ends_with(".rlib")
    };
    let files = fs::read_dir(&folder).expect("a folder").map(|file| file.expect("a file").path());
    let age = |path: &std::path::PathBuf| path.metadata().and_then(|file| file.modified()).ok();
    let library = files.filter(|path| is_ours(path)).max_by_key(age).expect("it was built");
    let out = tempfile::tempdir().expect("a folder");
    let source = out.path().join("program.rs");
    fs::write(&source, program).expect("written");
    let compiled = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata", "--out-dir"])
        .arg(out.path())
        .arg("-L")
        .arg(format!("dependency={}", folder.display()))
        .arg("--extern")
        .arg(format!("factlib={}", library.display()))
        .arg(&source)
        .output();
    String::from_utf8(compiled.expect("a compiler").stderr).expect("text")
}

#[test]
fn the_compiler_names_drivers_features_and_versions() {
    let said = compile(
        "pub struct Pool;
        pub async fn create(pool: &Pool, fact: factlib::emit::Fact) {
            let _ = factlib::emit::emit(pool, fact).await;
        }",
    );
    for text in [
        "`&Pool` is no transaction that this factlib can emit facts in",
        "give a transaction, not a connection, a client or a pool",
        "sqlx 0.9: `&mut transaction`",
        "a feature of factlib that is off unless asked for: `deadpool`, `sqlx`, `diesel-async`",
        "`cargo tree -i sqlx` shows which one factlib has",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    // The versions are those that are built in.
    let manifest = include_str!("../../crates/factlib-emit/Cargo.toml");
    for (driver, version) in [
        ("tokio-postgres", "0.7"),
        ("deadpool-postgres", "0.14"),
        ("sqlx", "0.9"),
        ("diesel-async", "0.9"),
    ] {
        assert!(said.contains(&format!("{driver} {version}")), "{said}");
        let line = manifest.lines().find(|line| line.starts_with(&format!("{driver} = {{")));
        let version = format!("version = \"{version}.");
        assert!(line.is_some_and(|line| line.contains(&version)), "{line:?}");
    }
}
