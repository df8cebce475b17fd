//! Follows `kafka.on_partitions_added`: partitions that a topic gets move aggregates to other
//! partitions.
//!
//! # While the relay runs
//! With `drain`, the client ends what is in flight to the topic, or its transaction, and holds back
//! what follows. [`PartitionWatch`] then asks for the *seam*, the next offset of each former
//! partition, logs and saves it, and lets the client go on. With `stop`, the client keeps to the
//! former partitions, and the topic's next batch stops the relay.
//!
//! # Across a restart
//! The number of partitions is saved when a topic is opened, and read at the start. If it has grown at
//! the next opening, nothing is in flight, so the seam is at the end of the former partitions.
//!
//! # Failure
//! A table that can't be read or written costs the memory across a restart, and a seam that can't be
//! read is logged as unknown: neither holds up events.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factlib_kafka::DrainHold;
use slog::{Logger, debug, warn};
use tokio::time::{Instant, sleep};

use crate::{
    Error, ErrorKind, Result,
    checkpoint::TopicPartitions,
    config::{Config, PartitionsAdded},
    kafka::{KafkaObserver, KafkaSettings, KafkaStatus, admin::TopicAdmin},
    status::Status,
};

/// Limit for reading the offsets at a seam, while the topic waits, and the pause between attempts.
const SEAM_LIMIT: Duration = Duration::from_secs(10);
const SEAM_PAUSE: Duration = Duration::from_millis(200);

/// Watches the numbers of partitions of a pipeline's topics, and observes its Kafka clients.
#[derive(Clone)]
pub(crate) struct PartitionWatch(Arc<Watch>);

struct Watch {
    policy: PartitionsAdded,
    /// The order of dead letters means nothing, so their topic stops nothing.
    dead_letter_topic: String,
    kafka: KafkaSettings,
    /// None without a memory across restarts.
    table: Option<TopicPartitions>,
    /// Numbers that records were mapped to in this process.
    used: Mutex<HashMap<Arc<str>, usize>>,
    /// True once the log says that the table can't be used.
    is_forgetful: AtomicBool,
    status: Arc<Status>,
    log: Logger,
}

impl PartitionWatch {
    pub fn new(
        config: &Config,
        table: Option<TopicPartitions>,
        status: Arc<Status>,
        log: Logger,
    ) -> Self {
        PartitionWatch(Arc::new(Watch {
            policy: config.kafka.on_partitions_added,
            dead_letter_topic: config.dead_letter_topic(),
            kafka: config.kafka.settings(),
            table,
            used: Mutex::default(),
            is_forgetful: AtomicBool::new(false),
            status,
            log,
        }))
    }

    /// Reads the saved numbers; call it when nobody else sends for the slot, before any topic is opened.
    pub async fn read(&self) {
        let Some(table) = &self.0.table else { return };
        match table.load().await {
            // Another relay may have used more since this one last did.
            Ok(saved) => {
                let saved = saved.into_iter().map(|(topic, count)| (topic.into(), count));
                self.0.used().extend(saved);
            }
            Err(error) => self.0.warn_forgetful(&error),
        }
    }

    /// Returns the number of partitions that records of the topic were last mapped to, if known.
    pub fn last_used(&self, topic: &str) -> Option<usize> {
        self.0.used().get(topic).copied()
    }

    /// Notes that a topic was opened with this number of partitions, when nothing is in flight to
    /// it.
    ///
    /// # Errors
    /// The topic got partitions since it was last used, and that stops the relay.
    pub async fn opened(&self, topic: &str, last: Option<usize>, count: usize) -> Result<()> {
        match last {
            Some(last) if last == count => {
                self.0.used().insert(topic.into(), count);
                return Ok(());
            }
            Some(last) if last < count => {
                if let Some(error) = self.0.refusal(topic, last, count) {
                    return Err(error);
                }
                if self.0.policy != PartitionsAdded::Warn {
                    self.0.log_seam(topic, last, count).await;
                }
            }
            _ => {}
        }
        self.0.save(topic, count).await;
        Ok(())
    }
}

impl Watch {
    fn used(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        // Nothing panics while it is held.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the error with which added partitions stop the relay, if they do.
    fn refusal(&self, topic: &str, before: usize, now: usize) -> Option<Error> {
        let stops = self.policy == PartitionsAdded::Stop && *topic != *self.dead_letter_topic;
        stops.then(|| {
            let what = format!(
                "topic {topic} has {now} partitions and had {before}, so most aggregates would move \
                 to another partition"
            );
            Error::new(ErrorKind::KafkaRefused, what).remedy(
                "let the consumers read on to the end of the topic, and restart once with \
                 kafka.on_partitions_added = \"drain\"",
            )
        })
    }

    /// Logs the next offset of each former partition; nothing may be in flight to the topic.
    async fn log_seam(&self, topic: &str, before: usize, now: usize) {
        let remedy = "to have each aggregate in order, read the former partitions up to these offsets \
                      before anything behind them";
        match self.seam(topic, before).await {
            Ok(seam) => {
                let offsets = seam.iter().enumerate().map(|(at, offset)| format!("{at}:{offset}"));
                let offsets = offsets.collect::<Vec<_>>().join(" ");
                warn!(self.log, "added partitions are used from here on"; "topic" => topic,
                    "before" => before, "now" => now, "seam" => offsets, "remedy" => remedy);
                self.status.partition_seam(topic, Some(seam));
            }
            Err(error) => {
                warn!(self.log, "added partitions are used from here on"; "topic" => topic,
                    "before" => before, "now" => now, "seam" => "unknown", "error" => %error);
                self.status.partition_seam(topic, None);
            }
        }
    }

    async fn seam(&self, topic: &str, partitions: usize) -> Result<Vec<i64>> {
        // A client of its own: its connections belong to the thread that asks.
        let admin = TopicAdmin::new(&self.kafka)?;
        let began = Instant::now();
        loop {
            match admin.end_offsets(topic, partitions).await {
                Err(_) if began.elapsed() < SEAM_LIMIT => sleep(SEAM_PAUSE).await,
                offsets => return offsets,
            }
        }
    }

    async fn save(&self, topic: &str, count: usize) {
        self.used().insert(topic.into(), count);
        if let Some(table) = &self.table
            && let Err(error) = table.save(topic, count).await
        {
            self.warn_forgetful(&error);
        }
    }

    fn warn_forgetful(&self, error: &Error) {
        if self.is_forgetful.swap(true, Ordering::Relaxed) {
            debug!(self.log, "the numbers of the topics' partitions are not remembered";
                "error" => %error);
            return;
        }
        warn!(self.log, "the numbers of the topics' partitions are not remembered: if some are added \
            while the relay does not run, it will not notice"; "error" => %error);
    }
}

impl KafkaObserver for PartitionWatch {
    fn kafka_trouble(&self, error: String) -> bool {
        self.0.status.kafka_trouble(error)
    }

    fn kafka_client(&self, name: String, status: KafkaStatus) {
        self.0.status.kafka_client(name, status);
    }

    fn kafka_client_ended(&self, name: &str) {
        self.0.status.kafka_client_ended(name);
    }

    fn partitions_grew(&self, topic: &str, from: usize, to: usize, log: &Logger) -> Option<Error> {
        self.0.status.partitions_grew(topic, to, log);
        self.0.refusal(topic, from, to)
    }

    fn partitions_drained(&self, topic: &str, from: usize, to: usize, hold: DrainHold) {
        let (watch, topic) = (Arc::clone(&self.0), topic.to_owned());
        // On the client's runtime: if it ends, the topic is opened again, which finds the same.
        tokio::spawn(async move {
            watch.log_seam(&topic, from, to).await;
            // Saved before any record is mapped to the added partitions.
            watch.save(&topic, to).await;
            drop(hold);
        });
    }

    fn transaction_committed(&self, took: Duration) {
        self.0.status.transaction_committed(took);
    }
}
