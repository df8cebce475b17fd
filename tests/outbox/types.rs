//! Types of columns: what docs/outbox-tables.md says becomes of each, row by row.

use std::{fs, path::Path};

use bytes::Bytes;
use factlib::{
    config::{OutboxTable, TimeUnit},
    replay::{Archive, Selection},
    testing::ConsumedRecord,
};
use slog::{Discard, Logger, o};

use crate::support::{
    Bed,
    rows::{debezium, header, records},
};

/// One row of the table.
struct Documented {
    type_name: String,
    value: String,
    key: Bytes,
    content: Bytes,
    /// None where such a column is refused.
    time_ms: Option<i64>,
    unit: TimeUnit,
}

fn documented() -> Vec<Documented> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/outbox-tables.md");
    let page = fs::read_to_string(path).expect("the page");
    let (_, rest) = page.split_once("<!-- types:begin -->").expect("a begin");
    let (table, _) = rest.split_once("<!-- types:end -->").expect("an end");
    let lines = table.lines().filter(|line| line.starts_with("| `"));
    lines.map(row).collect()
}

fn row(line: &str) -> Documented {
    let cells: Vec<_> = line.trim_matches('|').split(" | ").collect();
    let [type_name, value, key, content, time] = cells[..] else { panic!("five cells: {line}") };
    let text = |cell: &str| cell.split('`').nth(1).unwrap_or_default().to_owned();
    let bytes = |cell: &str| match cell.trim().starts_with("the bytes") {
        false => text(cell).into(),
        true => {
            let digits = text(cell);
            let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("a byte");
            (0..digits.len()).step_by(2).map(byte).collect()
        }
    };
    let seconds = time.contains("created_at_unit = \"s\"");
    let refused = time.contains("refused");
    Documented {
        type_name: text(type_name),
        value: text(value),
        key: bytes(key),
        content: bytes(content),
        time_ms: (!refused).then(|| {
            let ms = time.split('`').rfind(|part| part.parse::<i64>().is_ok());
            ms.expect("a time").parse().expect("a number")
        }),
        unit: if seconds { TimeUnit::S } else { TimeUnit::Ms },
    }
}

/// Its table for a type, or a domain over it.
fn table(bed: &Bed<'_>, name: &str, documented: &Documented) -> OutboxTable {
    let mut table = debezium(bed, name);
    table.headers = vec!["h".into()];
    let time = if documented.time_ms.is_some() { "at" } else { "made" };
    table.columns.created_at = Some(time.into());
    table.created_at_unit = documented.unit;
    table
}

fn names(n: usize) -> [(String, String); 2] {
    [(format!("t{n}"), "type".into()), (format!("d{n}"), "domain".into())]
}

#[actix::test]
async fn every_type_becomes_what_the_page_says_also_below_a_domain() {
    let mut bed = Bed::shared("types").await;
    let client = bed.client().await;
    let all = documented();
    assert!(all.len() > 20, "the table of the page");
    let types = "CREATE TABLE outbox (); CREATE TYPE mood AS ENUM ('fine');
        CREATE TYPE pair AS (a int, b text)";
    client.batch_execute(types).await.expect("types");
    for (n, Documented { type_name, .. }) in all.iter().enumerate() {
        let domain =
            format!("CREATE DOMAIN first{n} AS {type_name}; CREATE DOMAIN domain{n} AS first{n}");
        client.batch_execute(&domain).await.expect("a domain");
        for (name, kind) in names(n) {
            let column = if kind == "type" { type_name.clone() } else { format!("domain{n}") };
            let create = format!(
                "CREATE TABLE {name} (id text PRIMARY KEY, aggregatetype text, aggregateid {column},
                     payload {column}, h {column}, at {column}, made timestamptz DEFAULT now())"
            );
            client.batch_execute(&create).await.expect("a table");
            bed.config.outbox.push(table(&bed, &name, &all[n]));
        }
    }
    // As awkward as a database may be set up.
    for setting in [
        "extra_float_digits = -5",
        "intervalstyle = iso_8601",
        "quote_all_identifiers = on",
        "datestyle = 'SQL, DMY'",
        "timezone = 'Asia/Kathmandu'",
        "bytea_output = escape",
    ] {
        let set = format!("ALTER DATABASE \"{}\" SET {setting}", bed.database);
        client.batch_execute(&set).await.expect("set");
    }
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    for (n, Documented { value, .. }) in all.iter().enumerate() {
        for (name, _) in names(n) {
            let insert = format!(
                "INSERT INTO {name} VALUES ('{name}', 't', {value}, {value}, {value}, {value})"
            );
            client.batch_execute(&insert).await.expect("a row");
        }
    }
    let topic = format!("{}.outbox.event.t", bed.name);
    let sent = records(&bed, &topic, 2 * all.len()).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    for (n, documented) in all.iter().enumerate() {
        for (name, kind) in names(n) {
            let id = |record: &&ConsumedRecord| header(record, "id") == name;
            let record = sent.iter().find(id).expect("its record");
            let of = format!("{kind} {}", documented.type_name);
            assert_eq!(record.key.as_ref(), Some(&documented.key), "key, {of}");
            assert_eq!(record.value.as_ref(), Some(&documented.content), "payload, {of}");
            assert_eq!(record.header("h"), Some(&documented.content), "header, {of}");
            if let Some(time_ms) = documented.time_ms {
                assert_eq!(record.timestamp_ms, Some(time_ms), "time, {of}");
            }
            let mut selection = Selection::default();
            selection.since = Some(std::time::UNIX_EPOCH);
            let log = Logger::root(Discard, o!());
            let mut archive =
                Archive::open(&bed.config, &name, &selection, &log).await.expect("a table");
            let row = archive.next().await.expect("rows").expect("a row");
            let event = row.event.expect("an event");
            assert_eq!(event.raw(), &documented.content, "replayed payload, {of}");
        }
    }
}

#[actix::test]
async fn types_that_are_no_times_are_refused_at_the_start() {
    let mut bed = Bed::shared("no_times").await;
    let client = bed.client().await;
    let types = "CREATE TYPE mood AS ENUM ('fine'); CREATE TYPE pair AS (a int, b text)";
    client.batch_execute(types).await.expect("types");
    for (n, documented) in documented().iter().enumerate() {
        if documented.time_ms.is_some() {
            continue;
        }
        let create = format!(
            "CREATE TABLE r{n} (id text PRIMARY KEY, aggregatetype text, aggregateid text,
                 payload text, at {})",
            documented.type_name
        );
        client.batch_execute(&create).await.expect("a table");
        let mut table = debezium(&bed, &format!("r{n}"));
        table.columns.created_at = Some("at".into());
        bed.config.outbox = vec![table];
        let error = bed.pipeline().start().await.expect_err(&documented.type_name).to_string();
        let text = format!("column at of outbox table r{n} is not of type timestamptz");
        assert!(error.contains(&text), "{}: {error}", documented.type_name);
    }
}
