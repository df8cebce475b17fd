//! The order of modules and of crates, as the docs of `src/lib.rs` have it.

/// The heading of the docs under which the orders stand.
const HEADING: &str = "# One direction";

/// Names from left to right: each may depend on those to its left.
pub struct Order {
    names: Vec<String>,
    line: String,
}

impl Order {
    /// Reads the order of the modules: the first block under the heading.
    ///
    /// # Errors
    /// There is none, or a name is in it twice.
    pub fn of_modules(lib: &str) -> Result<Self, String> {
        Order::nth(lib, 0)
    }

    /// Reads the order of the workspace's crates: the second block.
    ///
    /// # Errors
    /// As [`of_modules`](Self::of_modules).
    pub fn of_crates(lib: &str) -> Result<Self, String> {
        Order::nth(lib, 1)
    }

    fn nth(lib: &str, block: usize) -> Result<Self, String> {
        let docs = lib.lines().filter_map(|line| line.strip_prefix("//!")).map(str::trim);
        let section = docs.skip_while(|line| *line != HEADING).skip(1);
        let section = section.take_while(|line| !line.starts_with("# "));
        let mut blocks: Vec<Vec<&str>> = Vec::new();
        let mut inside = false;
        for line in section {
            match (line.starts_with("```"), inside) {
                (true, false) => {
                    blocks.push(Vec::new());
                    inside = true;
                }
                (true, true) => inside = false,
                (false, true) => blocks.last_mut().into_iter().for_each(|block| block.push(line)),
                (false, false) => {}
            }
        }
        let lines = blocks.into_iter().nth(block);
        let line = lines.ok_or_else(|| format!("src/lib.rs has no order under {HEADING:?}"))?;
        let line = line.join(" ");
        let names: Vec<String> =
            line.split_whitespace().filter(|word| *word != "│").map(str::to_owned).collect();
        for (at, name) in names.iter().enumerate() {
            if names.iter().take(at).any(|other| other == name) {
                return Err(format!("the order in src/lib.rs names {name} twice"));
            }
        }
        Ok(Order { names, line })
    }

    /// The place of a name, from the left.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|other| other == name)
    }

    /// All names, from left to right.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The order as it is written.
    pub fn text(&self) -> &str {
        &self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_for_the_reader_and_lines_go_on() {
        let docs = "//! # One direction\n//! Text.\n//! ```text\n//! a b │ c\n//! d\n//! ```\n\
                    //! ```text\n//! x\n//! ```\n//! # More\n";
        let order = Order::of_modules(docs).expect("an order");
        let places = ["a", "b", "c", "d", "x"].map(|name| order.place(name));
        assert_eq!(places, [Some(0), Some(1), Some(2), Some(3), None]);
        let crates = Order::of_crates(docs).expect("an order");
        assert_eq!(crates.text(), "x");
    }

    #[test]
    fn no_order_and_a_name_twice_are_errors() {
        assert!(Order::of_modules("//! # Another\n").is_err());
        let twice = "//! # One direction\n//! ```text\n//! a a\n//! ```\n";
        assert!(Order::of_modules(twice).is_err());
    }
}
