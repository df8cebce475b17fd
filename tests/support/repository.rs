//! Files of this repository.

use std::{fs, path::Path};

/// The text of a file.
pub fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect(name)
}

/// The documents of a YAML file.
pub fn yaml(name: &str) -> Vec<serde_json::Value> {
    serde_saphyr::from_multiple(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}
