//! The page that has the tables and all settings, each between two markers.

use std::{fmt::Write, fs, path::Path};

use super::peer::{JVM, Peer};
use crate::support::Result;

const TABLES: &str = "compare";
const SETTINGS: &str = "compare-settings";

/// Puts the tables and the present settings into the page.
pub fn write(page: &Path, tables: &str) -> Result<()> {
    let text = fs::read_to_string(page)?;
    let text = replace(&text, TABLES, tables)?;
    Ok(fs::write(page, replace(&text, SETTINGS, &settings())?)?)
}

/// Returns the settings of all peers, each file in a block of code.
pub fn settings() -> String {
    let mut text = String::new();
    for peer in Peer::ALL {
        for (name, content) in peer.settings() {
            let language = name.rsplit('.').next().unwrap_or_default();
            let (label, content) = (peer.label(), content.trim_end());
            writeln!(text, "{label}: `benches/compare/settings/{name}`\n").ok();
            writeln!(text, "```{language}\n{content}\n```\n").ok();
        }
    }
    writeln!(text, "Both of Debezium's: `java {}`", JVM.join(" ")).ok();
    text
}

/// Returns the text between a page's markers of this name.
pub fn between<'a>(text: &'a str, name: &str) -> Result<&'a str> {
    let (begin, end) = markers(name);
    let (_, rest) = text.split_once(&begin).ok_or_else(|| format!("the page lacks {begin}"))?;
    let (inside, _) = rest.split_once(&end).ok_or_else(|| format!("the page lacks {end}"))?;
    Ok(inside)
}

/// Replaces the text between a page's markers of this name.
pub fn replace(text: &str, name: &str, with: &str) -> Result<String> {
    let (begin, end) = markers(name);
    let inside = between(text, name)?;
    let whole = format!("{begin}{inside}{end}");
    Ok(text.replacen(&whole, &format!("{begin}\n{}\n{end}", with.trim()), 1))
}

fn markers(name: &str) -> (String, String) {
    (format!("<!-- {name}:begin -->"), format!("<!-- {name}:end -->"))
}
