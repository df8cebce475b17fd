//! Reads the topic of positions. The pipelines of a fleet share a reader, so that what one start has
//! read is not read again for the next.
//!
//! An open transaction of any slot would hide all records behind it from a reader of committed ones. So
//! the end of the topic is read with the records of open transactions, and the end that Kafka writes for
//! each transaction decides about its records.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use factlib_kafka::client::{Isolation, LogEnd};
use slog::Logger;
use tokio::time::{Instant, timeout};

mod records;

pub(super) use self::records::Newest;
use self::records::{OPEN, Records};
use crate::{
    Result,
    kafka::{KafkaSettings, reader::TopicReader},
};

/// The topic has one partition: it is small.
pub(super) const PARTITION: i32 = 0;

/// Number of records before the end that are read first.
const TAIL_RECORDS: i64 = 2_000;

/// Time for which what was read is kept. Kafka deletes the end of a transaction `delete.retention.ms` (24 h)
/// after its records were compacted away, and a reader that comes later would miss it.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// Limit for the wait while others read, one of which may wait for a broker.
const TURN_LIMIT: Duration = Duration::from_secs(10);

/// Reasons why a position can't be told yet.
const BUSY: &str = "another pipeline still reads the topic";
const UNKNOWN: &str = "the brokers do not know the topic";
const BEHIND: &str = "the leader has fewer records than a moment ago";

/// The readers that the pipelines of a fleet share.
#[derive(Clone, Default)]
pub(crate) struct PositionReaders(Arc<Mutex<Vec<Weak<PositionReader>>>>);

impl PositionReaders {
    /// Returns the reader of a topic, which pipelines with the same brokers and login share.
    pub fn of(&self, settings: KafkaSettings, topic: &str) -> Arc<PositionReader> {
        let mut readers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| reader.strong_count() > 0);
        let found = readers.iter().filter_map(Weak::upgrade);
        let found = found.into_iter().find(|reader| reader.is_for(&settings, topic));
        found.unwrap_or_else(|| {
            let (topic, known) = (topic.to_owned(), tokio::sync::Mutex::default());
            let reader = Arc::new(PositionReader { settings, topic, known });
            readers.push(Arc::downgrade(&reader));
            reader
        })
    }
}

/// Reads one topic of positions.
pub(crate) struct PositionReader {
    settings: KafkaSettings,
    topic: String,
    known: tokio::sync::Mutex<Option<Known>>,
}

/// What has been read of the topic.
struct Known {
    topic_id: u128,
    reader: TopicReader,
    /// The leader whose log was read.
    leader_epoch: i32,
    /// Offset from which all was read, up to the reader's.
    from: i64,
    /// True if there is nothing to read before it.
    is_whole: bool,
    /// Time at which all that the topic had behind it was read.
    complete_at: Option<Instant>,
    records: Records,
}

impl PositionReader {
    fn is_for(&self, settings: &KafkaSettings, topic: &str) -> bool {
        let own = &self.settings;
        self.topic == topic
            && own.brokers == settings.brokers
            && own.login == settings.login
            && own.tls == settings.tls
    }

    /// Finds the newest committed record with that key. A topic without records is read too, so that a
    /// missing right to read shows at the first start.
    pub(super) async fn newest(&self, key: &[u8], log: &Logger) -> Result<Newest> {
        let asked_at = Instant::now();
        let Ok(mut known) = timeout(TURN_LIMIT, self.known.lock()).await else {
            return Ok(Newest::Undecided(BUSY));
        };
        // Many that start together are answered by what one of them reads.
        if let Some(newest) = known.as_ref().and_then(|known| known.newest_since(asked_at, key)) {
            return Ok(newest);
        }
        let reads_at = Instant::now();
        let is_there = match &*known {
            Some(known) => known.is_there().await?,
            None => false,
        };
        if !is_there {
            *known = self.open(log).await?;
        }
        // Callers have seen the topic. A broker that has just started may not know it.
        let Some(known) = &mut *known else { return Ok(Newest::Undecided(UNKNOWN)) };
        // Not the end that a Fetch tells: that one may go back when the partition gets another leader.
        let end = known.reader.log_end(PARTITION).await?;
        if end.leader_epoch < known.leader_epoch {
            return Ok(Newest::Undecided(BEHIND));
        }
        if !known.goes_on_to(&end) {
            known.begin_before(end).await?;
        }
        if !known.read_until(end.offset).await? {
            return Ok(Newest::Undecided(BEHIND));
        }
        known.complete_at = Some(reads_at);
        if !known.knows(key) && !self.read_older(known, log).await? {
            return Ok(Newest::Undecided(OPEN));
        }
        Ok(known.records.newest(key))
    }

    async fn open(&self, log: &Logger) -> Result<Option<Known>> {
        let all = Isolation::ReadUncommitted;
        let opened = TopicReader::open(&self.settings, &self.topic, all, log.clone()).await?;
        let Some(reader) = opened else { return Ok(None) };
        let Some(topic_id) = reader.topic_id().await? else { return Ok(None) };
        Ok(Some(Known {
            topic_id,
            reader,
            leader_epoch: -1,
            from: 0,
            is_whole: false,
            complete_at: None,
            records: Records::default(),
        }))
    }

    /// Reads the committed records before the ones that are known. Returns false if that is not possible
    /// yet, because a transaction there is open.
    async fn read_older(&self, known: &mut Known, log: &Logger) -> Result<bool> {
        let committed = Isolation::ReadCommitted;
        let opened = TopicReader::open(&self.settings, &self.topic, committed, log.clone()).await?;
        let Some(mut reader) = opened else { return Ok(false) };
        let range = reader.offsets(PARTITION).await?;
        if range.end < known.from {
            return Ok(false);
        }
        // Added at the end: a part of them would hide that others are missing.
        let mut older = Records::default();
        reader.seek(PARTITION, range.start);
        while let Some(record) = reader.next(known.from).await? {
            older.committed(&record);
        }
        known.is_whole = reader.offset() >= known.from;
        if known.is_whole {
            known.records.merge(older);
        }
        Ok(known.is_whole)
    }
}

impl Known {
    /// False if the topic is gone or was created again, and for brokers that can't tell.
    async fn is_there(&self) -> Result<bool> {
        Ok(self.topic_id != 0 && self.reader.topic_id().await? == Some(self.topic_id))
    }

    /// What is known about a key, if all has been read since that time.
    fn newest_since(&self, asked_at: Instant, key: &[u8]) -> Option<Newest> {
        let is_complete = self.complete_at.is_some_and(|complete_at| complete_at >= asked_at);
        (is_complete && self.knows(key)).then(|| self.records.newest(key))
    }

    /// True if no record before those that were read can matter for a key.
    fn knows(&self, key: &[u8]) -> bool {
        self.is_whole || self.records.has(key)
    }

    /// True if what was read still counts: it is recent, and of the same leader, as another one may have
    /// another log.
    fn goes_on_to(&self, end: &LogEnd) -> bool {
        self.complete_at.is_some_and(|complete_at| complete_at.elapsed() < KEPT_FOR)
            && self.leader_epoch == end.leader_epoch
            && self.reader.offset() <= end.offset
    }

    /// Forgets what was read, and goes to the last records.
    async fn begin_before(&mut self, end: LogEnd) -> Result<()> {
        let start = self.reader.offsets(PARTITION).await?.start;
        (self.records, self.complete_at) = (Records::default(), None);
        self.leader_epoch = end.leader_epoch;
        self.from = (end.offset - TAIL_RECORDS).max(start);
        self.is_whole = self.from == start;
        self.reader.seek(PARTITION, self.from);
        Ok(())
    }

    /// Reads on up to `end`; returns false if that is not possible yet.
    async fn read_until(&mut self, end: i64) -> Result<bool> {
        let mut was_answered = self.complete_at.is_some();
        while self.reader.offset() < end || !was_answered {
            let offset = self.reader.offset();
            let Some(stretch) = self.reader.next_stretch().await? else {
                self.complete_at = None;
                return Ok(false);
            };
            was_answered = true;
            self.records.add(stretch);
            if self.reader.offset() <= offset {
                break;
            }
        }
        Ok(self.reader.offset() >= end)
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use bytes::Bytes;
    use factlib_testing::fake_broker::{Api, FakeCluster};
    use futures_util::future::join_all;
    use slog::{Discard, o};

    use super::*;
    use crate::{
        config::Config,
        faults::Faults,
        kafka::{
            pipelined::{ClientThread, SingleTopic, TransactionalClient},
            unobserved,
        },
        record::Record,
    };

    const TOPIC: &str = "positions";

    fn log() -> Logger {
        Logger::root(Discard, o!())
    }

    async fn cluster() -> (FakeCluster, Arc<PositionReader>) {
        let cluster = FakeCluster::start().await.expect("a cluster");
        cluster.create_topic(TOPIC, 1).expect("a topic");
        let reader = PositionReaders::default().of(settings(&cluster.bootstrap(), None), TOPIC);
        (cluster, reader)
    }

    fn settings(brokers: &str, user: Option<&str>) -> KafkaSettings {
        let mut config = Config::default();
        config.kafka.brokers = brokers.split(',').map(str::to_owned).collect();
        config.kafka.username = user.map(str::to_owned);
        config.kafka.password = user.map(|_| "secret".to_owned().into());
        config.kafka.settings()
    }

    /// A slot's relay, whose first transaction is open.
    struct Writer {
        client: TransactionalClient,
        topic: SingleTopic,
        slot: &'static str,
    }

    impl Writer {
        async fn begin(cluster: &FakeCluster, slot: &'static str) -> Self {
            let client = TransactionalClient::start(
                &settings(&cluster.bootstrap(), None),
                (slot, Duration::from_secs(60)),
                &ClientThread::Own,
                unobserved(),
                Faults::default(),
                log(),
            );
            let client = client.expect("a client");
            client.begin().await.expect("it begins");
            let topic = client.open_single(&TOPIC.into()).await.expect("the topic");
            Writer { client, topic, slot }
        }

        async fn write(&self, value: impl Into<Bytes>) {
            let (key, value) = (self.slot.into(), Some(value.into()));
            let record = Record { key, value, partition: Some(PARTITION), ..Record::default() };
            let sent = self.topic.send(record, "a position".into()).expect("sent");
            sent.acknowledged().await.expect("acknowledged");
        }

        async fn commit(&self) {
            self.client.commit(self.client.seal()).await.expect("a commit");
        }

        async fn write_committed(&self, value: impl Into<Bytes>) {
            self.write(value).await;
            self.commit().await;
        }
    }

    async fn newest(reader: &PositionReader, slot: &str) -> Newest {
        reader.newest(slot.as_bytes(), &log()).await.expect("an answer")
    }

    fn is(value: &'static str) -> Newest {
        Newest::Is(Some(value.into()))
    }

    #[actix::test]
    async fn an_open_transaction_hides_nothing_but_its_own_slot() {
        let (cluster, reader) = cluster().await;
        let (a, b) = (Writer::begin(&cluster, "a").await, Writer::begin(&cluster, "b").await);
        b.write("b1").await;
        a.write_committed("a1").await;
        assert_eq!(newest(&reader, "a").await, is("a1"));
        assert_eq!(newest(&reader, "b").await, Newest::Undecided(OPEN));
        assert_eq!(newest(&reader, "c").await, Newest::Is(None));
        b.commit().await;
        a.write("a2").await;
        assert_eq!(newest(&reader, "b").await, is("b1"));
        // Its transaction is aborted by the next with its name.
        let a = Writer::begin(&cluster, "a").await;
        assert_eq!(newest(&reader, "a").await, is("a1"));
        a.write_committed("a3").await;
        assert_eq!(newest(&reader, "a").await, is("a3"));
    }

    #[actix::test]
    async fn what_is_long_before_the_end_is_found_too() {
        let (cluster, reader) = cluster().await;
        let old = Writer::begin(&cluster, "old").await;
        old.write_committed("o1").await;
        let busy = Writer::begin(&cluster, "busy").await;
        for number in 0..TAIL_RECORDS {
            busy.write(number.to_string()).await;
        }
        old.write("o2").await;
        assert_eq!(newest(&reader, "old").await, Newest::Undecided(OPEN));
        let _next = Writer::begin(&cluster, "old").await;
        assert_eq!(
            newest(&reader, "old").await,
            Newest::Undecided(OPEN),
            "busy is open, and before it"
        );
        busy.commit().await;
        assert_eq!(newest(&reader, "old").await, is("o1"));
        assert_eq!(newest(&reader, "nobody").await, Newest::Is(None));
    }

    #[actix::test]
    async fn a_topic_that_was_created_again_is_read_again() {
        let (cluster, reader) = cluster().await;
        let (a, b) = (Writer::begin(&cluster, "a").await, Writer::begin(&cluster, "b").await);
        for writer in [&a, &b] {
            writer.write_committed("old").await;
            assert_eq!(newest(&reader, writer.slot).await, is("old"));
        }
        cluster.delete_topic(TOPIC);
        assert_eq!(newest(&reader, "a").await, Newest::Undecided(UNKNOWN));
        cluster.create_topic(TOPIC, 1).expect("a topic");
        let a = Writer::begin(&cluster, "a").await;
        for _ in 0..9 {
            a.write("new").await;
        }
        a.commit().await;
        assert_eq!(newest(&reader, "a").await, is("new"));
        assert_eq!(newest(&reader, "b").await, Newest::Is(None));
    }

    #[actix::test]
    async fn a_new_leader_is_read_from_the_start() {
        let cluster = FakeCluster::builder().brokers(2).start().await.expect("a cluster");
        cluster.create_topic(TOPIC, 1).expect("a topic");
        let reader = PositionReaders::default().of(settings(&cluster.bootstrap(), None), TOPIC);
        let a = Writer::begin(&cluster, "a").await;
        for value in ["1", "2", "3"] {
            a.write_committed(value).await;
            let fetches = cluster.requests(Api::Fetch);
            assert_eq!(newest(&reader, "a").await, is(value));
            assert_eq!(cluster.requests(Api::Fetch) - fetches, 1);
            let offset = reader.known.lock().await.as_ref().expect("known").from;
            assert_eq!(offset, 0);
            let leader = cluster.leader(TOPIC, 0).expect("a leader");
            cluster.move_leader(TOPIC, 0, 3 - leader);
        }
    }

    #[actix::test]
    async fn many_that_ask_together_are_answered_together() {
        let (cluster, reader) = cluster().await;
        let a = Writer::begin(&cluster, "a").await;
        a.write_committed("a1").await;
        let before = cluster.requests(Api::ListOffsets);
        let answers = join_all((0..50).map(|_| newest(&reader, "a"))).await;
        assert!(answers.iter().all(|answer| *answer == is("a1")));
        let asked = cluster.requests(Api::ListOffsets) - before;
        assert_eq!(asked, 3 + 1, "by the first, and by one for all others");
    }

    #[test]
    fn pipelines_share_a_reader_where_brokers_and_login_agree() {
        let readers = PositionReaders::default();
        let one = readers.of(settings("one:9092", None), TOPIC);
        let same = |settings, topic| Arc::ptr_eq(&one, &readers.of(settings, topic));
        assert!(same(settings("one:9092", None), TOPIC));
        assert!(!same(settings("other:9092", None), TOPIC));
        assert!(!same(settings("one:9092", None), "elsewhere"));
        assert!(!same(settings("one:9092", Some("relay")), TOPIC));
        let _ = readers.of(settings("one:9092", None), TOPIC);
        assert_eq!(readers.0.lock().expect("no panic").len(), 1, "what nobody uses is forgotten");
    }
}
