//! Each text that the code may show a user is named in a document, or a test asserts it.
//!
//! All string literals of `src/` are looked at, not those of known constructors: no new way of
//! making an error escapes. What is prose and no error is told by its place, or listed here.

use std::{fs, mem, path::Path};

use proc_macro2::{Delimiter, Literal, TokenStream, TokenTree};
use syn::Lit;

/// Where texts are no errors of the relay, and what they are.
const OTHER_PLACES: [(&str, &str); 10] = [
    ("src/ops/definitions", "what /metrics says of each metric"),
    ("src/config/manual.rs", "the example file"),
    ("src/postgres/managed/services.rs", "the table of services in docs/postgresql.md"),
    ("crates/factlib-postgres/src/pgoutput/", "names of what is `expected … at byte …`"),
    ("crates/factlib-postgres/src/observer.rs", "lines for logs of others"),
    ("src/bin/factlib/status/text.rs", "names of lines"),
    ("src/bin/factlib/demo/view.rs", "what the demo shows"),
    ("src/bin/factlib/init/file.rs", "the file that init writes"),
    ("src/takeover/debezium/mapping/", "notes on Debezium's settings, and the file of the mapping"),
    ("src/bin/factlib/takeover/text.rs", "headings of the mapping"),
];

/// Texts that are no errors: what is well, states, names; what others have; SQL.
const NO_ERRORS: &[&str] = &[
    "the server is a primary",
    "factlib tables {}",
    "pg_catalog.set_config('{name}', '{value}', false)",
    "{store}: {}, {} ahead of the slot",
    "{topic} does not exist; the first dead letter creates it",
    "kafka.topics.create = false: create each {usual} by hand",
    "{usual} may be created",
    "no topic {} exists yet",
    "{topic} does not exist; the start creates it",
    "large enough for the largest fact; topics: {}",
    "slot {name}: dropped, {released} of WAL released\n",
    "{saved}, {ahead} ahead of what is confirmed",
    "replayed {sent} of {}, invalid {invalid}, factlib_replay {}",
    "would replay {}, invalid {invalid}",
    "printing events from {} on; Ctrl-C ends it",
    "emitted {} facts in {} transactions, {}/s",
    "Status page: http://{}/{secret}\n",
    "{}{page}ready after {seconds:.1} s\n",
    "yours, slot {}",
    "until you end it",
    "It writes {} facts a second to the WAL {until}; no table changes.\n",
    "correct the errors, check again with factlib doctor, then ",
    "events come as messages, or as rows of a table",
    "the handler wants event {} later",
    "full: reading goes on as Kafka acknowledges records",
    "asked for an answer, and has not answered yet",
    "the handler retries: {reason}",
    "open, handler retries: {reason}",
    "WAL status",
    "until lost",
    "EVENT ID",
    "HELD SINCE",
    "none given",
    "source topic",
    "bytes kept in",
    "factlib.dead_letters, slot {}",
    "named by the preset",
    "without a text",
    "the writers",
    "AckToken(part {} of epoch {})",
    "sslmode=verify-full and sslrootcert in the connection string",
    "authentication error",
    "invalid configuration",
    "failed with status ",
    ", publish_via_partition_root = true",
];

/// How what is written for programs begins: SQL, types of content.
const NO_PROSE: &str = "SELECT INSERT UPDATE DELETE CREATE DROP WITH SET SHOW FETCH ( default-src text/ \
                        application/ now()";

/// Macros whose texts are for the log, or stop a program.
const OTHER_MACROS: &str = "trace debug info warn error crit println panic unreachable assert \
                            assert_eq assert_ne debug_assert debug_assert_eq matches";

/// Functions that take texts and fail with none: invariants, and what doctor finds well.
const OTHER_CALLS: [&str; 2] = ["expect", "ok"];

#[derive(Default)]
struct Texts {
    /// Of the code: where, and what.
    shown: Vec<(String, String)>,
    /// Of tests, but for what only goes in.
    asserted: Vec<String>,
}

impl Texts {
    fn of(root: &Path, files: &[String]) -> Self {
        let mut texts = Texts::default();
        for file in files {
            let source = fs::read_to_string(root.join(file)).expect(file);
            let is_test = file.starts_with("tests/") || file.ends_with("/tests.rs");
            texts.read(source.parse().expect(file), file, is_test);
        }
        texts
    }

    fn read(&mut self, tokens: TokenStream, file: &str, is_test: bool) {
        // True until the end of an item that only tests have.
        let mut of_test = false;
        let [mut last, mut before] = [String::new(), String::new()];
        for token in tokens {
            let mut word = token.to_string();
            match token {
                TokenTree::Group(group) => {
                    word.clear();
                    let is_attribute = last == "#" || (last == "!" && before == "#");
                    let attribute =
                        if is_attribute { group.stream().to_string() } else { word.clone() };
                    let attribute = attribute.replace(' ', "");
                    of_test |= attribute == "test" || attribute.starts_with("cfg(test)");
                    of_test |= attribute.starts_with("cfg(all(test,");
                    let in_test = is_test || of_test;
                    let is_other = match (&*before, &*last) {
                        _ if is_attribute => !attribute.starts_with("error("),
                        (name, "!") => {
                            !in_test && OTHER_MACROS.split(' ').any(|other| other == name)
                        }
                        // What a test makes is not what it asserts.
                        ("Error", "new") => in_test,
                        (_, name) => OTHER_CALLS.contains(&name),
                    };
                    if !is_other {
                        self.read(group.stream(), file, in_test);
                    }
                    of_test &= group.delimiter() != Delimiter::Brace;
                }
                TokenTree::Literal(literal) => self.literal(literal, file, is_test || of_test),
                TokenTree::Punct(sign) if sign.as_char() == ':' => continue,
                TokenTree::Punct(sign) if sign.as_char() == ';' => of_test = false,
                _ => {}
            }
            before = mem::replace(&mut last, word);
        }
    }

    fn literal(&mut self, literal: Literal, file: &str, is_test: bool) {
        let place = format!("{file}:{}", literal.span().start().line);
        let Lit::Str(text) = Lit::new(literal) else { return };
        match is_test {
            true => self.asserted.push(words(&text.value())),
            false => self.shown.push((place, text.value())),
        }
    }
}

/// What SQL functions raise, as if it were Rust's.
fn raised(root: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for file in
        [files(root, "src", ".sql"), files(root, "crates/factlib-emit/src", ".sql")].concat()
    {
        let sql = fs::read_to_string(root.join(&file)).expect(&file).replace("''", "\u{0}");
        for mark in ["RAISE EXCEPTION 'factlib: ", "HINT = '"] {
            let texts = sql.split(mark).skip(1).filter_map(|rest| rest.split('\'').next());
            let texts = texts.map(|text| text.replace('\0', "'").replace('%', "{}"));
            all.extend(texts.map(|text| (file.clone(), text)));
        }
    }
    all
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn parts<'a>(parts: impl Iterator<Item = &'a str>) -> Vec<String> {
    let parts = parts.map(|part| words(part.trim_matches([':', ',', ' ', '(', ')'])));
    parts.filter(|part| !part.is_empty()).collect()
}

/// The parts of a text that are the same each time.
fn fixed(text: &str) -> Vec<String> {
    let mut depth = 0;
    parts(text.split(|sign| {
        depth += i32::from(sign == '{') - i32::from(sign == '}');
        depth > 0 || sign == '}'
    }))
}

fn are_in_order(parts: &[String], text: &str) -> bool {
    let mut rest = Some(text);
    parts.iter().all(|part| {
        rest = rest.and_then(|rest| rest.split_once(&**part)).map(|(_, rest)| rest);
        rest.is_some()
    })
}

/// True where a line has the whole of the text.
fn is_told(text: &[String], lines: &str) -> bool {
    let longest = text.iter().max_by_key(|part| part.len()).map_or("", |part| part);
    lines.match_indices(longest).any(|(at, _)| {
        let (before, behind) = lines.split_at(at);
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let end = behind.find('\n').map_or(lines.len(), |length| at + length);
        are_in_order(text, &lines[start..end])
    })
}

/// True where the text has what a row or a test says, which is half of it or more.
fn is_half(said: &[String], text: &[String]) -> bool {
    let length = |parts: &[String]| parts.iter().map(String::len).sum::<usize>();
    2 * length(said) >= length(text) && are_in_order(said, &text.join(" … "))
}

/// A document, with paragraphs and rows of tables as lines.
fn lines(document: &str) -> String {
    let mut lines = String::new();
    for line in document.lines() {
        lines += if line.is_empty() || line.starts_with('|') { "\n" } else { " " };
        lines += line;
    }
    lines
}

fn files(root: &Path, folder: &str, end: &str) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(root.join(folder)).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
        match entry.path().is_dir() {
            true => all.append(&mut files(root, &name, end)),
            false if name.ends_with(end) && name != file!() => all.push(name),
            false => {}
        }
    }
    all
}

#[test]
fn each_text_is_documented_or_asserted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["src", "crates/factlib-emit/src", "crates/factlib-postgres/src", "tests"];
    let sources = folders.map(|folder| files(root, folder, ".rs")).concat();
    let Texts { mut shown, asserted } = Texts::of(root, &sources);
    shown.append(&mut raised(root));
    let documents = [files(root, "docs", ".md"), vec!["README.md".into()]].concat();
    let read = |name: &String| lines(&fs::read_to_string(root.join(name)).expect(name));
    let documents: String = documents.iter().map(read).collect();
    let row = |line| Some(str::strip_prefix(line, "| `")?.split_once("` | ")?.0);
    let rows = documents.lines().filter_map(row).flat_map(|row| row.split("`, `"));
    let lines = asserted.join("\n") + "\n" + &documents;
    let said = rows.chain(asserted.iter().map(|text| &**text).filter(|text| text.contains(' ')));
    let said = said.map(|text| parts(text.split('…'))).filter(|said| !said.is_empty());
    let said: Vec<_> = said.collect();
    assert!(shown.len() > 2_000 && said.len() > 2_000, "{} and {}", shown.len(), said.len());
    for text in NO_ERRORS {
        assert!(shown.iter().any(|(_, shown)| shown == text), "{text:?} is not in the code");
    }
    let is_missing = |(place, text): &&(String, String)| {
        let fixed = fixed(text);
        let is_prose = fixed.iter().any(|part| part.contains(' ') && part.len() >= 8)
            && !text.trim().contains('\n')
            && !NO_PROSE.split(' ').any(|start| text.starts_with(start))
            && !OTHER_PLACES.iter().any(|(start, _)| place.starts_with(start))
            && !NO_ERRORS.contains(&&**text);
        is_prose && !is_told(&fixed, &lines) && !said.iter().any(|said| is_half(said, &fixed))
    };
    let missing: Vec<_> = shown.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "{} are in no document and no test: {missing:#?}", missing.len());
}
