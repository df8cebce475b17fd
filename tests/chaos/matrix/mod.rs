//! The same few scenarios on every version of PostgreSQL: `make matrix`.
//!
//! Version, source and delivery are settings of a whole process, which shares its servers. So a row of
//! the table is a process of its own: this binary again, with the test [`one_row`].

mod end_to_end;
mod page;
mod row;

use std::{env, path::PathBuf};

use self::{
    page::Page,
    row::{Row, Setting},
};

/// Versions that are tested if `VERSIONS` names none; bootstrap fetches them.
const VERSIONS: [u32; 9] = [10, 11, 12, 13, 14, 15, 16, 17, 18];
/// First version that replicates logical messages.
const FIRST_WITH_MESSAGES: u32 = 14;

/// Every version with every source and mode of delivery that it has.
#[tokio::test]
#[ignore = "takes 20 minutes: make matrix"]
async fn all() {
    let given = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
    let versions: Vec<u32> = match given("MATRIX_VERSIONS") {
        None => VERSIONS.into(),
        Some(list) => list.split(',').map(|text| text.parse().expect("versions: 10,17")).collect(),
    };
    let mut page = Page::new();
    for version in versions {
        for source in ["messages", "tables"] {
            if source == "messages" && version < FIRST_WITH_MESSAGES {
                continue;
            }
            for delivery in ["at-least-once", "exactly-once"] {
                page.add(Row::run(Setting { version, source, delivery }, "").await);
            }
        }
    }
    let file = given("MATRIX_WRITE").map(PathBuf::from);
    file.iter().for_each(|file| page.write(file));
    assert!(page.all_kept(), "a promise was broken");
}

/// The oldest version and the newest, each with what the other has not.
#[tokio::test]
async fn oldest_and_newest() {
    for setting in [
        Setting { version: 10, source: "tables", delivery: "at-least-once" },
        Setting { version: 18, source: "messages", delivery: "exactly-once" },
    ] {
        let row = Row::run(setting, "end_to_end").await;
        assert!(row.is_kept(), "{row:?}");
    }
}

/// One row, for the process that a row is: prints a line for each scenario.
#[tokio::test]
#[ignore = "run by the others"]
async fn one_row() {
    row::run_here().await;
}
