//! Databases that are not in UTF-8, and bytes that are no characters there.

use factlib::{
    replay::{Archive, Selection},
    testing::ConsumedRecord,
};
use slog::{Discard, Logger, o};
use tokio_postgres::Client;

use crate::support::{
    Bed,
    rows::{debezium, header, records},
};

/// A bed in a database of this encoding, with an outbox table `o`.
async fn bed_in(encoding: &str) -> (Bed<'static>, Client) {
    let mut bed = Bed::shared(&format!("in_{}", encoding.to_lowercase())).await;
    bed.database = format!("{}_", bed.database);
    let create = format!(
        "CREATE DATABASE \"{}\" ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'",
        bed.database
    );
    bed.postgres.execute("postgres", &create).await.expect("a database");
    bed.config.postgres.url = bed.postgres.url_for(&bed.database).into();
    let client = bed.client().await;
    // A name beyond ASCII, where the encoding has it.
    let named = match encoding {
        "EUC_JP" => "の",
        "KOI8R" => "имя",
        _ => "prénom",
    };
    let table = format!(
        "CREATE TABLE o (id text PRIMARY KEY, aggregatetype text, aggregateid text, payload text,
             made timestamptz DEFAULT now(), \"{named}\" text)"
    );
    client.batch_execute(&table).await.expect("the table");
    let mut table = debezium(&bed, "o");
    table.headers = vec![format!("{named}:h")];
    table.columns.created_at = Some("made".into());
    bed.config.outbox = vec![table];
    (bed, client)
}

/// A text by its bytes in the database's encoding.
fn text(hex: &str) -> String {
    format!("convert_from('\\x{hex}', getdatabaseencoding())")
}

async fn insert(client: &Client, id: &str, payload: &str, header: &str) {
    let row = format!("INSERT INTO o VALUES ({id}, 't', 'k', {payload}, DEFAULT, {header})",);
    client.batch_execute(&row).await.expect("a row");
}

fn content<'a>(records: &'a [ConsumedRecord]) -> Vec<(&'a [u8], &'a [u8])> {
    let of = |record: &'a ConsumedRecord| {
        let value = record.value.as_deref().expect("a value");
        (value, &record.header("h").expect("a header")[..])
    };
    records.iter().map(of).collect()
}

/// What a replay reads: the payloads, and what is wrong with the others.
async fn replayed(bed: &Bed<'_>) -> Vec<Result<Vec<u8>, String>> {
    let log = Logger::root(Discard, o!());
    let mut selection = Selection::default();
    selection.until = Some(std::time::SystemTime::now());
    let mut archive = Archive::open(&bed.config, "o", &selection, &log).await.expect("a table");
    let mut rows = Vec::new();
    while let Some(row) = archive.next().await.expect("rows") {
        let event = row.event.map(|event| event.raw().to_vec());
        rows.push(event.map_err(|error| error.to_string()));
    }
    rows
}

#[actix::test]
async fn sql_ascii_is_sent_as_it_is_and_a_key_that_is_no_text_parked() {
    let (bed, client) = bed_in("SQL_ASCII").await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    insert(&client, "'1'", &text("636166e9"), "'é'").await;
    insert(&client, &text("e9"), "'x'", "'x'").await;
    insert(&client, "'3'", "'あ'", &text("e9")).await;
    let letters = records(&bed, &bed.config.dead_letter_topic(), 1).await;
    let sent = records(&bed, &format!("{}.outbox.event.t", bed.name), 2).await;
    assert_eq!(content(&sent), [(&b"caf\xe9"[..], "é".as_bytes()), ("あ".as_bytes(), b"\xe9")]);
    let error = header(&letters[0], "dead_letter_error");
    assert!(error.contains("its id is not valid text"), "{error}");
    let row: serde_json::Value =
        serde_json::from_slice(letters[0].value.as_deref().expect("a value")).expect("JSON");
    assert_eq!(row["id"]["hex"], "\\xe9");
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    let rows = replayed(&bed).await;
    assert_eq!((&rows[0], &rows[2]), (&Ok(b"caf\xe9".to_vec()), &Ok("あ".into())));
    assert!(rows[1].as_ref().is_err_and(|error| error.contains("not valid text")), "{rows:?}");
}

#[actix::test]
async fn texts_are_converted_and_a_byte_that_is_no_character_parks_its_row_alone() {
    // A text and itself in UTF-8; a text that has no equivalent there.
    let encodings = [
        ("WIN1252", "636166e980", "café€", "6381"),
        ("LATIN1", "e9ff", "éÿ", ""),
        ("EUC_JP", "a4a28eb18fb0a1", "あｱ丂", "a4a2fefe"),
        ("KOI8R", "c1c2", "аб", ""),
    ];
    for (encoding, good, utf8, stray) in encodings {
        let (bed, client) = bed_in(encoding).await;
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        insert(&client, "'1'", &text(good), "'x'").await;
        if !stray.is_empty() {
            insert(&client, "'2'", &text(stray), "'x'").await;
        }
        insert(&client, "'3'", "'x'", &text(good)).await;
        let sent = records(&bed, &format!("{}.outbox.event.t", bed.name), 2).await;
        let utf8 = utf8.as_bytes();
        assert_eq!(content(&sent), [(utf8, &b"x"[..]), (&b"x"[..], utf8)], "{encoding}");
        let stray_rows = usize::from(!stray.is_empty());
        if stray_rows > 0 {
            let letters = records(&bed, &bed.config.dead_letter_topic(), 1).await;
            let error = header(&letters[0], "dead_letter_error");
            let why = "its payload has bytes for which the database's encoding has no character";
            assert!(error.contains(why), "{error}");
            assert!(!header(&letters[0], "LSN").is_empty());
        }
        bed.confirmed(bed.wal_end().await).await;
        pipeline.shutdown().await.expect("a clean stop");
        let rows = replayed(&bed).await;
        assert_eq!(rows.first(), Some(&Ok(utf8.to_vec())), "{encoding}");
        assert_eq!(rows.iter().filter(|row| row.is_err()).count(), stray_rows, "{encoding}");
    }
}
