//! Settings and commands in the documents are those of the code. What commands do is tested in
//! `tests/operate`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use factlib::binary::Loader;
use regex::{Captures, Regex};
use toml_edit::{DocumentMut, Item};

use crate::support::repository::read;

/// README.md, the pages in docs/, and the README of each crate.
fn documents() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = |folder: &str| -> Vec<PathBuf> {
        fs::read_dir(root.join(folder)).expect(folder).map(|of| of.expect(folder).path()).collect()
    };
    let crates = files("crates").into_iter().map(|folder| folder.join("README.md"));
    let pages =
        files("docs").into_iter().filter(|path| path.extension().is_some_and(|of| of == "md"));
    let all = [root.join("README.md")].into_iter().chain(pages).chain(crates);
    let name = |path: PathBuf| path.strip_prefix(root).expect("below").display().to_string();
    let mut all: Vec<_> = all.filter(|path| path.is_file()).map(name).collect();
    all.sort();
    all
}

/// Blocks of a language, each with its place.
fn blocks(language: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for document in documents() {
        let text = read(&document);
        let mut lines = text.lines().enumerate();
        while let Some((at, line)) = lines.next() {
            let Some(of) = line.strip_prefix("```") else { continue };
            let block = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
            let block = block.collect::<Vec<_>>().join("\n");
            if of == language {
                found.push((format!("{document}:{}", at + 1), block));
            }
        }
    }
    assert!(!found.is_empty(), "no block is {language}");
    found
}

/// True if a tool fills the block in.
fn is_template(block: &str) -> bool {
    block.contains("{{")
}

fn is_manifest(block: &str) -> bool {
    block.contains("dependencies]")
}

#[test]
fn every_configuration_loads() {
    let secret = Regex::new(r#"_file = "[^"]+""#).expect("a pattern");
    let is_configuration = |block: &str| !is_manifest(block) && !is_template(block);
    for (place, block) in blocks("toml").into_iter().filter(|(_, block)| is_configuration(block)) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let of_secret = folder.path().join("secret");
        fs::write(&of_secret, "secret").expect("written");
        let replaced = secret.replace_all(&block, |_: &Captures| format!("_file = {of_secret:?}"));
        fs::write(folder.path().join("factlib.toml"), replaced.as_bytes()).expect("written");
        if let Err(error) = Loader::new(folder.path()).load() {
            panic!("{place}: {error}");
        }
    }
}

/// A crate of this repository in a manifest: where it is, and which features are asked for.
fn of_this_repository(name: &str, item: &Item) -> Option<BTreeSet<String>> {
    let known = name == "factlib" || name.starts_with("factlib-");
    known.then(|| {
        let features = item.get("features").and_then(Item::as_array).into_iter().flatten();
        features.filter_map(|feature| Some(feature.as_str()?.to_owned())).collect()
    })
}

#[test]
fn every_manifest_names_crates_and_features_that_exist() {
    let mut checked = 0;
    for (place, block) in blocks("toml").into_iter().filter(|(_, block)| is_manifest(block)) {
        let manifest: DocumentMut =
            block.parse().unwrap_or_else(|error| panic!("{place}: {error}"));
        let tables = manifest.iter().filter(|(name, _)| name.ends_with("dependencies"));
        for (name, item) in tables.flat_map(|(_, table)| table.as_table().expect("a table").iter())
        {
            let Some(features) = of_this_repository(name, item) else { continue };
            let folder = if name == "factlib" { String::new() } else { format!("crates/{name}/") };
            let manifest: DocumentMut = read(&format!("{folder}Cargo.toml")).parse().expect("TOML");
            let exist = manifest["features"].as_table().expect("features");
            for feature in features {
                assert!(exist.contains_key(&feature), "{place}: {name} has no feature {feature}");
            }
            if let Some(path) = item.get("path").and_then(Item::as_str) {
                let path = path.trim_end_matches('/');
                let expected = format!("../factlib/{folder}");
                assert_eq!(path, expected.trim_end_matches('/'), "{place}: {name}");
            }
            checked += 1;
        }
    }
    assert!(checked > 1, "{checked}");
}

/// The words of a command, up to a comment, a pipe or a redirection.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut open): (Vec<String>, Option<String>) = (Vec::new(), None);
    let mut quoted = false;
    for sign in command.chars() {
        match sign {
            '\'' => {
                quoted = !quoted;
                open.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(open.take()),
            '#' | '|' | '<' | '>' | '&' if !quoted && open.is_none() => break,
            other => open.get_or_insert_default().push(other),
        }
    }
    words.extend(open);
    words
}

/// Commands of blocks, and those that prose names whole.
fn commands() -> BTreeSet<Vec<String>> {
    let mut all = BTreeSet::new();
    for (_, block) in ["sh", "console", "text"].iter().flat_map(|language| blocks(language)) {
        let lines = block.lines().map(|line| line.trim_start_matches("$ "));
        all.extend(lines.filter(|line| line.starts_with("factlib ")).map(words));
    }
    let inline = Regex::new(r"`(factlib [a-z][a-zA-Z0-9 =:._-]*)`").expect("a pattern");
    for document in documents() {
        let text = read(&document).replace('\n', " ");
        all.extend(inline.captures_iter(&text).map(|found| words(&found[1])));
    }
    // A choice, in place of a value.
    all.retain(|words| !words.iter().any(|word| word == "SHELL"));
    all
}

#[test]
fn every_command_is_one_of_the_binary() {
    let commands = commands();
    assert!(commands.len() > 30, "{commands:?}");
    for words in commands {
        let mut command = Command::new(env!("CARGO_BIN_EXE_factlib"));
        // The help comes once everything before it was understood.
        command.args(&words[1..]).arg("--help").env_clear().stdin(Stdio::null());
        let output = command.output().expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {error}", words.join(" "));
    }
}

#[test]
fn words_end_at_a_comment() {
    assert_eq!(
        words("factlib emit --payload '{\"a\": 1}' # x"),
        ["factlib", "emit", "--payload", "{\"a\": 1}"]
    );
    assert_eq!(words("factlib show 0:1 --raw > file"), ["factlib", "show", "0:1", "--raw"]);
}
