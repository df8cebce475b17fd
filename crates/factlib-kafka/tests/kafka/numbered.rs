//! Sends numbered records and checks what became of them: nothing lost, in order, nothing twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use factlib_kafka::{
    Code, Error, Observer, Producer, Receipt, Refusal, Settings, Topic, record_batch::Record,
};
use factlib_testing::{ConsumedRecord, read_topic};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// Longer than any wait that a test is about.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Collects what an observer is told.
#[derive(Default)]
pub struct Heard {
    trouble: Mutex<Vec<(Option<String>, Error)>>,
    other: Mutex<Vec<String>>,
}

impl Observer for Heard {
    fn trouble(&self, topic: Option<&str>, error: &Error) {
        let mut trouble = self.trouble.lock().expect("no panic");
        trouble.push((topic.map(str::to_owned), error.clone()));
    }

    fn recovered(&self, topic: &str) {
        self.note(format!("recovered {topic}"));
    }

    fn connected(&self, _: &str) {
        self.note("connected".into());
    }

    fn disconnected(&self, _: &str, _: Option<&Error>) {
        self.note("disconnected".into());
    }

    fn grown(&self, topic: &str, from: usize, to: usize) {
        self.note(format!("{topic} has {to} partitions and not {from}"));
    }
}

impl Heard {
    fn note(&self, what: String) {
        self.other.lock().expect("no panic").push(what);
    }

    /// How often that was said.
    pub fn count(&self, what: &str) -> usize {
        self.other.lock().expect("no panic").iter().filter(|said| *said == what).count()
    }

    /// The errors so far, as they are shown, with their topics.
    pub fn trouble(&self) -> Vec<String> {
        let trouble = self.trouble.lock().expect("no panic");
        trouble.iter().map(|(topic, error)| format!("{topic:?}: {error}")).collect()
    }

    /// Waits until something was said.
    pub async fn says(&self, what: &str) {
        eventually(what, || self.count(what) > 0).await;
    }

    /// Waits for an error with this text.
    pub async fn has_trouble(&self, text: &str) {
        eventually(text, || self.trouble().iter().any(|error| error.contains(text))).await;
    }
}

/// Waits until something holds, of which nobody tells.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, waiting).await.unwrap_or_else(|_| panic!("in time: {what}"));
}

/// The ends of records.
pub struct Ends {
    ended: watch::Sender<usize>,
    refused: Mutex<BTreeMap<u32, Refusal>>,
}

impl Default for Ends {
    fn default() -> Self {
        Ends { ended: watch::Sender::new(0), refused: Mutex::default() }
    }
}

impl Receipt for Ends {
    fn acknowledged(&self, indexes: &[u32]) {
        self.ended.send_modify(|ended| *ended += indexes.len());
    }

    fn refused(&self, index: u32, refusal: &Refusal) {
        let earlier = self.refused.lock().expect("no panic").insert(index, refusal.clone());
        assert!(earlier.is_none(), "record {index} was refused twice");
        self.ended.send_modify(|ended| *ended += 1);
    }
}

impl Ends {
    /// Waits until that many have ended.
    pub async fn reach(&self, records: usize) {
        let mut ended = self.ended.subscribe();
        let waiting = ended.wait_for(|ended| *ended >= records);
        let reached = timeout(LIMIT, waiting).await;
        reached.unwrap_or_else(|_| panic!("{} of {records} ended", self.count())).expect("ours");
        assert_eq!(self.count(), records, "more ended than were sent");
    }

    pub fn count(&self) -> usize {
        *self.ended.borrow()
    }

    pub fn refused(&self) -> BTreeMap<u32, Refusal> {
        self.refused.lock().expect("no panic").clone()
    }
}

/// A producer, and the numbers that it sent to one topic.
pub struct Numbers {
    pub producer: Producer,
    pub topic: Topic,
    pub ends: Arc<Ends>,
    pub heard: Arc<Heard>,
    pub sent: u32,
}

/// Settings with limits that a test can wait for.
pub fn settings(bootstrap: &str) -> Settings {
    let mut settings = Settings::new(bootstrap.split(',').map(str::to_owned).collect());
    settings.request_timeout = Duration::from_secs(5);
    settings.connect_timeout = Duration::from_secs(5);
    settings
}

impl Numbers {
    pub async fn to(bootstrap: &str, topic: &str) -> Self {
        Self::with(settings(bootstrap), topic).await
    }

    pub async fn with(settings: Settings, topic: &str) -> Self {
        let heard = Arc::new(Heard::default());
        let (producer, driver) = Producer::new(settings, Arc::clone(&heard) as _);
        tokio::spawn(driver);
        let opening = async {
            loop {
                match producer.topic(topic).await {
                    // Not every broker has heard of a new topic yet.
                    Err(error) if error.code() == Some(Code::UnknownTopicOrPartition) => {
                        sleep(Duration::from_millis(10)).await;
                    }
                    opened => return opened,
                }
            }
        };
        let opening = timeout(LIMIT, opening).await;
        let topic = opening.expect("in time").expect("a topic");
        Numbers { producer, topic, ends: Arc::default(), heard, sent: 0 }
    }

    /// Sends the next numbers together.
    pub fn send(&mut self, count: u32) {
        push(&self.topic.clone(), self.sent..self.sent + count, &self.ends);
        self.sent += count;
    }

    /// Sends numbers at some rate until `end` is over.
    pub async fn send_during<T>(&mut self, end: impl Future<Output = T>) -> T {
        let mut end = std::pin::pin!(end);
        loop {
            tokio::select! {
                biased;
                ended = &mut end => return ended,
                () = sleep(Duration::from_millis(2)) => self.send(20),
            }
        }
    }

    /// Waits until all that was sent has ended.
    pub async fn ended(&self) {
        self.ends.reach(self.sent as usize).await;
    }
}

pub fn push(topic: &Topic, numbers: std::ops::Range<u32>, ends: &Arc<Ends>) {
    let receipt = Arc::clone(ends) as Arc<dyn Receipt>;
    let mut sending = topic.begin();
    for number in numbers {
        let (key, value) = (format!("key-{}", number % 997), format!("{number:0100}"));
        let record = Record {
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[("number", Some(value.as_bytes()))],
            timestamp_ms: now_ms(),
        };
        sending.push(&record, None, &receipt, number).expect("a partition");
    }
}

pub fn now_ms() -> i64 {
    std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as i64
}

/// The numbers in a topic, by partition.
pub async fn numbers_in(bootstrap: &str, topic: &str) -> BTreeMap<i32, Vec<u32>> {
    let mut partitions = BTreeMap::<_, Vec<u32>>::new();
    for record in read_topic(bootstrap, topic).await.expect("records") {
        partitions.entry(record.partition).or_default().push(number(&record));
    }
    partitions
}

fn number(record: &ConsumedRecord) -> u32 {
    let value = record.value.as_deref().expect("a value");
    std::str::from_utf8(value).expect("text").parse().expect("a number")
}

/// Checks that exactly these numbers are in the topic, each once and in order.
pub async fn assert_exactly(bootstrap: &str, topic: &str, numbers: impl Iterator<Item = u32>) {
    let wanted: BTreeSet<u32> = numbers.collect();
    let began = Instant::now();
    loop {
        let partitions = numbers_in(bootstrap, topic).await;
        for (partition, numbers) in &partitions {
            let wrong = numbers.windows(2).find(|pair| pair[0] >= pair[1]);
            assert!(wrong.is_none(), "{wrong:?} in partition {partition}");
        }
        let found: BTreeSet<u32> = partitions.into_values().flatten().collect();
        let more = found.difference(&wanted).count();
        let lost: Vec<u32> = wanted.difference(&found).copied().collect();
        assert_eq!(more, 0, "records that were not sent, or were undone");
        // A commit is answered before its end is written into each partition.
        if lost.is_empty() {
            return;
        }
        assert!(began.elapsed() < MARKER_LIMIT, "lost: {lost:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Time in which the end of a transaction reaches its partitions.
const MARKER_LIMIT: Duration = Duration::from_secs(5);
