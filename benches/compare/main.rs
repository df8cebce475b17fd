//! factlib and other relays of outbox tables, on the same servers: `make compare`.
//!
//! Prints the tables of docs/comparison.md, and with `--write` puts them there.

#[path = "../support/mod.rs"]
mod support;

mod comparison;

use std::{env, path::PathBuf};

use clap::Parser;

use self::{
    comparison::{Scale, document},
    support::Result,
};

/// The comparison with other relays. FACTS, SECONDS and PEERS scale it.
#[derive(Parser)]
struct Args {
    /// Page that gets the tables and the settings, between its markers
    #[arg(long, value_name = "PATH")]
    write: Option<PathBuf>,
    /// Set by `cargo bench`; without it (`cargo test --all-targets`) nothing is run
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if !args.bench {
        println!("not run: this is a benchmark, see `make compare`");
        return Ok(());
    }
    let scale = Scale::from_variables(|name| env::var(name).ok())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(comparison::run(&scale))?;
    let tables = report.markdown();
    println!("\n{tables}");
    if let Some(page) = &args.write {
        document::write(page, &tables)?;
        println!("written to {}", page.display());
    }
    Ok(())
}
