//! Produces records at a rate and says how long each took to be acknowledged:
//! `rate ADDRESS TOPIC RECORDS RATE` (0: as fast as it goes). A topic that is missing is made, of 24
//! partitions.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use factlib_kafka::{
    Client, Code, Error, Observer, Producer, Receipt, Refusal, Settings, client::NewTopic,
    record_batch::Record,
};

struct Loud;

impl Observer for Loud {
    fn trouble(&self, topic: Option<&str>, error: &Error) {
        eprintln!("{topic:?}: {error}");
    }
}

/// Records that were sent at one moment.
struct Born {
    at: Instant,
    left: Arc<AtomicUsize>,
    took: Arc<Mutex<Vec<u32>>>,
}

impl Receipt for Born {
    fn acknowledged(&self, indexes: &[u32]) {
        let micros = self.at.elapsed().as_micros() as u32;
        self.took.lock().expect("no panic").extend(indexes.iter().map(|_| micros));
        self.left.fetch_sub(indexes.len(), Ordering::AcqRel);
    }

    fn refused(&self, _: u32, refusal: &Refusal) {
        eprintln!("refused: {refusal}");
        self.left.fetch_sub(1, Ordering::AcqRel);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let words: Vec<String> = std::env::args().collect();
    let number = |n: usize| words[n].parse::<usize>().expect("a number");
    let (records, rate) = (number(3), number(4));
    let settings = Settings::new(vec![words[1].clone()]);
    let new = NewTopic { name: words[2].clone(), partitions: Some(24), ..NewTopic::default() };
    let made = Client::new(settings.clone()).create_topic(&new, false).await;
    if let Err(error) = made
        && error.code() != Some(Code::TopicAlreadyExists)
    {
        return Err(error);
    }
    let (producer, driver) = Producer::new(settings, Arc::new(Loud));
    let driver = tokio::spawn(driver);
    let topic = producer.topic(words[2].as_str()).await?;
    let (left, took) = (Arc::new(AtomicUsize::new(records)), Arc::default());
    let value: Vec<u8> = (0..388).map(|i| b'a' + ((i * 7 + i / 13) % 26) as u8).collect();
    let (begin, mut sent) = (Instant::now(), 0);
    while sent < records {
        let due = match rate {
            0 => sent + 500,
            rate => (begin.elapsed().as_secs_f64() * rate as f64) as usize,
        };
        let at = Instant::now();
        let born = Born { at, left: Arc::clone(&left), took: Arc::clone(&took) };
        let receipt: Arc<dyn Receipt> = Arc::new(born);
        let mut sending = topic.begin();
        while sent < due.min(records) {
            let key = format!("agg-{}", sent % 1000);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
            let id = format!("01a20d6f-7f41-7100-929c-{sent:012}");
            let record = Record {
                key: Some(key.as_bytes()),
                value: Some(&value),
                headers: &[("event_id", Some(id.as_bytes())), ("LSN", Some(b"0/11C3E160"))],
                timestamp_ms: now.as_millis() as i64,
            };
            sending.push(&record, None, &receipt, sent as u32).expect("a partition");
            sent += 1;
        }
        drop(sending);
        match rate {
            0 => {
                while left.load(Ordering::Acquire) + sent > records + 100_000 {
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
                tokio::task::yield_now().await;
            }
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    while left.load(Ordering::Acquire) > 0 {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let mut took = took.lock().expect("no panic").clone();
    took.sort_unstable();
    let at = |share: f64| f64::from(took[(took.len() as f64 * share) as usize]) / 1000.0;
    println!(
        "{records} records, {:.0}/s, acknowledged after p50 {:.1} p99 {:.1} max {:.1} ms",
        records as f64 / seconds,
        at(0.5),
        at(0.99),
        at(0.9999)
    );
    drop((topic, producer));
    driver.await.expect("the driver ends");
    Ok(())
}
