//! docs/errors.md against the code: kinds, exit codes, texts.

use std::{fs, path::Path};

use factlib::ErrorKind::{self, *};

use crate::support::repository::read;

const KINDS: [ErrorKind; 23] = [
    Config,
    InvalidFact,
    PostgresUnavailable,
    SlotInUse,
    PostgresRefused,
    PositionLost,
    Protocol,
    KafkaUnavailable,
    TransactionAborted,
    KafkaRefused,
    TopicRefused,
    TopicUnavailable,
    RegistryUnavailable,
    RegistryRefused,
    RecordRefused,
    RecordTooLarge,
    RecordBlocked,
    HandlerFailed,
    HandlerUnavailable,
    CheckpointUnavailable,
    CheckpointInvalid,
    ActorFailed,
    DrainTimeout,
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The cells of a table's rows, below the heading that begins with `first`.
fn rows(page: &str, first: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut rows = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        inside = line.starts_with('|') && (inside || line.starts_with(&format!("| {first} |")));
        if inside && !line.starts_with("| ---") && !line.starts_with(&format!("| {first} |")) {
            rows.push(cells(line));
        }
    }
    rows
}

#[test]
fn the_list_here_is_that_of_the_code() {
    let code = read("src/error.rs");
    let (_, variants) = code.split_once("pub enum ErrorKind {").expect("the enum");
    let (variants, _) = variants.split_once("\n}").expect("its end");
    let names =
        variants.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    let names: Vec<_> = names.map(|line| line.trim_end_matches(',')).collect();
    assert_eq!(names, KINDS.map(|kind| format!("{kind:?}")));
}

#[test]
fn each_kind_is_documented_with_its_policy() {
    let rows = rows(&read("docs/errors.md"), "kind");
    let documented: Vec<_> = rows.iter().map(|row| row[..3].to_vec()).collect();
    let expected = KINDS.map(|kind| {
        let again = if kind.is_transient() { "yes" } else { "no" };
        vec![format!("`{kind:?}`"), kind.exit_code().to_string(), again.to_owned()]
    });
    assert_eq!(documented, expected);
    for row in &rows {
        assert!(row.len() == 4 && row[3].len() > 10, "{row:?}");
    }
    let page = read("docs/errors.md");
    let headings: String = page.lines().filter(|line| line.starts_with("### ")).collect();
    for kind in KINDS {
        assert!(headings.contains(&format!("`{kind:?}`")), "no part is about {kind:?}");
    }
}

#[test]
fn each_exit_code_is_documented_and_in_the_help() {
    let page = read("docs/errors.md");
    let help = read("src/bin/factlib/args/help.rs");
    let (_, help) = help.split_once("\nExit codes:\n").expect("the general help");
    let (help, _) = help.split_once("\";").expect("its end");
    let documented: Vec<_> = rows(&page, "exit code").iter().map(|row| row[0].clone()).collect();
    let mut codes: Vec<_> = KINDS.map(ErrorKind::exit_code).into_iter().chain([0]).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(documented, codes.iter().map(u8::to_string).collect::<Vec<_>>());
    for code in codes {
        let named = help.split("  ").any(|part| part.trim().starts_with(&format!("{code} ")));
        assert!(named, "{code} is not in factlib --help");
    }
}

/// All of the code, with its texts on one line.
fn code() -> String {
    fn collect(folder: &Path, all: &mut String) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(&path, all);
            } else {
                all.push_str(&fs::read_to_string(&path).unwrap_or_default());
            }
        }
    }
    let mut all = String::new();
    collect(&root().join("src"), &mut all);
    collect(&root().join("crates/factlib-emit/src"), &mut all);
    collect(&root().join("crates/factlib-postgres/src"), &mut all);
    collect(&root().join("crates/factlib-kafka/src"), &mut all);
    let lines: Vec<_> = all.split("\\\n").map(str::trim_start).collect();
    lines.concat().replace("\\\"", "\"")
}

#[test]
fn the_texts_are_those_of_the_code() {
    let (page, code) = (read("docs/errors.md"), code());
    let texts = rows(&page, "text");
    assert!(texts.len() > 60, "{}", texts.len());
    for row in texts {
        assert!(row.len() == 3 && row[1].len() + row[2].len() > 2, "{row:?}");
        for text in row[0].trim_matches('`').split("`, `") {
            let letters = text.chars().filter(|sign| sign.is_alphabetic()).count();
            assert!(letters >= 8, "{text:?} could be anything");
            for part in text.split('…').map(|part| part.trim_matches([' ', ':', ','])) {
                assert!(code.contains(part), "{part:?} of {text:?} is not in the code");
            }
        }
    }
}
