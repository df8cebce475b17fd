//! Checks that modules depend in one direction: reads the order from the crate docs and the
//! imports from the sources.
//!
//! | file | idea |
//! | --- | --- |
//! | `order` | the order of modules and of crates, as the docs of `src/lib.rs` have it |
//! | `root` | what `src/lib.rs` declares and exports again |
//! | `imports` | pure: the paths of one file that lead out of its module |
//! | `modules` | every file of `src/`, held against the order |
//! | `manifests` | every crate's dependencies, held against the order |
//!
//! `tests/documents` checks what is written for people: links, navigation, blocks of code.
//!
//! It is a crate of its own so that the check compiles in seconds and links nothing of factlib.

mod imports;
mod manifests;
mod modules;
mod order;
mod root;

use std::path::Path;

/// Returns every dependency that points the wrong way, one line each, and then the orders; nothing
/// where all point the right way.
///
/// # Errors
/// A file that can't be read or parsed, or docs without an order.
pub fn violations(repository: &Path) -> Result<Vec<String>, String> {
    let docs = read(&repository.join("src/lib.rs"))?;
    let modules_order = order::Order::of_modules(&docs)?;
    let crates_order = order::Order::of_crates(&docs)?;
    let mut found = modules::violations(repository, &docs, &modules_order)?;
    found.extend(manifests::violations(repository, &crates_order)?);
    if !found.is_empty() {
        found.push(format!("order of modules: {}", modules_order.text()));
        found.push(format!("order of crates: {}", crates_order.text()));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}
