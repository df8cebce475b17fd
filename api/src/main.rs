//! Lists the public API in rustdoc's JSON, an item a line; see scripts/public-api.

use std::{error::Error, fs::File, io::BufReader, process::ExitCode};

use serde::Deserialize;

/// The format that `public-api` reads. It reads others wrongly or not at all.
const FORMAT: u32 = 57;

/// What the script takes for "not with this toolchain".
const OTHER_FORMAT: u8 = 3;

#[derive(Deserialize)]
struct Head {
    format_version: u32,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: factlib-api factlib.json")?;
    let head: Head = serde_json::from_reader(BufReader::new(File::open(&path)?))?;
    if head.format_version != FORMAT {
        eprintln!("rustdoc wrote format {}, and api/ reads {FORMAT}", head.format_version);
        return Ok(OTHER_FORMAT.into());
    }
    let api = public_api::Builder::from_rustdoc_json(path).omit_blanket_impls(true).build()?;
    let lines = api.items().map(ToString::to_string).filter(|line| says_something(line));
    lines.for_each(|line| println!("{line}"));
    Ok(ExitCode::SUCCESS)
}

/// What is derived is there as its `impl`, and of the traits that are there by themselves
/// those that keep something from being used elsewhere.
fn says_something(line: &str) -> bool {
    const NOISE: [&str; 12] = [
        "marker::Freeze for ",
        "marker::Unpin for ",
        "marker::UnsafeUnpin for ",
        "marker::StructuralPartialEq for ",
        "unwind_safe::",
        "::clone(&self)",
        "::eq(&self",
        "::fmt(&self",
        "::hash<",
        "::default() -> ",
        "::serialize<__S>",
        "::deserialize<__D>",
    ];
    !NOISE.iter().any(|noise| line.contains(noise))
}
