//! The configuration: which source wins, every name that sets something, every
//! mistake as the operator reads it, and that no secret is ever shown.

mod mistakes;
mod pipelines;
mod rules;
mod secrets;
mod sources;

use std::{fs, path::Path};

use factlib::{
    ErrorKind,
    binary::{Loaded, Loader},
};
use tempfile::TempDir;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("a file in it");
    }
    folder
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn load(file: &str, variables: &[(&str, &str)]) -> Loaded {
    let folder = folder(&[("factlib.toml", file)]);
    Loader::new(folder.path()).env(env(variables)).load().expect("a valid configuration")
}

fn source<'a>(loaded: &'a Loaded, name: &str) -> &'a str {
    let value = loaded.values.iter().find(|value| value.name == name);
    &value.unwrap_or_else(|| panic!("{name} is not among the values")).source
}

/// What the operator reads, with the folder's path left out.
fn mistake(folder: &Path, loader: Loader) -> String {
    let error = loader.load().expect_err("a mistake");
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(!text.contains('\n'), "more than a line: {text}");
    text.replace(&format!("{}/", folder.display()), "")
}

fn mistake_in_file(file: &str) -> String {
    let folder = folder(&[("factlib.toml", file)]);
    mistake(folder.path(), Loader::new(folder.path()))
}

fn mistake_in_env(name: &str, value: &str) -> String {
    let folder = folder(&[]);
    mistake(folder.path(), Loader::new(folder.path()).env(env(&[(name, value)])))
}

fn mistake_in_flag(setting: &str, value: &str) -> String {
    let folder = folder(&[]);
    mistake(folder.path(), Loader::new(folder.path()).flag("--set", setting, value))
}
