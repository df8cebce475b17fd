//! Rows of a partitioned table that move to another partition.
//!
//! PostgreSQL carries an UPDATE over the partition key out as a DELETE from one partition and an
//! INSERT into another, and publishes both. What tells it from a new row is the id: it was deleted
//! just before, in the same transaction. Between the two are only rows that triggers write, so the
//! last DELETE of each table is all that has to be remembered.

use std::collections::HashMap;

use crate::Lsn;

/// The last DELETE of each table, by its place in the configuration, within one transaction.
#[derive(Default)]
pub(super) struct Moves {
    deleted: HashMap<usize, Deleted>,
}

/// A DELETE of which it is not yet known whether its row moves.
struct Deleted {
    id: Vec<u8>,
    /// The position to report; none if it was reported before.
    lsn: Option<Lsn>,
}

impl Moves {
    /// A row was deleted. Gives the DELETE before it, if its row has not moved.
    pub fn deleted(&mut self, table: usize, id: &[u8], lsn: Option<Lsn>) -> Option<Lsn> {
        let deleted = Deleted { id: id.into(), lsn };
        self.deleted.insert(table, deleted).and_then(|earlier| earlier.lsn)
    }

    /// A row was inserted: true where it is the one that was deleted.
    pub fn inserted(&mut self, table: usize, id: &[u8]) -> bool {
        let moves = self.deleted.get(&table).is_some_and(|deleted| deleted.id == id);
        if moves {
            self.deleted.remove(&table);
        }
        moves
    }

    /// The transaction ends. Gives the DELETEs whose rows have not moved, by their tables.
    pub fn end(&mut self) -> Vec<(usize, Lsn)> {
        let left = self.deleted.drain();
        left.filter_map(|(table, deleted)| Some((table, deleted.lsn?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_moves_that_is_deleted_and_inserted_with_one_id() {
        let mut moves = Moves::default();
        assert_eq!(moves.deleted(0, b"a", Some(Lsn::new(1))), None);
        assert!(!moves.inserted(1, b"a"), "of another table");
        assert!(!moves.inserted(0, b"b"), "written by a trigger");
        assert!(moves.inserted(0, b"a"));
        assert!(!moves.inserted(0, b"a"), "once");
        assert_eq!(moves.end(), []);
    }

    #[test]
    fn a_delete_whose_row_does_not_come_again_is_one() {
        let mut moves = Moves::default();
        moves.deleted(0, b"a", Some(Lsn::new(1)));
        assert_eq!(moves.deleted(0, b"b", Some(Lsn::new(2))), Some(Lsn::new(1)));
        moves.deleted(1, b"c", None);
        assert_eq!(moves.end(), [(0, Lsn::new(2))]);
        assert!(!moves.inserted(0, b"b"), "the next transaction");
    }
}
