//! Encodes messages in the documented layouts and checks that the parser reads them back.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Cell {
    Null,
    Unchanged,
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Unconvertible(Vec<u8>),
}

impl Cell {
    fn value(&self) -> Value<'_> {
        match self {
            Cell::Null => Value::Null,
            Cell::Unchanged => Value::UnchangedToast,
            Cell::Text(bytes) => Value::Text(bytes),
            Cell::Binary(bytes) => Value::Binary(bytes),
            Cell::Unconvertible(bytes) => Value::Unconvertible(bytes),
        }
    }
}

#[derive(Default)]
struct Encoder(Vec<u8>);

impl Encoder {
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn u8(self, n: u8) -> Self {
        self.raw(&[n])
    }
    fn u16(self, n: usize) -> Self {
        self.raw(&u16::try_from(n).unwrap().to_be_bytes())
    }
    fn u32(self, n: u32) -> Self {
        self.raw(&n.to_be_bytes())
    }
    fn u64(self, n: u64) -> Self {
        self.raw(&n.to_be_bytes())
    }
    fn text(self, text: &str) -> Self {
        self.raw(text.as_bytes()).u8(0)
    }
    fn counted(self, bytes: &[u8]) -> Self {
        self.u32(u32::try_from(bytes.len()).unwrap()).raw(bytes)
    }
    fn tuple(self, tag: u8, cells: &[Cell]) -> Self {
        cells.iter().fold(self.u8(tag).u16(cells.len()), |out, cell| match cell {
            Cell::Null => out.u8(b'n'),
            Cell::Unchanged => out.u8(b'u'),
            Cell::Text(bytes) => out.u8(b't').counted(bytes),
            Cell::Binary(bytes) => out.u8(b'b').counted(bytes),
            Cell::Unconvertible(bytes) => out.u8(b'x').counted(bytes),
        })
    }
}

fn encode(tag: u8) -> Encoder {
    Encoder::default().u8(tag)
}

fn cells() -> impl Strategy<Value = Vec<Cell>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..8);
    prop::collection::vec(
        prop_oneof![
            Just(Cell::Null),
            Just(Cell::Unchanged),
            bytes().prop_map(Cell::Text),
            bytes().prop_map(Cell::Binary),
            bytes().prop_map(Cell::Unconvertible),
        ],
        0..4,
    )
}

/// The row's values, and that every shorter message is refused.
fn check(bytes: &[u8], cells: &[Cell], row: impl Fn(Message<'_>) -> Option<Tuple<'_>>) {
    let tuple = row(Message::parse(bytes).unwrap()).unwrap();
    let expected: Vec<_> = cells.iter().map(Cell::value).collect();
    assert_eq!(tuple.values().collect::<Vec<_>>(), expected);
    assert_eq!((tuple.len(), tuple.is_empty()), (cells.len(), cells.is_empty()));
    check_cuts(bytes);
}

fn row(old: OldTuple<'_>, full: bool) -> Option<Tuple<'_>> {
    match old {
        OldTuple::Full(row) if full => Some(row),
        OldTuple::Key(row) if !full => Some(row),
        _ => None,
    }
}

fn check_cuts(bytes: &[u8]) {
    for cut in 0..bytes.len() {
        let error = Message::parse(&bytes[..cut]).unwrap_err();
        assert!(matches!(error, ParseError::Expected { offset, .. } if offset <= cut));
    }
    let longer = [bytes, b"x"].concat();
    assert!(Message::parse(&longer).is_err());
}

proptest! {
    #[test]
    fn transactions_round_trip(lsn: u64, end: u64, time: i64, xid: u32, flags: u8) {
        let bytes = encode(b'B').u64(lsn).u64(time.cast_unsigned()).u32(xid).0;
        let begin = Message::Begin { final_lsn: Lsn::new(lsn), commit_time_us: time, xid };
        prop_assert_eq!(Message::parse(&bytes), Ok(begin));
        prop_assert_eq!(commit_end_lsn(&bytes), None);
        check_cuts(&bytes);

        let bytes = encode(b'C').u8(flags).u64(lsn).u64(end).u64(time.cast_unsigned()).0;
        let commit = Message::Commit {
            flags, commit_lsn: Lsn::new(lsn), end_lsn: Lsn::new(end), commit_time_us: time,
        };
        prop_assert_eq!(Message::parse(&bytes), Ok(commit));
        prop_assert_eq!(commit_end_lsn(&bytes), Some(Lsn::new(end)));
        check_cuts(&bytes);
    }

    #[test]
    fn logical_messages_round_trip_as_parts_of_the_input(
        transactional: bool, lsn: u64, prefix in "[^\0]{0,12}", content: Vec<u8>,
    ) {
        let bytes = encode(b'M').u8(transactional.into()).u64(lsn).text(&prefix).counted(&content).0;
        let message = Message::parse(&bytes).unwrap();
        let expected = Message::Logical {
            transactional, lsn: Lsn::new(lsn), prefix: &prefix, content: &content,
        };
        prop_assert_eq!(message, expected);
        let Message::Logical { content, .. } = message else { unreachable!() };
        prop_assert!(bytes.as_ptr_range().contains(&content.as_ptr()) || content.is_empty());
        check_cuts(&bytes);
    }

    #[test]
    fn descriptions_round_trip(
        oid: u32, space in "[a-z]{0,5}", name in "[a-zé]{0,5}", identity: u8,
        columns in prop::collection::vec((any::<u8>(), "[a-z]{0,5}", any::<u32>(), any::<i32>()), 0..4),
    ) {
        let head = encode(b'R').u32(oid).text(&space).text(&name).u8(identity).u16(columns.len());
        let bytes = columns.iter().fold(head, |out, (flags, name, oid, modifier)| {
            out.u8(*flags).text(name).u32(*oid).u32(modifier.cast_unsigned())
        }).0;
        let Ok(Message::Relation { columns: parsed, .. }) = Message::parse(&bytes) else {
            panic!("no relation");
        };
        let expected: Vec<_> = columns.iter().map(|(flags, name, oid, modifier)| Column {
            flags: *flags, name, type_oid: *oid, type_modifier: *modifier,
        }).collect();
        prop_assert_eq!(parsed.iter().collect::<Vec<_>>(), expected);
        check_cuts(&bytes);

        let bytes = encode(b'Y').u32(oid).text(&space).text(&name).0;
        prop_assert_eq!(Message::parse(&bytes), Ok(Message::Type { oid, namespace: &space, name: &name }));
        check_cuts(&bytes);

        let bytes = encode(b'O').u64(oid.into()).text(&name).0;
        let origin = Message::Origin { commit_lsn: Lsn::new(oid.into()), name: &name };
        prop_assert_eq!(Message::parse(&bytes), Ok(origin));
        check_cuts(&bytes);
    }

    #[test]
    fn changes_round_trip(oid: u32, old in cells(), new in cells(), full: bool) {
        let tag = if full { b'O' } else { b'K' };
        let bytes = encode(b'I').u32(oid).tuple(b'N', &new).0;
        check(&bytes, &new, |message| match message {
            Message::Insert { relation, new } if relation == oid => Some(new),
            _ => None,
        });
        let bytes = encode(b'U').u32(oid).tuple(b'N', &new).0;
        check(&bytes, &new, |message| match message {
            Message::Update { old: None, new, .. } => Some(new),
            _ => None,
        });
        let bytes = encode(b'U').u32(oid).tuple(tag, &old).tuple(b'N', &new).0;
        check(&bytes, &old, |message| match message {
            Message::Update { old: Some(old), .. } => row(old, full),
            _ => None,
        });
        let bytes = encode(b'D').u32(oid).tuple(tag, &old).0;
        check(&bytes, &old, |message| match message {
            Message::Delete { old, .. } => row(old, full),
            _ => None,
        });
    }

    #[test]
    fn truncations_round_trip(options: u8, oids in prop::collection::vec(any::<u32>(), 0..4)) {
        let head = encode(b'T').u32(u32::try_from(oids.len()).unwrap()).u8(options);
        let bytes = oids.iter().fold(head, |out, oid| out.u32(*oid)).0;
        let Ok(Message::Truncate { options: parsed, relations }) = Message::parse(&bytes) else {
            panic!("no truncate");
        };
        prop_assert_eq!((parsed, relations.oids().collect::<Vec<_>>()), (options, oids));
        check_cuts(&bytes);
    }

    #[test]
    fn texts_of_rows_are_converted_and_nothing_else(oid: u32, old in cells(), new in cells()) {
        let latin1 = |text: &[u8]| Some(text.iter().map(|byte| char::from(*byte)).collect());
        let converted = |cell: &Cell| match cell {
            Cell::Text(text) => Cell::Text(latin1(text).map(String::into_bytes).unwrap()),
            other => other.clone(),
        };
        let bytes = encode(b'U').u32(oid).tuple(b'O', &old).tuple(b'N', &new).0;
        let (old, new): (Vec<_>, Vec<_>) =
            (old.iter().map(converted).collect(), new.iter().map(converted).collect());
        let expected = encode(b'U').u32(oid).tuple(b'O', &old).tuple(b'N', &new).0;
        let bytes = Message::converted(&bytes, latin1).unwrap().unwrap();
        prop_assert_eq!(&bytes[..], &expected[..]);
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(tag in "[BCMORYIUDT]", mut bytes: Vec<u8>) {
        let _ = Message::parse(&bytes);
        bytes.insert(0, tag.as_bytes()[0]);
        let utf8 = |text: &[u8]| String::from_utf8(text.into()).ok();
        if let Ok(Some(converted)) = Message::converted(&bytes, utf8) {
            prop_assert_eq!(Message::parse(&bytes).is_ok(), Message::parse(&converted).is_ok());
        }
        if Message::parse(&bytes).is_err() {
            let _ = commit_end_lsn(&bytes);
        }
    }
}

#[test]
fn unknown_types_and_hostile_lengths_are_refused() {
    assert_eq!(Message::parse(b"S\0"), Err(ParseError::UnknownType(b'S')));
    let hostile = encode(b'M').u8(0).u64(1).text("p").u32(u32::MAX).0;
    let error = ParseError::Expected { expected: "the content", offset: 16 };
    assert_eq!(Message::parse(&hostile), Err(error));
    assert!(Message::parse(&encode(b'T').u32(u32::MAX).u8(0).0).is_err());
}

#[test]
fn a_prefix_that_is_no_utf_8_does_not_stop_the_stream() {
    let bytes = encode(b'M').u8(1).u64(1).raw(&[0xff, 0]).counted(b"x").0;
    assert!(matches!(Message::parse(&bytes), Ok(Message::Logical { prefix: "\u{fffd}", .. })));
}

#[test]
fn names_are_converted_and_a_text_that_cannot_be_is_marked() {
    let utf8 = |text: &[u8]| match text {
        b"\xe9" => Some("é".to_owned()),
        text => String::from_utf8(text.into()).ok(),
    };
    let relation = |name: &[u8]| {
        let head = encode(b'R').u32(7).raw(name).u8(0).raw(name).u8(0).u8(b'd').u16(1);
        head.u8(1).raw(name).u8(0).u32(25).u32(0).0
    };
    let logical = |prefix: &[u8]| encode(b'M').u8(1).u64(1).raw(prefix).u8(0).counted(b"\xe9").0;
    let row = |cell: Cell| encode(b'I').u32(7).tuple(b'N', &[cell]).0;
    for (from, to) in [
        (relation(b"\xe9"), relation("é".as_bytes())),
        (relation(b"\x81"), relation("\u{fffd}".as_bytes())),
        (logical(b"\xe9"), logical("é".as_bytes())),
        (row(Cell::Text(b"\x81".into())), row(Cell::Unconvertible(b"\x81".into()))),
        (row(Cell::Binary(b"\xe9".into())), row(Cell::Binary(b"\xe9".into()))),
    ] {
        let converted = Message::converted(&from, utf8).unwrap().unwrap();
        assert_eq!(&converted[..], &to[..]);
        for cut in 1..from.len() {
            let _ = Message::converted(&from[..cut], utf8);
        }
    }
    assert_eq!(Message::converted(&logical(b"shop"), utf8), Ok(None), "it has no text");
}

#[test]
fn times_become_unix_nanoseconds() {
    assert_eq!(unix_ns(0), 946_684_800_000_000_000);
    assert_eq!(unix_ns(-946_684_800_000_000), 0);
    assert_eq!(unix_ns(i64::MAX), i64::MAX);
    assert_eq!(unix_ns(i64::MIN), i64::MIN);
}
