//! Says why the server invalidated a slot, and how to keep it from doing so again.
//!
//! A reason is `invalidation_reason` of `pg_replication_slots`, such as `idle_timeout`.

use crate::ServerError;

/// The reason of PostgreSQL 16, which does not say which of two it is.
const CONFLICT: &str = "conflict with recovery";

/// Returns the cause of an invalidation; none if the reason is not known.
pub fn cause(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "wal_removed" => "it retained more WAL than max_slot_wal_keep_size",
        "idle_timeout" => "nobody read it for as long as idle_replication_slot_timeout",
        "rows_removed" => "the primary removed rows of the catalog that this standby still needed",
        "wal_level_insufficient" => "the primary's wal_level was no longer logical",
        CONFLICT => "the primary removed rows that this standby needed, or lowered its wal_level",
        _ => return None,
    })
}

/// Returns what keeps the server from invalidating the next slot; none if the reason is not known.
pub fn prevention(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "wal_removed" => "raise max_slot_wal_keep_size",
        "idle_timeout" => {
            "ALTER SYSTEM SET idle_replication_slot_timeout = 0, and SELECT pg_reload_conf()"
        }
        "rows_removed" | CONFLICT => {
            "set hot_standby_feedback = on on the standby, and primary_slot_name to a physical slot"
        }
        "wal_level_insufficient" => "set wal_level = logical on the primary, and restart it",
        _ => return None,
    })
}

/// Returns the reason that the server gives in an error about an invalidated slot.
pub fn reason(error: &ServerError) -> Option<&'static str> {
    let detail = error.detail.as_deref()?;
    [
        // PostgreSQL 18 quotes the reason; before, there is a sentence for each.
        ("idle_timeout", "idle_timeout"),
        ("rows_removed", "rows_removed"),
        ("wal_level_insufficient", "wal_level_insufficient"),
        ("wal_removed", "wal_removed"),
        ("conflicting with recovery", CONFLICT),
        ("maximum reserved size", "wal_removed"),
    ]
    .into_iter()
    .find_map(|(text, reason)| detail.contains(text).then_some(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_in_the_servers_details() {
        for (detail, expected) in [
            ("This replication slot has been invalidated due to \"idle_timeout\".", "idle_timeout"),
            ("This slot has been invalidated because it was conflicting with recovery.", CONFLICT),
            (
                "This slot has been invalidated because it exceeded the maximum reserved size.",
                "wal_removed",
            ),
        ] {
            let error = ServerError { detail: Some(detail.into()), ..ServerError::default() };
            assert_eq!(reason(&error), Some(expected));
            assert!(cause(expected).is_some() && prevention(expected).is_some());
        }
        assert_eq!(reason(&ServerError::default()), None);
    }
}
