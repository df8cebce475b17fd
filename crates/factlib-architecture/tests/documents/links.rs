//! Links between documents, and paths that they name, lead to files and headings that exist.

use std::{collections::BTreeSet, fs, path::Path};

use regex::Regex;

use crate::{documents, read, root};

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
    let mut failures = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(root().join(&document)).expect("a document");
        let links = broken(&document, &text).into_iter();
        failures.extend(links.map(|link| format!("{}: {link}", document.display())));
    }
    assert!(failures.is_empty(), "broken links: {failures:#?}");
}

/// Paths of the repository that the documents name as code.
#[test]
fn every_path_that_is_named_exists() {
    let folders = "src|tests|crates|packaging|scripts|site|benches|examples|proto";
    let path = Regex::new(&format!(r"`((?:{folders})/[\w./-]+)`")).expect("a pattern");
    let mut missing = Vec::new();
    for document in documents() {
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

/// The tour names files without their folder when the folder was named before.
#[test]
fn every_file_of_the_tour_exists() {
    let name = Regex::new(r"`([\w./-]+)`").expect("a pattern");
    let text = read("docs/architecture.md");
    let (mut folders, mut missing, mut files) = (vec![String::new()], Vec::new(), 0);
    for found in name.captures_iter(&text) {
        let name = &found[1];
        if name.ends_with('/') {
            folders.push(name.to_owned());
        }
        if name.ends_with(".rs") || name.ends_with('/') {
            files += 1;
            let exists = |folder: &String| root().join(folder).join(name).exists();
            if !folders.iter().any(exists) {
                missing.push(name.to_owned());
            }
        }
    }
    assert!(files > 40, "{files}");
    assert!(missing.is_empty(), "docs/architecture.md names files that do not exist: {missing:?}");
}

#[test]
fn a_broken_link_is_found() {
    let text = "[file](no-such-page.md) [anchor](README.md#no-such-heading) [own](#nor-this)\n\
                <img src=\"images/no.png\"> `[code](no.md)`\n```text\n[code](no.md)\n```\n\
                [good](../README.md#the-promises) [site](https://example.org/no.md)";
    let expected = ["no-such-page.md", "README.md#no-such-heading", "#nor-this", "images/no.png"];
    assert_eq!(broken(Path::new("docs/README.md"), text), expected);
}
