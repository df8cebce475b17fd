//! Every block of code in the documents is run by a test, or says why not.
//!
//! | block | is run |
//! | --- | --- |
//! | `toml` | loaded by `tests/offline/documented.rs` |
//! | `rust`, `rust,no_run` | compiled as a documentation test: a `src/lib.rs` includes the document |
//! | `text`, `json` | not at all: it is output, or a picture |
//! | any, between `<!-- NAME:begin -->` and `<!-- NAME:end -->` | written by a test or a tool |
//! | any other | by the test that the line before names, `<!-- run by: PATH -->`; or not, for the reason that it gives, `<!-- not run: REASON -->` |

use std::path::Path;

use regex::Regex;

use crate::{documents, read, root};

/// A fenced block.
struct Block {
    /// The line of its fence, from 1.
    line: usize,
    language: String,
    /// The line before its fence.
    marker: String,
    is_written_by_a_tool: bool,
}

fn blocks(document: &str) -> Vec<Block> {
    let (mut blocks, mut open) = (Vec::new(), false);
    let (mut before, mut is_written_by_a_tool) = ("", false);
    for (at, line) in document.lines().enumerate() {
        match line.trim_start().strip_prefix("```") {
            Some(_) if open => open = false,
            Some(language) => {
                let (language, marker) = (language.to_owned(), before.to_owned());
                blocks.push(Block { line: at + 1, language, marker, is_written_by_a_tool });
                open = true;
            }
            None if !open && line.starts_with("<!-- ") => {
                is_written_by_a_tool &= !line.ends_with(":end -->");
                is_written_by_a_tool |= line.ends_with(":begin -->");
            }
            _ => {}
        }
        before = line;
    }
    blocks
}

/// True if the library of a crate includes this document as a documentation test.
fn is_compiled(document: &Path) -> bool {
    let of_crate = document.strip_prefix("crates").ok().and_then(|path| path.iter().next());
    let library = match of_crate {
        Some(name) => Path::new("crates").join(name).join("src/lib.rs"),
        None => "src/lib.rs".into(),
    };
    let name = match of_crate {
        Some(_) => "README.md".into(),
        None => document.display().to_string(),
    };
    read(library).contains(&format!("#[doc = include_str!(\"../{name}\")]"))
}

/// Why nobody knows whether this block works; `None` if it is run, or says why not.
fn defect(document: &Path, block: &Block) -> Option<String> {
    let marker = block.marker.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
    let reason = marker.and_then(|marker| marker.strip_prefix("not run: "));
    let test = marker.and_then(|marker| marker.strip_prefix("run by: "));
    if let Some(reason) = reason {
        return (reason.len() < 10).then(|| "the reason is too short".into());
    }
    if let Some(test) = test {
        let is_named =
            root().join(test).is_file() && read(test).contains(document.file_name()?.to_str()?);
        return (!is_named).then(|| format!("{test} is no test of this document"));
    }
    if block.is_written_by_a_tool {
        return None;
    }
    match &*block.language {
        "" => Some("it has no language".into()),
        "text" | "json" | "toml" => None,
        "rust" | "rust,no_run" if is_compiled(document) => None,
        "rust" | "rust,no_run" => Some("no src/lib.rs includes the document".into()),
        _ => Some("the line before has no marker".into()),
    }
}

#[test]
fn every_block_is_run_or_says_why_not() {
    let mut defects = Vec::new();
    for document in documents() {
        for block in blocks(&read(&document)) {
            let found = defect(&document, &block);
            defects
                .extend(found.map(|why| format!("{}:{}: {why}", document.display(), block.line)));
        }
    }
    assert!(
        defects.is_empty(),
        "see crates/factlib-architecture/tests/documents/blocks.rs: {defects:#?}"
    );
}

/// An indented block has no language, and so escapes the test above.
#[test]
fn no_block_is_indented() {
    let mut indented = Vec::new();
    for document in documents() {
        let (mut is_code, mut is_list, mut before) = (false, false, String::new());
        for (at, line) in read(&document).lines().enumerate() {
            is_code ^= line.trim_start().starts_with("```");
            is_list = match line.chars().next() {
                None | Some(' ') => is_list,
                Some(first) => first == '-' || first.is_ascii_digit(),
            };
            if !is_code && !is_list && before.is_empty() && line.starts_with("    ") {
                indented.push(format!("{}:{}", document.display(), at + 1));
            }
            before = line.to_owned();
        }
    }
    assert!(indented.is_empty(), "use ```text or a language: {indented:#?}");
}

#[test]
fn every_make_target_exists() {
    let makefile = read("Makefile");
    let command = Regex::new(r"(?m)^(?:\$ )?make ([a-z-]+)|`make ([a-z-]+)").expect("a pattern");
    for document in documents() {
        let text = read(&document);
        for named in command.captures_iter(&text) {
            let target = named.get(1).or(named.get(2)).expect("a group").as_str();
            let exists = makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
            assert!(exists, "{}: make {target}", document.display());
        }
    }
}

#[test]
fn a_block_that_nobody_runs_is_found() {
    let text = "```sh\nls\n```\n\n<!-- not run: it needs a printer -->\n```sh\nlp\n```\n\n```text\nx\n```\n\n\
                <!-- run by: tests/no_such_file.rs -->\n```sql\nSELECT 1\n```\n\n```rust,ignore\nx\n```\n";
    let found: Vec<_> = blocks(text)
        .iter()
        .filter_map(|block| defect(Path::new("docs/README.md"), block).map(|_| block.line))
        .collect();
    assert_eq!(found, [1, 15, 19]);
}
