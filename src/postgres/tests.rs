//! Kinds, remedies and texts of the server's errors, as the relay classifies them.

use factlib_postgres::ServerError;

use super::*;
use crate::ErrorKind;

fn fields(code: &str, message: &str, routine: &str) -> Error {
    let mut error = ServerError::default();
    error.code = code.into();
    error.message = message.into();
    error.routine = routine.into();
    error.into_error("cannot read").into()
}

#[test]
fn each_failure_has_its_kind() {
    use ErrorKind::*;
    for (code, message, routine, kind) in [
        ("28P01", "password authentication failed for user \"u\"", "auth_failed", PostgresRefused),
        ("3D000", "database \"x\" does not exist", "InitPostgres", PostgresRefused),
        (
            "57P03",
            "the database system is starting up",
            "ProcessStartupPacket",
            PostgresUnavailable,
        ),
        (
            "57P01",
            "terminating connection due to administrator command",
            "ProcessInterrupts",
            PostgresUnavailable,
        ),
        ("53300", "sorry, too many clients already", "InitProcess", PostgresUnavailable),
        ("08006", "connection failure", "", PostgresUnavailable),
        (
            "55006",
            "replication slot \"s\" is active for PID 7",
            "ReplicationSlotAcquire",
            SlotInUse,
        ),
        ("55006", "Replikations-Slot »s« ist aktiv für PID 7", "ReplicationSlotAcquire", SlotInUse),
        ("42704", "replication slot \"s\" does not exist", "ReplicationSlotAcquire", PositionLost),
        ("42704", "publication \"p\" does not exist", "get_publication_oid", PostgresRefused),
        (
            "42501",
            "must be superuser or replication role to start walsender",
            "InitPostgres",
            PostgresRefused,
        ),
        (
            "55000",
            "logical decoding requires wal_level >= logical",
            "CheckLogicalDecodingRequirements",
            PostgresRefused,
        ),
        (
            "0A000",
            "logical decoding cannot be used while in recovery",
            "CheckLogicalDecodingRequirements",
            PostgresUnavailable,
        ),
        (
            "55000",
            "can no longer get changes from replication slot \"s\"",
            "CreateDecodingContext",
            PositionLost,
        ),
        (
            "58P01",
            "requested WAL segment 000000010000000000000001 has already been removed",
            "WalSndSegmentOpen",
            PositionLost,
        ),
        ("58P01", "could not access file \"nothing\"", "internal_load_library", PostgresRefused),
        ("53400", "all replication slots are in use", "ReplicationSlotCreate", PostgresRefused),
        (
            "25006",
            "cannot execute INSERT in a read-only transaction",
            "PreventCommandIfReadOnly",
            PostgresUnavailable,
        ),
        ("42P01", "relation does not exist", "", PostgresRefused),
        ("42710", "replication slot \"s\" already exists", "", PostgresUnavailable),
        (
            "23505",
            "duplicate key value violates unique constraint \"pg_publication_pubname_index\"",
            "_bt_check_unique",
            PostgresUnavailable,
        ),
        (
            "23505",
            "duplicate key value violates unique constraint \"orders_pkey\"",
            "_bt_check_unique",
            PostgresRefused,
        ),
    ] {
        let error = fields(code, message, routine);
        assert_eq!(error.kind(), kind, "{code} {message}");
        // Plain `factlib setup` refuses a position that facts may be missing from.
        let accept =
            error.advice().is_some_and(|a| a.contains("`factlib setup --accept-position`"));
        assert!(accept || kind != PositionLost, "{error}");
    }
}

#[test]
fn what_can_be_done_is_said() {
    let wal = "the server no longer has what the slot needs, so events may be missing; if that is \
               accepted, `factlib setup --accept-position` starts from now";
    for (code, message, remedy) in [
        (
            "53300",
            "number of requested standby connections exceeds max_wal_senders (currently 0)",
            "run ALTER SYSTEM SET max_wal_senders = 10 and restart the server",
        ),
        (
            "53300",
            "number of requested standby connections exceeds max_wal_senders (currently 10)",
            "raise max_wal_senders if other replication connections are there to stay",
        ),
        (
            "53400",
            "all replication slots are in use",
            "drop an unused replication slot, or raise max_replication_slots and restart the server",
        ),
        (
            "08P01",
            "unsupported startup parameter: replication",
            "a pooler is in between that does not pass replication on: name PostgreSQL itself in \
             postgres.url, or use PgBouncer 1.23 or later",
        ),
        (
            "08P01",
            "unsupported startup parameter: options",
            "a pooler is in between: leave the parameter out of the connection string, or name it \
             in PgBouncer's ignore_startup_parameters",
        ),
        (
            "42710",
            "publication \"p\" already exists",
            "another instance made it at the same moment: try again",
        ),
        (
            "28000",
            "connection requires a valid client certificate",
            "name a certificate and its key with sslcert and sslkey",
        ),
        (
            "28P01",
            "password authentication failed for user \"u\"",
            "check user and password of the connection string and the server's pg_hba.conf",
        ),
        (
            "3D000",
            "database \"x\" does not exist",
            "correct the database in the connection string, or create it",
        ),
        (
            "42704",
            "replication slot \"s\" does not exist",
            "events since it was dropped are not in a new slot; if that is accepted, \
             `factlib setup --accept-position` starts from now",
        ),
        (
            "42704",
            "publication \"p\" does not exist",
            "before PostgreSQL 18, the publication has to be older than what the slot reads \
             next; if it is acceptable that this is not delivered, drop the slot and run \
             `factlib setup --accept-position`",
        ),
        (
            "42501",
            "permission denied to start WAL sender: only roles with the REPLICATION attribute, walsender",
            "run ALTER ROLE … REPLICATION for the user",
        ),
        ("42501", "permission denied for table t", "grant the user the privilege"),
        (
            "55000",
            "logical decoding cannot be used while in recovery",
            "the server is a standby: name the primary, or all hosts with \
             target_session_attrs=primary",
        ),
        ("55000", "can no longer get changes from replication slot \"s\"", wal),
        (
            "25006",
            "cannot execute INSERT in a read-only transaction",
            "the server is a standby or read-only: name the primary, or use \
             target_session_attrs=read-write",
        ),
    ] {
        assert_eq!(fields(code, message, "").advice(), Some(remedy), "{code} {message}");
    }
}

#[test]
fn the_text_says_what_why_and_the_remedy() {
    let error = fields("55000", "logical decoding requires wal_level >= logical", "");
    assert_eq!(
        error.to_string(),
        "cannot read: logical decoding requires wal_level >= logical [55000] \
         (run ALTER SYSTEM SET wal_level = logical and restart the server)"
    );
    assert_eq!(sqlstate(&error), Some("55000"));
}
