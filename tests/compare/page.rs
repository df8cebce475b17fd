//! The page has the settings as they are, and the tool's places for what it writes.

use std::{fs, path::Path};

use crate::comparison::document::{between, replace, settings, write};

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/comparison.md");
    fs::read_to_string(path).expect("the page")
}

#[test]
fn the_page_shows_the_settings_as_they_are() {
    assert_eq!(
        between(&page(), "compare-settings").unwrap().trim(),
        settings().trim(),
        "docs/comparison.md is out of date: put the files of benches/compare/settings between its markers"
    );
}

#[test]
fn writing_replaces_the_tables_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("page.md");
    fs::write(&copy, page()).unwrap();
    write(&copy, "| new |\n| --- |\n").unwrap();
    let written = fs::read_to_string(&copy).unwrap();
    assert_eq!(between(&written, "compare").unwrap(), "\n| new |\n| --- |\n");
    let before = between(&page(), "compare").unwrap().to_owned();
    assert_eq!(replace(&written, "compare", &before).unwrap(), page());
}

#[test]
fn a_page_without_markers_is_an_error() {
    let error = replace("no markers", "compare", "table").unwrap_err();
    assert_eq!(error.to_string(), "the page lacks <!-- compare:begin -->");
}
