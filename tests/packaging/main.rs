//! What is shipped beside the binary says what the binary says.

#[cfg(target_os = "linux")]
mod deb;
mod features;
mod monitoring;
mod settings;

use std::{fs, path::Path};

/// A file of the repository.
fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect(name)
}

/// The documents of a YAML file.
fn yaml(name: &str) -> Vec<serde_json::Value> {
    serde_saphyr::from_multiple(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}
