//! Recognizes rows of a partitioned table that move to another partition, so that they are not sent
//! as new events.
//!
//! PostgreSQL carries an UPDATE of the partition key out as a DELETE from one partition and an
//! INSERT into another, and publishes both. The INSERT differs from a new row in its id, which was
//! deleted just before in the same transaction. Only triggers can write rows between the two, so
//! remembering the last DELETE of each table is enough.

use std::collections::HashMap;

use crate::Lsn;

/// The last DELETE of each table in the current transaction, by the table's index in the
/// configuration.
#[derive(Default)]
pub(super) struct PartitionMoves {
    deleted: HashMap<usize, Deleted>,
}

/// A DELETE that may be the first half of a move.
struct Deleted {
    id: Vec<u8>,
    /// The position to report; none if there is nothing to report.
    lsn: Option<Lsn>,
}

impl PartitionMoves {
    /// Takes a DELETE in. Returns the position of the one before it if that row did not move.
    pub fn deleted(&mut self, table: usize, id: &[u8], lsn: Option<Lsn>) -> Option<Lsn> {
        let deleted = Deleted { id: id.into(), lsn };
        self.deleted.insert(table, deleted).and_then(|earlier| earlier.lsn)
    }

    /// Takes an INSERT in. Returns true if it is the second half of a move.
    pub fn inserted(&mut self, table: usize, id: &[u8]) -> bool {
        let moves = self.deleted.get(&table).is_some_and(|deleted| deleted.id == id);
        if moves {
            self.deleted.remove(&table);
        }
        moves
    }

    /// Ends the transaction. Returns the DELETEs whose rows did not move, by table.
    pub fn end(&mut self) -> Vec<(usize, Lsn)> {
        let left = self.deleted.drain();
        left.filter_map(|(table, deleted)| Some((table, deleted.lsn?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delete_and_an_insert_with_the_same_id_are_a_move() {
        let mut moves = PartitionMoves::default();
        assert_eq!(moves.deleted(0, b"a", Some(Lsn::new(1))), None);
        assert!(!moves.inserted(1, b"a"), "of another table");
        assert!(!moves.inserted(0, b"b"), "written by a trigger");
        assert!(moves.inserted(0, b"a"));
        assert!(!moves.inserted(0, b"a"), "once");
        assert_eq!(moves.end(), []);
    }

    #[test]
    fn a_delete_without_an_insert_of_its_id_is_reported() {
        let mut moves = PartitionMoves::default();
        moves.deleted(0, b"a", Some(Lsn::new(1)));
        assert_eq!(moves.deleted(0, b"b", Some(Lsn::new(2))), Some(Lsn::new(1)));
        moves.deleted(1, b"c", None);
        assert_eq!(moves.end(), [(0, Lsn::new(2))]);
        assert!(!moves.inserted(0, b"b"), "the next transaction");
    }
}
