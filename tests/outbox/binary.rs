//! Rows in binary: the same events as in text, for all types, and text where binary does not do.

use std::collections::HashMap;

use factlib::{
    config::{OutboxPreset, OutboxTable},
    replay::{Archive, Selection},
};
use proptest::{
    prelude::*,
    strategy::{BoxedStrategy, ValueTree},
    test_runner::TestRunner,
};
use slog::{Discard, Logger, o};

use crate::support::{
    Bed,
    rows::{debezium, header, records},
};

const ROWS: usize = 500;

/// What the server is asked for.
async fn command(bed: &Bed<'_>) -> String {
    let query = "SELECT query FROM pg_stat_activity JOIN pg_replication_slots ON active_pid = pid
        WHERE slot_name = $1::text::name";
    let client = bed.client().await;
    client.query_one(query, &[&bed.config.postgres.slot]).await.expect("a reader").get(0)
}

async fn is_binary(bed: &Bed<'_>) -> bool {
    let command = command(bed).await;
    assert!(command.starts_with("START_REPLICATION"), "{command}");
    command.contains("binary 'true'")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn literal<T: std::fmt::Display>(
    value: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<String> {
    value.prop_map(|value| quoted(&value.to_string())).boxed()
}

fn day() -> impl Strategy<Value = (String, &'static str)> {
    (-4_712..294_276_i32, 1..=12_u32, 1..=28_u32).prop_map(|(year, month, day)| {
        let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
        (format!("{year:04}-{month:02}-{day:02}"), era)
    })
}

fn clock() -> impl Strategy<Value = String> {
    (0..24_u32, 0..60_u32, 0..60_u32, prop::sample::select(vec![0, 5, 120, 123_456, 900_000]))
        .prop_map(|(h, m, s, us)| format!("{h:02}:{m:02}:{s:02}.{us:06}"))
}

fn instant() -> BoxedStrategy<String> {
    let of = |((day, era), clock): ((String, &str), String)| quoted(&format!("{day} {clock}{era}"));
    let infinite = prop::sample::select(vec!["'infinity'", "'-infinity'", "'epoch'"]);
    prop_oneof![8 => (day(), clock()).prop_map(of), 1 => infinite.prop_map(str::to_owned)].boxed()
}

fn json() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "[^\0]{0,8}".prop_map(Into::into),
    ];
    let json = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map("[a-z\"]{0,4}", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    });
    literal(json)
}

/// Types that come in binary, and literals of random values.
fn types() -> Vec<(&'static str, BoxedStrategy<String>)> {
    let text = || literal("[^\0]{0,20}");
    let number = prop_oneof![
        8 => "-?[0-9]{1,30}(\\.[0-9]{0,20})?",
        4 => "-?0\\.0{0,9}[0-9]{1,4}",
        4 => "-?[1-9]0{3,20}",
        1 => prop::sample::select(vec!["NaN", "Infinity", "-Infinity"]).prop_map(str::to_owned),
    ];
    let scaled = || literal("-?[0-9]{1,6}\\.[0-9]{2,6}");
    let bytes = prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| {
        let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
        digits.fold("\\x".to_owned(), |text, byte| text + &byte)
    });
    let mood = || prop::sample::select(vec!["fine", "été", "it's"]);
    let date = prop_oneof![
        8 => day().prop_map(|(day, era)| day + era),
        1 => prop::sample::select(vec!["infinity", "-infinity", "5874897-12-31"])
            .prop_map(str::to_owned),
    ];
    vec![
        ("text", text()),
        ("varchar(20)", text()),
        ("char(24)", text()),
        ("name", text()),
        ("uuid", literal(any::<u128>().prop_map(uuid::Uuid::from_u128))),
        ("bytea", literal(bytes)),
        ("boolean", literal(any::<bool>())),
        ("smallint", literal(any::<i16>())),
        ("integer", literal(any::<i32>())),
        ("bigint", literal(any::<i64>())),
        ("numeric", literal(number)),
        ("numeric(9, 2)", scaled()),
        ("numeric(12, 5)", scaled()),
        ("timestamptz", instant()),
        ("timestamp", instant()),
        ("timestamptz(3)", instant()),
        ("date", literal(date)),
        ("time", prop_oneof![8 => literal(clock()), 1 => literal(Just("24:00"))].boxed()),
        ("json", json()),
        ("jsonb", json()),
        ("mood", literal(mood())),
        ("of_mood", literal(mood())),
        ("of_numeric", scaled()),
        ("of_uuid", literal(any::<u128>().prop_map(uuid::Uuid::from_u128))),
    ]
}

/// A replay reads in text: it says what the events have to be.
#[actix::test]
async fn random_rows_become_the_same_events_as_in_text() {
    let mut bed = Bed::shared("binary").await;
    let client = bed.client().await;
    let types = types();
    let columns = types.iter().enumerate().map(|(n, (name, _))| format!(", c{n} {name}"));
    let table = format!(
        "CREATE TYPE mood AS ENUM ('fine', 'été', 'it''s');
         CREATE DOMAIN of_mood AS mood; CREATE DOMAIN first AS numeric(12, 3);
         CREATE DOMAIN of_numeric AS first; CREATE DOMAIN of_uuid AS uuid;
         CREATE TABLE o (id serial PRIMARY KEY, aggregate_type text DEFAULT 't',
             aggregate_id text DEFAULT 'k', event_type text DEFAULT 'e',
             payload jsonb DEFAULT '{{\"a\":[1]}}', created_at timestamptz{})",
        columns.collect::<String>()
    );
    client.batch_execute(&table).await.expect("the table");
    let mut table = OutboxTable::new("o", OutboxPreset::Factlib);
    table.envelope = (0..types.len()).map(|n| format!("c{n}")).collect();
    // The bytes of a `bytea` are no text.
    let bytea = types.iter().position(|(name, _)| *name == "bytea").expect("one");
    table.envelope.remove(bytea);
    table.headers = vec![format!("c{bytea}")];
    bed.config.outbox = vec![table];
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    assert!(is_binary(&bed).await);
    let mut runner = TestRunner::deterministic();
    let mut rows = Vec::new();
    for n in 0..ROWS {
        let mut row = format!("(timestamptz '2023-11-14 22:13:20.{n:06}+00'");
        for (_, literals) in &types {
            let is_null = n % 7 == 0 && any::<bool>().new_tree(&mut runner).expect("one").current();
            let value = literals.new_tree(&mut runner).expect("a value").current();
            row += &format!(", {}", if is_null { "NULL" } else { &value });
        }
        rows.push(row + ")");
    }
    let names = (0..types.len()).map(|n| format!(", c{n}")).collect::<String>();
    let insert = format!("INSERT INTO o (created_at{names}) VALUES {}", rows.join(",\n"));
    client.batch_execute(&insert).await.expect("rows");
    let sent = records(&bed, &format!("{}.t", bed.name), ROWS).await;
    pipeline.shutdown().await.expect("a clean stop");
    let sent: HashMap<_, _> =
        sent.iter().map(|record| (header(record, "event_id").to_owned(), record)).collect();
    let (mut selection, log) = (Selection::default(), Logger::root(Discard, o!()));
    selection.since = Some(std::time::UNIX_EPOCH);
    let mut archive = Archive::open(&bed.config, "o", &selection, &log).await.expect("a table");
    let (mut compared, mut bytes) = (0, 0);
    while let Some(row) = archive.next().await.expect("rows") {
        let event = row.event.expect("an event");
        let record = sent[&row.id];
        let of_record = factlib::Event::parse(record.value.clone().expect("a value"), event.lsn());
        let (of_record, of_text) = (
            of_record.expect("an event").decode().expect("an event"),
            event.decode().expect("an event"),
        );
        for (n, (name, _)) in types.iter().enumerate() {
            let column = format!("c{n}");
            let (binary, text) = (of_record.metadata.get(&column), of_text.metadata.get(&column));
            assert_eq!(binary, text, "{name} of row {}: {}", row.id, rows[compared]);
        }
        assert_eq!(of_record, of_text);
        let in_hex: Option<String> = client
            .query_one(&format!("SELECT encode(c{bytea}, 'hex') FROM o WHERE id = {}", row.id), &[])
            .await
            .expect("its row")
            .get(0);
        let of_header = record.header(&format!("c{bytea}")).map(|bytes| {
            bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
        });
        assert_eq!(of_header.unwrap_or_default(), in_hex.unwrap_or_default());
        compared += 1;
        bytes += record.value.as_ref().map_or(0, |value| value.len());
    }
    assert_eq!(compared, ROWS);
    assert!(bytes > ROWS * 200, "they have something in them");
}

/// A table by Debezium's conventions, with a header and a column that is not mapped.
async fn with_header(name: &str, header_type: &str, other_type: &str) -> (Bed<'static>, String) {
    let mut bed = Bed::shared(name).await;
    let create = format!(
        "CREATE TABLE o (id text PRIMARY KEY, aggregatetype text, aggregateid text, payload text,
             h {header_type}, other {other_type})"
    );
    bed.client().await.batch_execute(&create).await.expect("the table");
    let mut table = debezium(&bed, "o");
    table.headers = vec!["h".into()];
    bed.config.outbox = vec![table];
    let topic = format!("{}.outbox.event.t", bed.name);
    (bed, topic)
}

#[actix::test]
async fn a_table_with_a_type_that_is_not_known_in_binary_is_read_in_text() {
    for (n, (header_type, other_type)) in
        [("interval", "text"), ("text", "float8"), ("text", "text[]")].into_iter().enumerate()
    {
        let (bed, topic) = with_header(&format!("in_text{n}"), header_type, other_type).await;
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        assert!(!is_binary(&bed).await, "{header_type}, {other_type}");
        let row = "INSERT INTO o VALUES ('1', 't', 'k', 'p', '01:02:03')";
        bed.client().await.batch_execute(row).await.expect("a row");
        assert_eq!(header(&records(&bed, &topic, 1).await[0], "h"), "01:02:03");
        pipeline.shutdown().await.expect("a clean stop");
    }
}

#[actix::test]
async fn the_stream_begins_again_in_text_when_a_column_becomes_of_such_a_type() {
    let (bed, topic) = with_header("altered_type", "text", "text").await;
    let client = bed.client().await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    assert!(is_binary(&bed).await);
    let altered = "INSERT INTO o VALUES ('1', 't', 'k', 'p', '01:02:03');
        ALTER TABLE o ALTER other TYPE float8 USING 1.5;
        INSERT INTO o VALUES ('2', 't', 'k', 'p', '02:02:03', 0.1)";
    client.batch_execute(altered).await.expect("rows");
    records(&bed, &topic, 2).await;
    bed.confirmed(bed.wal_end().await).await;
    assert!(is_binary(&bed).await, "a column that no event needs");
    let altered = "ALTER TABLE o ALTER h TYPE interval USING h::interval;
        INSERT INTO o VALUES ('3', 't', 'k', 'p', '-1 day 02:03', 0.1)";
    client.batch_execute(altered).await.expect("a row");
    let sent = records(&bed, &topic, 3).await;
    let of = |id: &str| sent.iter().find(|record| header(record, "id") == id).expect("its record");
    let headers = ["1", "2", "3"].map(|id| header(of(id), "h"));
    assert_eq!(headers, ["01:02:03", "02:02:03", "-1 days +02:03:00"]);
    assert!(!is_binary(&bed).await);
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn a_refused_row_is_parked_with_the_texts_of_all_its_columns() {
    let (bed, _) = with_header("parked_binary", "uuid", "text").await;
    let client = bed.client().await;
    let altered = "ALTER TABLE o ADD made timestamptz, ADD price numeric(9, 2), ADD raw bytea,
        ADD done boolean, ADD body jsonb, ADD code char(4)";
    client.batch_execute(altered).await.expect("altered");
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    assert!(is_binary(&bed).await);
    let row = "INSERT INTO o VALUES ('1', NULL, 'k', 'p', '406c07f3-26f0-4eea-a50c-109940064b8f',
        'é', '2023-11-14 22:13:20.5+00', 1.5, '\\x00ff', true, '{\"b\":1}', 'ab')";
    client.batch_execute(row).await.expect("a row");
    let letters = records(&bed, &bed.config.dead_letter_topic(), 1).await;
    let row: serde_json::Value =
        serde_json::from_slice(letters[0].value.as_deref().expect("a value")).expect("JSON");
    let expected = serde_json::json!({
        "id": "1", "aggregatetype": null, "aggregateid": "k", "payload": "p",
        "h": "406c07f3-26f0-4eea-a50c-109940064b8f", "other": "é",
        "made": "2023-11-14 22:13:20.5+00", "price": "1.50", "raw": "\\x00ff", "done": "t",
        "body": "{\"b\": 1}", "code": "ab  ",
    });
    assert_eq!(row, expected);
    bed.confirmed(bed.wal_end().await).await;
    // A type that is not known in binary comes in between: then in text.
    let altered = "ALTER TABLE o ADD tags text[];
        INSERT INTO o (id, aggregateid, tags) VALUES ('2', 'k', '{a,b}')";
    client.batch_execute(altered).await.expect("a row");
    let letters = records(&bed, &bed.config.dead_letter_topic(), 2).await;
    let has_tags = |value: &[u8]| {
        let row: serde_json::Value = serde_json::from_slice(value).expect("JSON");
        row["tags"] == "{a,b}"
    };
    assert!(letters.iter().filter_map(|letter| letter.value.as_deref()).any(has_tags));
    assert!(!is_binary(&bed).await);
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn rows_that_the_server_cannot_send_in_binary_come_in_text() {
    let (bed, topic) = with_header("no_send", "text", "text").await;
    let client = bed.client().await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    assert!(is_binary(&bed).await);
    // An array has a function for it, and its elements have none.
    let other = format!(
        "CREATE TABLE elsewhere (id int PRIMARY KEY, acl aclitem[]);
         ALTER PUBLICATION \"{}\" ADD TABLE elsewhere",
        bed.config.postgres.publication
    );
    client.batch_execute(&other).await.expect("published");
    let rows = "INSERT INTO elsewhere VALUES (1, ARRAY[makeaclitem(10, 10, 'SELECT', false)]);
        INSERT INTO o VALUES ('1', 't', 'k', 'p', 'h')";
    client.batch_execute(rows).await.expect("a row");
    assert_eq!(header(&records(&bed, &topic, 1).await[0], "h"), "h");
    assert!(!is_binary(&bed).await);
    pipeline.shutdown().await.expect("a clean stop");
}
