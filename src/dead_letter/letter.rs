//! Reads one dead letter from its record and headers.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use factlib_kafka::client::FetchedRecord;

use super::{header, record::kept_text};
use crate::{Error, ErrorKind, Event, Lsn};

/// Position of a letter in the dead-letter topic, written `partition:offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_structs, reason = "a record of a topic has these two and no more")]
pub struct LetterPosition {
    /// Partition.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
}

/// Stands for the partition of an event that is held in a table.
const HELD: i32 = -1;

impl LetterPosition {
    /// That of a held event with this `id` in the table `factlib.held_events`, written `held:id`.
    pub(crate) fn held(id: i64) -> Self {
        LetterPosition { partition: HELD, offset: id }
    }

    /// True if it is in the table `factlib.held_events` and not in the topic.
    pub fn is_held(&self) -> bool {
        self.partition == HELD
    }
}

impl fmt::Display for LetterPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_held() {
            true => write!(f, "held:{}", self.offset),
            false => write!(f, "{}:{}", self.partition, self.offset),
        }
    }
}

impl FromStr for LetterPosition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |digits: &str| digits.parse::<i64>().ok().filter(|number| *number >= 0);
        let read = text.split_once(':').and_then(|(partition, offset)| {
            if partition == "held" {
                return number(offset).map(LetterPosition::held);
            }
            let partition = number(partition)?.try_into().ok()?;
            Some(LetterPosition { partition, offset: number(offset)? })
        });
        read.ok_or_else(|| {
            let what = format!("{text:?} is no position of a dead letter");
            Error::new(ErrorKind::Config, what)
                .remedy("expected PARTITION:OFFSET, such as 0:17, or held:NUMBER")
        })
    }
}

/// A record of the dead-letter topic.
///
/// Every record there is a letter, also one of another program: missing headers give none.
#[derive(Clone)]
#[non_exhaustive]
pub struct Letter {
    /// Position in the topic.
    pub position: LetterPosition,
    /// Key of the record: the aggregate id.
    pub key: Option<Bytes>,
    /// The event's bytes; empty if [the table](Self::is_kept_in_table) has them.
    pub value: Option<Bytes>,
    /// Headers in the order of the record.
    pub headers: Vec<(String, Option<Bytes>)>,
    timestamp_ms: i64,
}

impl Letter {
    pub(super) fn new(partition: i32, record: FetchedRecord) -> Self {
        let FetchedRecord { offset, timestamp_ms, key, value, headers, .. } = record;
        let position = LetterPosition { partition, offset };
        Letter { position, key, value, headers, timestamp_ms }
    }

    /// A held event, as its row has it.
    pub(super) fn of_row(
        position: LetterPosition,
        timestamp_ms: i64,
        key: Option<Bytes>,
        value: Option<Bytes>,
        headers: Vec<(String, Option<Bytes>)>,
    ) -> Self {
        Letter { position, key, value, headers, timestamp_ms }
    }

    /// Text of a header; none if it is missing or not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }

    /// Topic for which the event was meant; none if unknown.
    pub fn source_topic(&self) -> Option<&str> {
        self.header(header::TOPIC).filter(|topic| !topic.is_empty())
    }

    /// True if it comes from a handler and no topic refused it, so that the handler's own topics are
    /// unknown.
    pub fn is_of_handler(&self) -> bool {
        self.header(header::HANDLER).is_some()
    }

    /// Error for which it was parked.
    pub fn error(&self) -> Option<&str> {
        self.header(header::ERROR)
    }

    /// Time of parking, Unix milliseconds.
    pub fn parked_ms(&self) -> i64 {
        let said = self.header(header::TIME_MS).and_then(|ms| ms.parse().ok());
        said.unwrap_or(self.timestamp_ms)
    }

    /// The event's id; empty if it has none or the bytes are not an event.
    pub fn event_id(&self) -> &str {
        self.header(header::EVENT_ID).or(self.header("event_id")).unwrap_or_default()
    }

    /// True if it is of the event with this id, of which a letter may have the beginning only.
    pub(crate) fn is_of(&self, event_id: &str) -> bool {
        let (own, is_cut) = (self.event_id(), self.is_payload() || self.is_kept_in_table());
        own == event_id || is_cut && own == kept_text(event_id)
    }

    /// The event's type; empty if the bytes are not an event.
    pub fn event_type(&self) -> &str {
        self.header(header::EVENT_TYPE).or(self.header("event_type")).unwrap_or_default()
    }

    /// The event's aggregate type; none if neither the headers nor the bytes have it.
    pub(crate) fn aggregate_type(&self) -> Option<String> {
        let named = self.header(header::AGGREGATE_TYPE).or(self.header(header::HANDLER));
        if let Some(name) = named.or(self.header("aggregate_type")) {
            return Some(name.to_owned());
        }
        let event = Event::parse(self.value.clone()?, Lsn::ZERO).ok()?;
        // Bytes of another kind may happen to be readable.
        (event.id() == self.event_id()).then(|| event.aggregate_type().to_owned())
    }

    /// Position of the event in the WAL.
    pub fn lsn(&self) -> Option<Lsn> {
        self.header(header::LSN).or(self.header("LSN"))?.parse().ok()
    }

    /// True if the value is the bare payload of an outbox table's row.
    pub(super) fn is_payload(&self) -> bool {
        self.header(header::EVENT_ID).is_some()
    }

    /// True if the table `factlib.dead_letters` has its bytes, because no topic took them.
    pub fn is_kept_in_table(&self) -> bool {
        self.header(header::TABLE).is_some()
    }
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letter")
            .field("position", &self.position)
            .field("event_id", &self.event_id())
            .field("bytes", &self.value.as_ref().map_or(0, Bytes::len))
            .finish_non_exhaustive()
    }
}

/// Selects letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LetterFilter {
    /// Only letters meant for this topic; if empty, only those without a topic.
    pub source_topic: Option<String>,
    /// Only letters parked at this time or later, Unix milliseconds.
    pub since_ms: Option<i64>,
}

impl LetterFilter {
    /// True if the letter is selected.
    pub fn takes(&self, letter: &Letter) -> bool {
        let source = letter.source_topic().unwrap_or_default();
        self.source_topic.as_deref().is_none_or(|wanted| wanted == source)
            && self.since_ms.is_none_or(|since| letter.parked_ms() >= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(headers: &[(&str, &'static str)]) -> Letter {
        let own = headers.iter().map(|(key, value)| ((*key).to_owned(), Some((*value).into())));
        Letter {
            position: LetterPosition { partition: 2, offset: 17 },
            key: None,
            value: Some("v".into()),
            headers: own.collect(),
            timestamp_ms: 5_000,
        }
    }

    #[test]
    fn a_position_is_a_partition_and_an_offset() {
        let position: LetterPosition = "2:17".parse().expect("a position");
        assert_eq!((position, position.to_string()), (letter(&[]).position, "2:17".into()));
        for text in ["", ":", "1", "1:", ":1", "-1:2", "1:-2", "1:2:3", "2147483648:0", "a:b"] {
            let error = text.parse::<LetterPosition>().expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Config);
        }
    }

    #[test]
    fn a_record_of_another_program_is_a_letter_without_details() {
        let letter = letter(&[]);
        assert_eq!((letter.source_topic(), letter.error(), letter.lsn()), (None, None, None));
        assert_eq!((letter.event_id(), letter.parked_ms()), ("", 5_000));
        assert!(!letter.is_kept_in_table());
    }

    #[test]
    fn a_letter_with_the_beginning_of_an_id_is_of_the_event() {
        let long = "i".repeat(1_000);
        let kept: &'static str = kept_text(&long).leak();
        assert!(letter(&[("dead_letter_event_id", kept)]).is_of(&long), "a payload");
        let in_table = letter(&[("event_id", kept), ("dead_letter_table", "t")]);
        assert!(in_table.is_of(&long) && !in_table.is_of(&long[..255]));
        assert!(!letter(&[("event_id", kept)]).is_of(&long), "it has the whole id");
    }

    #[test]
    fn a_filter_takes_topics_and_times() {
        let of = |topic: Option<&str>, since_ms: Option<i64>| LetterFilter {
            source_topic: topic.map(str::to_owned),
            since_ms,
        };
        let user = letter(&[("dead_letter_topic", "shop.user"), ("dead_letter_time_ms", "7000")]);
        let none = letter(&[("dead_letter_topic", "")]);
        for (filter, takes_user, takes_none) in [
            (of(None, None), true, true),
            (of(Some("shop.user"), None), true, false),
            (of(Some(""), None), false, true),
            (of(None, Some(7_000)), true, false),
            (of(None, Some(7_001)), false, false),
        ] {
            assert_eq!((filter.takes(&user), filter.takes(&none)), (takes_user, takes_none));
        }
    }
}
