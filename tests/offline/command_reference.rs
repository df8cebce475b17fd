//! docs/cli.md is what the binary's `--help` says.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::repository::read;

const HEAD: &str = "# Commands

The help of every command. A test writes this page from the binary; `factlib man` prints the same as manual pages.
";

/// What a command says of itself.
fn help(words: &[String]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_factlib"));
    command.args(words).arg("--help").env_clear().stdin(Stdio::null());
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "factlib {}", words.join(" "));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// The commands that a help lists.
fn commands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names =
        lines.take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
    let names = names.filter_map(|line| line.split(' ').next()).filter(|name| !name.is_empty());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

fn add(page: &mut String, words: &[String]) {
    let help = help(words);
    let name = [&["factlib".to_owned()], words].concat().join(" ");
    *page += &format!("\n## {name}\n\n```text\n{}\n```\n", help.trim());
    for command in commands(&help) {
        add(page, &[words, &[command]].concat());
    }
}

#[test]
fn the_page_has_the_help_of_every_command() {
    let mut page = HEAD.to_owned();
    add(&mut page, &[]);
    assert!(page.matches("\n## ").count() > 15, "{page}");
    if env::var_os("UPDATE_DOCS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
        fs::write(path, &page).expect("written");
    }
    let is_current = read("docs/cli.md") == page;
    assert!(
        is_current,
        "docs/cli.md is out of date: run `UPDATE_DOCS=1 cargo test --all-features --test offline command_reference`"
    );
}
