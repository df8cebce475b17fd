use super::*;

fn fields(code: &str, message: &str, routine: &str) -> Error {
    let body = format!("SERROR\0C{code}\0M{message}\0R{routine}\0\0");
    ErrorFields(body.as_bytes()).into_error("cannot read")
}

#[test]
fn each_failure_has_its_kind() {
    use ErrorKind::*;
    for (code, message, routine, kind) in [
        ("28P01", "password authentication failed for user \"u\"", "auth_failed", Authentication),
        ("3D000", "database \"x\" does not exist", "InitPostgres", Refused),
        ("57P03", "the database system is starting up", "ProcessStartupPacket", Unavailable),
        (
            "57P01",
            "terminating connection due to administrator command",
            "ProcessInterrupts",
            Unavailable,
        ),
        ("53300", "sorry, too many clients already", "InitProcess", Unavailable),
        ("08006", "connection failure", "", Unavailable),
        (
            "55006",
            "replication slot \"s\" is active for PID 7",
            "ReplicationSlotAcquire",
            SlotInUse,
        ),
        ("55006", "Replikations-Slot »s« ist aktiv für PID 7", "ReplicationSlotAcquire", SlotInUse),
        ("42704", "replication slot \"s\" does not exist", "ReplicationSlotAcquire", SlotMissing),
        ("42704", "publication \"p\" does not exist", "get_publication_oid", PublicationMissing),
        (
            "42501",
            "must be superuser or replication role to start walsender",
            "InitPostgres",
            Permission,
        ),
        (
            "55000",
            "logical decoding requires wal_level >= logical",
            "CheckLogicalDecodingRequirements",
            ServerSettings,
        ),
        (
            "0A000",
            "logical decoding cannot be used while in recovery",
            "CheckLogicalDecodingRequirements",
            Standby,
        ),
        (
            "55000",
            "can no longer get changes from replication slot \"s\"",
            "CreateDecodingContext",
            SlotInvalidated,
        ),
        (
            "58P01",
            "requested WAL segment 000000010000000000000001 has already been removed",
            "WalSndSegmentOpen",
            SlotInvalidated,
        ),
        ("58P01", "could not access file \"nothing\"", "internal_load_library", Refused),
        ("53400", "all replication slots are in use", "ReplicationSlotCreate", ServerSettings),
        (
            "25006",
            "cannot execute INSERT in a read-only transaction",
            "PreventCommandIfReadOnly",
            Standby,
        ),
        ("42P01", "relation does not exist", "", Refused),
        ("42710", "replication slot \"s\" already exists", "", AlreadyExists),
        (
            "23505",
            "duplicate key value violates unique constraint \"pg_publication_pubname_index\"",
            "_bt_check_unique",
            AlreadyExists,
        ),
        (
            "23505",
            "duplicate key value violates unique constraint \"orders_pkey\"",
            "_bt_check_unique",
            Refused,
        ),
    ] {
        let error = fields(code, message, routine);
        assert_eq!(error.kind(), kind, "{code} {message}");
    }
}

#[test]
fn what_can_be_done_is_said() {
    let wal = "changes are lost: drop the slot and create a new one";
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
            "a pooler is in between that does not pass replication on: connect to PostgreSQL \
             itself, or use PgBouncer 1.23 or later",
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
            "28000",
            "role \"u\" does not exist",
            "run CREATE ROLE … LOGIN REPLICATION, or correct the user in the connection string",
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
            "create it: a new slot does not have the changes since it was dropped",
        ),
        (
            "42704",
            "publication \"p\" does not exist",
            "create it; before PostgreSQL 18, it has to be older than what the slot reads next",
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
            "22021",
            "invalid byte sequence for encoding \"UTF8\": 0xe9",
            "a text has bytes that the database's encoding has no character for: read the stream \
             with the encoding of the database",
        ),
        (
            "25006",
            "cannot execute INSERT in a read-only transaction",
            "the server is a standby or read-only: name the primary, or use \
             target_session_attrs=read-write",
        ),
    ] {
        assert_eq!(fields(code, message, "").remedy(), Some(remedy), "{code} {message}");
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

#[test]
fn malformed_fields_are_left_out() {
    for body in [&b""[..], b"\0", b"C", b"\0\0M\0", b"Mtext", &[0xff, 0xff]] {
        let _ = ErrorFields(body).parse();
    }
    assert_eq!(ErrorFields(b"Mtext").parse().message, "text");
}
