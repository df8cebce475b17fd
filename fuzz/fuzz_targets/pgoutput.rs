//! Any bytes: parsed or refused; what is borrowed lies inside them.
#![no_main]

use factlib_postgres::pgoutput::{Message, OldTuple, commit_end_lsn};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let end_lsn = commit_end_lsn(bytes);
    match Message::parse(bytes) {
        Ok(Message::Commit { end_lsn: parsed, .. }) => assert_eq!(end_lsn, Some(parsed)),
        Ok(Message::Logical { content, .. }) => {
            let (all, part) = (bytes.as_ptr_range(), content.as_ptr_range());
            assert!(all.start <= part.start && part.end <= all.end);
        }
        Ok(Message::Relation { columns, .. }) => drop(columns.iter().count()),
        Ok(Message::Insert { new, .. } | Message::Update { new, .. }) => {
            assert_eq!(new.values().count(), new.len());
        }
        Ok(Message::Delete { old: OldTuple::Key(old) | OldTuple::Full(old), .. }) => {
            assert_eq!(old.values().count(), old.len());
        }
        Ok(Message::Truncate { relations, .. }) => drop(relations.oids().count()),
        _ => {}
    }
});
