//! Holds the documents for people: their links, the site's navigation, their blocks of code.

mod blocks;
mod links;
mod navigation;
mod results;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folders with documents, beside those at the root of the repository.
const FOLDERS: [&str; 3] = ["", "docs", "crates"];

/// The repository.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The text of a file of the repository.
fn read(name: impl AsRef<Path>) -> String {
    let name = name.as_ref();
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name:?}: {error}"))
}

/// Every document, as a path from the root.
fn documents() -> Vec<PathBuf> {
    let found: Vec<_> = FOLDERS.iter().flat_map(|folder| documents_of(folder)).collect();
    assert!(found.len() > 20, "{found:?}");
    found
}

/// Markdown files in a folder; in all folders below it, unless it is the root.
fn documents_of(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        let name = path.strip_prefix(root()).expect("below the root").to_path_buf();
        if path.is_dir() && !folder.is_empty() && !path.ends_with("target") {
            found.extend(documents_of(name.to_str().expect("UTF-8")));
        } else if path.extension().is_some_and(|end| end == "md") {
            found.push(name);
        }
    }
    found.sort();
    found
}
