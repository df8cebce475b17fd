//! Links between documents, and paths that they name, lead to files and headings that exist.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;

use crate::support::repository::read;

/// Folders with documents for people, beside those at the root of the repository.
const FOLDERS: [&str; 3] = ["", "docs", "crates"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Markdown files in a folder; in all folders below it, unless it is the root.
fn documents(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        let name = path.strip_prefix(root()).expect("below the root").to_path_buf();
        if path.is_dir() && !folder.is_empty() && !path.ends_with("target") {
            found.extend(documents(name.to_str().expect("UTF-8")));
        } else if path.extension().is_some_and(|end| end == "md") {
            found.push(name);
        }
    }
    found
}

/// The text without code.
fn prose(text: &str) -> String {
    let (mut prose, mut is_code) = (String::new(), false);
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        if !is_code && !is_fence {
            prose += line;
            prose.push('\n');
        }
    }
    Regex::new("`[^`\n]*`").expect("a pattern").replace_all(&prose, "").into_owned()
}

/// Anchors of the headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let (mut anchors, mut is_code) = (BTreeSet::new(), false);
    for line in text.lines() {
        is_code ^= line.trim_start().starts_with("```");
        let title = line.trim_start_matches('#');
        if is_code || title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let title = title.trim().to_lowercase().replace(' ', "-");
        let anchor: String =
            title.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect();
        let repeated = (1..).map(|n| format!("{anchor}-{n}"));
        let free = [anchor.clone()].into_iter().chain(repeated);
        anchors.extend(free.into_iter().find(|name| !anchors.contains(name)));
    }
    anchors
}

/// Relative links of a document that lead nowhere.
fn broken(document: &Path, text: &str) -> Vec<String> {
    let links = Regex::new(r#"\]\(([^)\s]+)\)|(?:src|href)="([^"]+)""#).expect("a pattern");
    let prose = prose(text);
    let targets = links.captures_iter(&prose).filter_map(|link| link.get(1).or(link.get(2)));
    let is_broken = |target: &&str| {
        if target.contains("://") || target.starts_with("mailto:") {
            return false;
        }
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let folder = document.parent().expect("a file");
        let file = if file.is_empty() { document.into() } else { folder.join(file) };
        let file = root().join(file);
        let heading = || fs::read_to_string(&file).is_ok_and(|of| anchors(&of).contains(anchor));
        !file.exists() || (!anchor.is_empty() && !heading())
    };
    targets.map(|target| target.as_str()).filter(is_broken).map(str::to_owned).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let documents: Vec<_> = FOLDERS.iter().flat_map(|folder| documents(folder)).collect();
    assert!(documents.len() > 20, "{documents:?}");
    let mut failures = Vec::new();
    for document in documents {
        let text = fs::read_to_string(root().join(&document)).expect("a document");
        let links = broken(&document, &text).into_iter();
        failures.extend(links.map(|link| format!("{}: {link}", document.display())));
    }
    assert!(failures.is_empty(), "broken links: {failures:#?}");
}

/// Paths of the repository that the documents name as code.
#[test]
fn every_path_that_is_named_exists() {
    let folders = "src|tests|crates|packaging|scripts|benches|examples|proto";
    let path = Regex::new(&format!(r"`((?:{folders})/[\w./-]+)`")).expect("a pattern");
    let mut missing = Vec::new();
    for document in FOLDERS.iter().flat_map(|folder| documents(folder)) {
        // The change log names what was there.
        if document.ends_with("CHANGELOG.md") || document.starts_with("crates") {
            continue;
        }
        let text = fs::read_to_string(root().join(&document)).expect("a document");
        let named = path.captures_iter(&text).map(|found| found[1].to_owned());
        missing.extend(
            named.filter(|name| !root().join(name).exists()).map(|name| (document.clone(), name)),
        );
    }
    assert!(missing.is_empty(), "paths that do not exist: {missing:#?}");
}

#[test]
fn the_index_has_every_page() {
    let index = read("docs/README.md");
    let is_missing = |page: &PathBuf| {
        let name = page.file_name().expect("a file").to_str().expect("UTF-8");
        name != "README.md" && !index.contains(&format!("]({name})"))
    };
    let missing: Vec<_> = documents("docs").into_iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "docs/README.md lacks {missing:?}");
}

#[test]
fn a_broken_link_is_found() {
    let text = "[file](no-such-page.md) [anchor](README.md#no-such-heading) [own](#nor-this)\n\
                <img src=\"images/no.png\"> `[code](no.md)`\n```text\n[code](no.md)\n```\n\
                [good](../README.md#the-promises) [site](https://example.org/no.md)";
    let expected = ["no-such-page.md", "README.md#no-such-heading", "#nor-this", "images/no.png"];
    assert_eq!(broken(Path::new("docs/README.md"), text), expected);
}
