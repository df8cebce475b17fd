//! What is written about the settings is what the code says, and a template is no program.

use std::fs;

use factlib::{
    binary::{Loader, example, markdown, settings},
    config::Config,
};

use crate::support::repository::read;

#[test]
fn the_page_has_every_setting() {
    let page = read("docs/settings.md");
    let (_, rest) = page.split_once("<!-- settings:begin -->").expect("a begin marker");
    let (table, _) = rest.split_once("<!-- settings:end -->").expect("an end marker");
    assert_eq!(
        table.trim(),
        markdown().trim(),
        "docs/settings.md is out of date: put the output of `factlib config --reference` between the markers"
    );
}

#[test]
fn the_example_file_has_every_setting() {
    assert_eq!(
        read("factlib.example.toml"),
        example(),
        "run `factlib config --example > factlib.example.toml`"
    );
}

#[test]
fn the_example_file_sets_the_defaults() {
    let uncommented = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if rest.contains(" = ") && !rest.contains(" = #") => rest.to_owned(),
        _ => line.to_owned(),
    };
    let lines: Vec<_> = read("factlib.example.toml").lines().map(uncommented).collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("factlib.toml"), lines.join("\n")).expect("written");
    let loaded = Loader::new(folder.path()).load().expect("a valid configuration");
    assert_eq!(format!("{:?}", loaded.config), format!("{:?}", Config::default()));
    let set = loaded.values.iter().filter(|value| value.source != "default").count();
    let with_default = settings().iter().filter(|s| s.default.is_some()).count();
    assert_eq!(set, with_default);
}

#[test]
fn a_handler_to_begin_with_is_short() {
    for (file, heading, line) in [
        ("docs/handlers.md", "## Write a handler", "```"),
        ("src/handlers/mod.rs", "handler_actor). For example:", "//!    ```"),
    ] {
        let text = read(file);
        let (_, after) = text.split_once(heading).expect(heading);
        let template = after.lines().skip_while(|other| !other.starts_with(line)).skip(1);
        let lines = template.take_while(|other| *other != line).count();
        assert!((10..30).contains(&lines), "{file}: {lines} lines");
    }
}
