use std::collections::BTreeMap;

use factlib::emit::Fact;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use uuid::Uuid;

use super::Database;

const ENCODE: &str =
    "SELECT factlib.encode_event($1::text::uuid, $2, $3, $4, $5, $6, $7::text::jsonb)";

/// Texts that PostgreSQL has: everything but NUL.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[^\\x00]{0,20}",
        "[a-z]{1,3}",
        Just("Zoë 🦀 \\ \" ' \u{7f} \u{ffff}".to_owned()),
        (120usize..135).prop_map(|n| "x".repeat(n)),
    ]
}

fn fact() -> impl Strategy<Value = Fact> {
    let kinds = ("[A-Za-z0-9._-]{1,20}", text(), text());
    let metadata = prop::collection::btree_map(text(), text(), 0..6);
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        prop::sample::select(vec![0usize, 126, 127, 128, 129, 16_383, 16_384, 16_385])
            .prop_map(|length| vec![7; length]),
    ];
    let time = prop_oneof![any::<i64>(), Just(0), Just(127), Just(128), Just(-1), Just(i64::MIN)];
    (kinds, metadata, payload, time, any::<u128>()).prop_map(
        |((aggregate_type, id, event_type), metadata, payload, time, uuid)| {
            let (id, event_type) = (id + "i", event_type + "e");
            let fact = Fact::new(aggregate_type, id, event_type).payload(payload);
            let fact = fact.created_at_ns(time).id(Uuid::from_u128(uuid));
            metadata.into_iter().fold(fact, |fact, (key, value)| fact.metadata(key, value))
        },
    )
}

async fn encoded(database: &Database, fact: &Fact) -> (Vec<u8>, Vec<u8>) {
    use prost::Message;
    let event = fact.to_event().expect("valid");
    let metadata: BTreeMap<_, _> = event.metadata.clone();
    let metadata = serde_json::to_string(&metadata).expect("JSON");
    let payload = event.payload.to_vec();
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 7] = [
        &event.id,
        &event.aggregate_type,
        &event.aggregate_id,
        &event.event_type,
        &payload,
        &event.created_at,
        &metadata,
    ];
    let row = database.client.query_one(ENCODE, &parameters).await.expect("encoded");
    (row.get(0), event.encode_to_vec())
}

#[tokio::test]
async fn sql_writes_the_bytes_of_the_client() {
    let database = Database::create("golden").await;
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        prop::test_runner::TestRng::deterministic_rng(prop::test_runner::RngAlgorithm::ChaCha),
    );
    for _ in 0..500 {
        let fact = fact().new_tree(&mut runner).expect("a fact").current();
        let (sql, rust) = encoded(&database, &fact).await;
        assert_eq!(sql, rust, "{:?}", fact.to_event());
    }
    database.client.batch_execute("SET factlib.max_bytes = 0").await.expect("set");
    let large = Fact::new("user", "u", "e").payload(vec![9; 3_000_000]);
    let (sql, rust) = encoded(&database, &large).await;
    assert!(sql == rust, "a large payload");
}

#[tokio::test]
async fn sql_emits_from_statements_triggers_and_arrays() {
    let database = Database::create("functions").await;
    // A role that has been given nothing but the schema.
    let role = format!("app_{}", database.name);
    let script = format!(
        "CREATE TABLE users (id int PRIMARY KEY, name text);
        CREATE FUNCTION created() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM factlib.emit('user', NEW.id::text, 'user.created', to_jsonb(NEW));
            RETURN NEW;
        END $$;
        CREATE TRIGGER created AFTER INSERT ON users FOR EACH ROW EXECUTE PROCEDURE created();
        CREATE ROLE {role}; GRANT USAGE ON SCHEMA factlib TO {role}; GRANT INSERT ON users TO {role};
        SET ROLE {role};
        SELECT factlib.emit('user', 'text', 'e', 'plain');
        SELECT factlib.emit('user', 'bytes', 'e', '\\x00ff'::bytea, '{{\"n\": 1}}');
        INSERT INTO users VALUES (7, 'Zoë');
        --
        BEGIN; INSERT INTO users VALUES (8, 'nobody'); ROLLBACK;
        --
        SELECT factlib.emit_batch('[
            {{\"aggregate_type\": \"user\", \"aggregate_id\": \"b1\", \"event_type\": \"e\", \"payload\": [1]}},
            {{\"aggregate_type\": \"user\", \"aggregate_id\": \"b2\", \"event_type\": \"e\", \"payload_base64\": \"AP8=\"}}]');
        RESET ROLE"
    );
    for script in script.split("--\n") {
        database.client.batch_execute(script).await.expect("emitted");
    }
    let events = database.events("factlib").await;
    let seen: Vec<(&str, &[u8])> =
        events.iter().map(|event| (&event.aggregate_id[..], &event.payload[..])).collect();
    let expected: [(&str, &[u8]); 5] = [
        ("text", b"plain"),
        ("bytes", b"\x00\xff"),
        ("7", "{\"id\": 7, \"name\": \"Zoë\"}".as_bytes()),
        ("b1", b"[1]"),
        ("b2", b"\x00\xff"),
    ];
    assert_eq!(seen, expected);
    assert_eq!(events[1].metadata["n"], "1");
    assert_eq!(events[2].metadata["content_type"], "application/json");
    let now = Fact::new("a", "b", "c").to_event().expect("valid").created_at;
    for event in &events {
        let id: Uuid = event.id.parse().expect("a UUID");
        assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
        let (seconds, _) = id.get_timestamp().expect("a time").to_unix();
        assert!(seconds.abs_diff(now as u64 / 1_000_000_000) < 600, "{seconds}");
        assert!((now - event.created_at).abs() < 600_000_000_000);
    }
    let drop_role = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    database.client.batch_execute(&drop_role).await.expect("gone");
}

#[tokio::test]
async fn sql_refuses_what_the_client_refuses() {
    let database = Database::create("refusing").await;
    for (call, says) in [
        ("factlib.emit('', 'i', 'e', '')", "aggregate_type is empty"),
        (
            "factlib.emit('a b', 'i', 'e', '')",
            "aggregate_type \"a b\" makes no topic name: letters, digits, '.', '_' and '-' are allowed",
        ),
        (
            "factlib.emit(E'a\\n', 'i', 'e', '')",
            "aggregate_type \"a\n\" makes no topic name: letters, digits, '.', '_' and '-' are allowed",
        ),
        ("factlib.emit('a', NULL, 'e', '')", "aggregate_id is empty"),
        ("factlib.emit('a', 'i', '', '')", "event_type is empty"),
        ("factlib.emit('a', 'i', 'e', '', '[]')", "metadata is no object"),
        ("factlib.emit('a', 'i', 'e', '', '{\"k\": null}')", "metadata \"k\" is null"),
        ("factlib.encode_event(NULL, 'a', 'i', 'e', '', 1)", "id or created_at_ns is null"),
        ("factlib.emit('a', 'i', 'e', '', '{}', '')", "prefix is empty"),
        (
            "factlib.emit('a', 'i', 'e', repeat('x', 1000000))",
            "a fact of 1000061 bytes is too large for the broker's limit",
        ),
        ("factlib.emit_batch('{}')", "facts are no array"),
        (
            "factlib.emit_batch('[{\"aggregat\": 1}]')",
            "a fact has the unknown field \"aggregat\", or two payloads",
        ),
    ] {
        let error = database.client.batch_execute(&format!("SELECT {call}")).await.unwrap_err();
        let error = error.as_db_error().expect("the server says so");
        assert_eq!(error.message(), format!("factlib: {says}"), "{call}");
        let hint = "Where the broker takes more, SET factlib.max_bytes; 0 is no limit.";
        assert_eq!(error.hint(), says.contains("too large").then_some(hint), "{call}");
    }
    assert!(database.events("factlib").await.is_empty());
}
