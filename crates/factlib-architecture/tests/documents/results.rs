//! The tables of results have a row for each scenario of `make chaos`.

use regex::Regex;

use crate::read;

/// The scenarios by file, as `tests/chaos/scenarios/mod.rs` lists them.
fn scenarios() -> Vec<(String, Vec<String>)> {
    let text = read("tests/chaos/scenarios/mod.rs");
    let (_, list) = text.rsplit_once("scenarios! {").expect("a list");
    let group = Regex::new(r"(\w+): ([\w,\s]+);").expect("a pattern");
    let names = |list: &str| list.split(',').map(|name| name.trim().to_owned()).collect();
    group.captures_iter(list).map(|of| (of[1].to_owned(), names(&of[2]))).collect()
}

/// The first cells of the table below a heading.
fn rows(heading: &str) -> Vec<String> {
    let text = read("docs/reliability.md");
    let (_, part) = text.split_once(&format!("\n## {heading}\n")).expect("the heading");
    let (_, table) = part.split_once("\n| scenario |").expect("a table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| Some(row.split('|').nth(1)?.trim().to_owned())).collect()
}

#[test]
fn each_scenario_has_its_row() {
    let (of_transactions, others): (Vec<_>, Vec<_>) =
        scenarios().into_iter().partition(|(file, _)| file == "transactions");
    let names = |groups: Vec<(String, Vec<String>)>| -> Vec<String> {
        groups.into_iter().flat_map(|(_, names)| names).collect()
    };
    let (of_transactions, others) = (names(of_transactions), names(others));
    assert!(others.len() > 40, "{others:?}");
    assert_eq!(rows("Results"), others);
    assert_eq!(rows("Results, exactly once"), [of_transactions, others].concat());
}
