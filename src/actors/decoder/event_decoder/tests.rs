//! What replication messages become, as they come and as they come again.

use slog::{Logger, o};

use super::{wire::*, *};
use crate::{
    config::{ChangePolicy, OutboxPreset, OutboxTable},
    outbox::{KnownTable, TableFacts},
};

fn decoder() -> EventDecoder {
    EventDecoder::new("shop", Lsn::new(START))
}

fn decode(decoder: &mut EventDecoder, frames: &[Vec<u8>]) -> Result<Vec<Event>> {
    decoder.decode(&frames.concat().into())
}

#[test]
fn a_transaction_may_span_batches() {
    let mut decoder = decoder();
    let first = decode(&mut decoder, &[begin(2_000, 7), emitted("a")]).expect("decodes");
    let second = decode(&mut decoder, &[emitted("b"), emitted("c")]).expect("decodes");
    let last = decode(&mut decoder, &[commit(2_000), begin(3_000, 8), emitted("d")]);
    let last = last.expect("decodes");
    assert_eq!((ids(&first), ids(&second), ids(&last)), (vec!["a"], vec!["b", "c"], vec!["d"]));
    let of = |event: &Event| event.transaction().map(|t| (t.xid, t.commit_time_ns));
    let committed = pgoutput::unix_ns(5);
    assert!(first.iter().chain(&second).all(|event| of(event) == Some((7, committed))));
    assert_eq!(of(&last[0]), Some((8, committed)));
}

#[test]
fn an_event_is_a_slice_of_its_batch() {
    let batch: Bytes = [begin(2_000, 7), emitted("a")].concat().into();
    let events = decoder().decode(&batch).expect("decodes");
    assert!(batch.as_ptr_range().contains(&events[0].raw().as_ptr()));
}

#[test]
fn messages_of_other_prefixes_are_not_ours() {
    // And need not be protobuf; a prefix is not the beginning of another.
    let others = ["", "sho", "shop2", "Shop"].map(|prefix| logical(true, 1, prefix, b"\xff"));
    let batch = [&[begin(2_000, 7)], &others[..], &[emitted("a"), commit(2_000)]].concat();
    assert_eq!(ids(&decode(&mut decoder(), &batch).expect("decodes")), ["a"]);
}

#[test]
fn a_transaction_that_ended_at_or_before_the_checkpoint_is_not_delivered_again() {
    // The checkpoint is the end of its commit record, which begins before it.
    let before = [begin(START - 8, 7), emitted("a"), commit(START - 8)].concat();
    // What begins to commit at the checkpoint ends after it.
    let after = [begin(START, 8), emitted("b"), commit(START)].concat();
    assert_eq!(ids(&decode(&mut decoder(), &[before, after]).expect("decodes")), ["b"]);
}

#[test]
fn it_is_skipped_whole_also_over_several_batches() {
    let mut decoder = decoder();
    for batch in [vec![begin(START - 8, 7), emitted("a")], vec![emitted("b")]] {
        assert_eq!(ids(&decode(&mut decoder, &batch).expect("decodes")), [""; 0]);
    }
    let next = [commit(START - 8), begin(START + 8, 8), emitted("c")];
    assert_eq!(ids(&decode(&mut decoder, &next).expect("decodes")), ["c"]);
}

#[test]
fn a_message_without_transaction_counts_by_its_own_position() {
    let at = |lsn, id| logical(false, lsn, "shop", &fact(id));
    let batch = [at(START - 1, "a"), at(START, "b"), at(START + 1, "c")];
    let events = decode(&mut decoder(), &batch).expect("decodes");
    assert_eq!(ids(&events), ["c"]);
    assert_eq!((events[0].lsn(), events[0].transaction()), (Lsn::new(START + 1), None));
    // Also where it comes in the middle of a transaction that was delivered before.
    let batch = [begin(START - 8, 7), emitted("x"), at(START + 1, "d"), commit(START - 8)];
    let events = decode(&mut decoder(), &batch).expect("decodes");
    assert_eq!(ids(&events), ["d"]);
    assert_eq!(events[0].transaction(), None);
}

#[test]
fn what_was_handed_on_before_the_connection_was_lost_does_not_come_again() {
    let mut decoder = decoder();
    let at = |lsn, id| logical(false, lsn, "shop", &fact(id));
    let whole = [begin(2_000, 7), emitted("a"), commit(2_000), at(2_100, "b")].concat();
    let half = [begin(3_000, 8), emitted("c"), emitted("d")].concat();
    let events = decode(&mut decoder, &[whole.clone(), half.clone()]).expect("decodes");
    assert_eq!(ids(&events), ["a", "b", "c", "d"]);
    decoder.interrupted();
    assert_eq!(decoder.skips_up_to(), Lsn::new(3_000));
    // It is lost again before it has come so far again.
    assert_eq!(ids(&decode(&mut decoder, std::slice::from_ref(&whole)).expect("decodes")), [""; 0]);
    decoder.interrupted();
    let rest = [emitted("e"), commit(3_000), at(3_100, "f")].concat();
    let events = decode(&mut decoder, &[whole, half, rest]).expect("decodes");
    assert_eq!(ids(&events), ["e", "f"]);
    assert_eq!(decoder.skips_up_to(), Lsn::new(3_100));
}

#[test]
fn another_decoder_goes_on_where_the_first_one_ended() {
    let stream = [begin(2_000, 7), emitted("a"), emitted("b"), emitted("c"), commit(2_000)];
    let outside = logical(false, 3_000, "shop", &fact("d"));
    for handed_on in 1..=stream.len() {
        let mut first = decoder();
        let before = decode(&mut first, &stream[..handed_on]).expect("well formed").len();
        let Cut { lsn, partial } = first.end();
        let mut second = EventDecoder::new("shop", lsn);
        if let Some(partial) = partial {
            second.resume(partial);
        }
        let mut again = stream.to_vec();
        again.push(outside.clone());
        let events = decode(&mut second, &again).expect("well formed");
        assert_eq!(ids(&events), ["a", "b", "c", "d"][before..], "after {handed_on}");
        assert_eq!(second.end(), Cut { lsn: Lsn::new(3_000), partial: None });
    }
}

#[test]
fn a_transaction_interrupted_twice_goes_on_where_it_was_first() {
    let mut decoder = decoder();
    let events = [begin(3_000, 8), emitted("a"), emitted("b"), emitted("c")];
    assert_eq!(decode(&mut decoder, &events).expect("decodes").len(), 3);
    decoder.interrupted();
    assert!(decode(&mut decoder, &events[..2]).expect("decodes").is_empty());
    decoder.interrupted();
    let all = [&events[..], &[emitted("d"), commit(3_000)]].concat();
    assert_eq!(ids(&decode(&mut decoder, &all).expect("decodes")), ["d"]);
    // The next one is whole, whatever its number.
    let next = [begin(4_000, 8), emitted("e"), commit(4_000)];
    assert_eq!(ids(&decode(&mut decoder, &next).expect("decodes")), ["e"]);
}

#[test]
fn a_transaction_of_which_nothing_was_handed_on_comes_whole() {
    let mut decoder = decoder();
    assert!(decode(&mut decoder, &[begin(3_000, 8)]).expect("decodes").is_empty());
    decoder.interrupted();
    assert_eq!(decoder.skips_up_to(), Lsn::new(START));
    let whole = [begin(3_000, 8), emitted("a"), commit(3_000)];
    assert_eq!(ids(&decode(&mut decoder, &whole).expect("decodes")), ["a"]);
}

#[test]
fn changes_of_tables_and_other_frames_give_no_events() {
    let relation = b"R\0\0\0\x01public\0t\0d\0\0";
    let keepalive = [&b"d\0\0\0\x16k"[..], &[0; 17]].concat();
    let notice = b"N\0\0\0\x05\0".to_vec();
    let batch = [begin(2_000, 7), frame(relation), keepalive, notice, commit(2_000)];
    assert!(decode(&mut decoder(), &batch).expect("decodes").is_empty());
}

#[test]
fn what_the_protocol_does_not_allow_is_refused() {
    let cut = |mut bytes: Vec<u8>| {
        bytes.pop();
        bytes
    };
    for (batch, why) in [
        (frame(b"?"), "unknown message type"),
        (frame(b"B\0"), "pgoutput"),
        (frame(b""), "pgoutput"),
        (emitted("outside"), "outside a transaction"),
        ([begin(2_000, 7), commit(2_000), emitted("late")].concat(), "outside a transaction"),
        (cut(begin(2_000, 7)), "inside a message"),
        (b"d\0\0\0\x05z".to_vec(), "malformed"),
        (vec![0; 16], "not a message"),
    ] {
        let error = decode(&mut decoder(), &[batch]).expect_err(why);
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

fn of_tables() -> EventDecoder {
    let table = OutboxTable::new("public.o", OutboxPreset::Debezium);
    let log = Logger::root(slog::Discard, o!());
    let tables = OutboxReader::new(vec![table], TableFacts::default(), log);
    EventDecoder::of_tables(tables, Lsn::new(START))
}

/// The description of `public.o`.
fn described() -> Vec<u8> {
    let columns = ["id", "aggregatetype", "aggregateid", "payload"];
    let columns =
        columns.map(|name| [b"\0", name.as_bytes(), b"\0\0\0\0\x19\xff\xff\xff\xff"].concat());
    frame(&[&b"R\0\0\0\x01public\0o\0d\0\x04"[..], &columns.concat()].concat())
}

/// A row of `public.o`.
fn inserted(id: &str) -> Vec<u8> {
    let length = u32::try_from(id.len()).expect("short").to_be_bytes();
    let column = [&b"t"[..], &length, id.as_bytes()].concat();
    frame(&[&b"I\0\0\0\x01N\0\x04"[..], &column.repeat(4)].concat())
}

#[test]
fn rows_of_tables_are_events_and_messages_then_are_not() {
    let mut decoder = of_tables();
    let batch = [begin(2_000, 7), described(), inserted("a"), emitted("m"), commit(2_000)];
    let events = decode(&mut decoder, &batch).expect("decodes");
    assert_eq!(ids(&events), ["a"]);
    assert_eq!(events[0].transaction().map(|of| of.xid), Some(7));
    // And the other way round.
    let events = decode(&mut self::decoder(), &batch).expect("decodes");
    assert_eq!(ids(&events), ["m"]);
}

#[test]
fn what_was_delivered_before_is_skipped_but_its_tables_are_remembered() {
    let mut decoder = of_tables();
    let before = [begin(START - 8, 7), described(), inserted("a"), commit(START - 8)];
    assert!(decode(&mut decoder, &before).expect("decodes").is_empty());
    let after = [begin(START, 8), inserted("b"), inserted("c"), commit(START)];
    assert_eq!(ids(&decode(&mut decoder, &after).expect("decodes")), ["b", "c"]);
    let error = decode(&mut decoder, &[inserted("late")]).expect_err("no transaction");
    assert_eq!(error.kind(), ErrorKind::Protocol);
}

/// A row of `public.o` is deleted.
fn deleted(id: &str) -> Vec<u8> {
    let length = u32::try_from(id.len()).expect("short").to_be_bytes();
    let key = [&b"t"[..], &length, id.as_bytes(), b"nnn"].concat();
    frame(&[&b"D\0\0\0\x01K\0\x04"[..], &key].concat())
}

fn of_partitions(on_update: ChangePolicy, on_delete: ChangePolicy) -> EventDecoder {
    let table = OutboxTable::new("public.o", OutboxPreset::Debezium);
    let table = OutboxTable { on_update, on_delete, ..table };
    let known = KnownTable { partitioned: true, ..KnownTable::new(table.clone()) };
    let facts = TableFacts { tables: vec![known], ..TableFacts::default() };
    let tables = OutboxReader::new(vec![table], facts, Logger::root(slog::Discard, o!()));
    EventDecoder::of_tables(tables, Lsn::new(START))
}

#[test]
fn a_row_that_moves_is_no_event_also_where_the_stream_was_interrupted() {
    let mut decoder = of_partitions(ChangePolicy::Ignore, ChangePolicy::Stop);
    // The root is described again for each partition.
    let moving = [described(), deleted("a"), described(), inserted("b"), inserted("a")];
    let head = [begin(2_000, 7), described(), inserted("x")];
    let events = decode(&mut decoder, &[&head[..], &moving[..2]].concat()).expect("decodes");
    assert_eq!(ids(&events), ["x"]);
    decoder.interrupted();
    let whole = [&head[..], &moving, &[commit(2_000)]].concat();
    assert_eq!(ids(&decode(&mut decoder, &whole).expect("decodes")), ["b"]);
    // In another transaction, it is a row like any other.
    let error = decode(&mut decoder, &[begin(3_000, 8), deleted("a"), commit(3_000)]);
    assert_eq!(error.expect_err("it stops").kind(), ErrorKind::PostgresRefused);
    let mut decoder = of_partitions(ChangePolicy::Stop, ChangePolicy::Ignore);
    let batch = [begin(2_000, 7), described(), deleted("a"), inserted("a"), commit(2_000)];
    let error = decode(&mut decoder, &batch).expect_err("it stops").to_string();
    assert!(error.contains("were updated at"), "{error}");
    let mut decoder = of_partitions(ChangePolicy::Stop, ChangePolicy::Ignore);
    let batches = [
        [begin(2_000, 7), described(), deleted("a"), commit(2_000)].concat(),
        [begin(3_000, 8), inserted("a"), commit(3_000)].concat(),
    ];
    assert_eq!(ids(&decode(&mut decoder, &batches).expect("decodes")), ["a"]);
}

#[test]
fn the_second_half_of_a_move_is_known_where_the_first_was_handed_on_before() {
    let mut decoder = of_partitions(ChangePolicy::Warn, ChangePolicy::Stop);
    decoder.resume(Partial { xid: 7, final_lsn: Lsn::new(2_000), events: 1 });
    let batch =
        [begin(2_000, 7), described(), inserted("x"), deleted("a"), inserted("a"), inserted("b")];
    assert_eq!(ids(&decode(&mut decoder, &batch).expect("decodes")), ["b"]);
    let mut decoder = of_partitions(ChangePolicy::Warn, ChangePolicy::Stop);
    decoder.resume(Partial { xid: 7, final_lsn: Lsn::new(2_000), events: 3 });
    let batch = [
        begin(2_000, 7),
        described(),
        inserted("x"),
        deleted("a"),
        inserted("a"),
        inserted("a"),
        inserted("b"),
    ];
    assert_eq!(ids(&decode(&mut decoder, &batch).expect("decodes")), ["b"]);
}
