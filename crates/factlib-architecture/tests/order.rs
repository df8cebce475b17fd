//! Holds the repository against the order of its modules and crates.

use std::path::Path;

#[test]
fn modules_and_crates_depend_only_on_what_stands_to_their_left() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let found = factlib_architecture::violations(&repository).expect("the sources can be read");
    assert!(
        found.is_empty(),
        "the order is in src/lib.rs, under \"One direction\":\n\n{}\n",
        found.join("\n")
    );
}
