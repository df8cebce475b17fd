//! How long a fact takes when nothing is behind, and what the relay costs when idle.

use std::time::{Duration, Instant};

use factlib::proto::OutboxEvent;
use futures_util::future::try_join_all;
use prost::Message as _;
use rdkafka::{Message as _, Offset, TopicPartitionList, consumer::Consumer};
use serde::Serialize;
use tokio::{task::spawn_blocking, time::sleep};

use crate::{
    Result,
    backlog::{Source, fact},
    bed::distance,
    process::cpu_s,
    quantiles::{Quantiles, now_ns},
    relay::{Mode, Relay},
    servers::{NAME, Servers},
    topics::{Layout, Topics},
};

const PAYLOAD_BYTES: usize = 300;
/// So many that each partition has some.
const AGGREGATES: usize = 240;
/// Sessions that emit, each one fact and one transaction at a time.
const EMITTERS: u64 = 8;
/// Not counted: connections, caches and the JVM's compiler warm up.
const WARM_UP: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(20);
/// Nothing more may come for so long before the count is given up.
const SILENCE: Duration = Duration::from_secs(20);

#[derive(Serialize)]
pub struct Latency {
    pub mode: Mode,
    pub layout: Layout,
    pub wanted_per_s: u64,
    /// To the broker, beside what this machine takes.
    pub round_trip_ms: u64,
    pub emitted_per_s: f64,
    /// The broker's time stamp is cut to milliseconds: the middle of that millisecond is meant.
    pub to_append: Quantiles,
    pub to_receipt: Quantiles,
    pub cpu_s_per_million: f64,
}

impl Latency {
    pub fn print(&self) {
        let show = |q: Quantiles| {
            format!("p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms", q.p50_ms, q.p99_ms, q.max_ms)
        };
        println!(
            "\nlatency, {:?}, {} topics of {} partitions, {} ms to the broker, at {}/s wanted, {:.0}/s emitted:\n  emit to the broker's append: {}\n  emit to a consumer's receipt: {}\n  relay's CPU: {:.1} s per million",
            self.mode,
            self.layout.topics,
            self.layout.partitions,
            self.round_trip_ms,
            self.wanted_per_s,
            self.emitted_per_s,
            show(self.to_append),
            show(self.to_receipt),
            self.cpu_s_per_million,
        );
    }
}

/// A record as the consumer got it, in Unix nanoseconds.
struct Received {
    emitted: i64,
    appended: i64,
    received: i64,
}

/// Emits at a steady rate and follows each fact to the broker and to a consumer.
///
/// With a round trip of more than zero, the broker has to be a distant one.
pub async fn measure(
    servers: &Servers,
    per_s: u64,
    mode: Mode,
    layout: Layout,
    round_trip_ms: u64,
) -> Result<Latency> {
    let slot = match mode {
        Mode::AtLeastOnce | Mode::WithReceipts => {
            format!("latency_{per_s}_{round_trip_ms}_{}", layout.topics)
        }
        Mode::ExactlyOnce { interval_ms } => {
            format!("latency_{per_s}_{round_trip_ms}_exactly_{interval_ms}")
        }
    };
    if round_trip_ms > 0 {
        distance(servers, Duration::from_millis(round_trip_ms))?;
    }
    servers.create_slot(&slot).await?;
    let stamped = [("message.timestamp.type", "LogAppendTime")];
    let topics = Topics::create(servers, &slot, layout, &stamped).await?;
    let relay = running(servers, &slot, &topics, mode).await?;

    let facts = per_s * (WARM_UP + MEASURED).as_secs() / EMITTERS;
    let consumer = consume(&topics, facts * EMITTERS)?;
    let (begin, cpu_before) = (Instant::now(), cpu_s(relay.pid).unwrap_or_default());
    let counted_from = now_ns() + i64::try_from(WARM_UP.as_nanos())?;
    let period = Duration::from_secs(1).mul_f64(EMITTERS as f64 / per_s as f64);
    try_join_all((0..EMITTERS).map(|n| {
        emit(servers, layout, begin + period.mul_f64(n as f64 / EMITTERS as f64), facts, period)
    }))
    .await?;
    let emitted_per_s = (facts * EMITTERS) as f64 / begin.elapsed().as_secs_f64();
    let records = consumer.await??;
    let cpu = cpu_s(relay.pid).unwrap_or_default() - cpu_before;

    relay.stop().await?;
    topics.delete().await?;
    servers.drop_slot(&slot).await?;
    let counted = || records.iter().filter(|record| record.emitted >= counted_from);
    Ok(Latency {
        mode,
        layout,
        wanted_per_s: per_s,
        round_trip_ms,
        emitted_per_s,
        to_append: Quantiles::of(counted().map(|r| r.appended - r.emitted).collect()),
        to_receipt: Quantiles::of(counted().map(|r| r.received - r.emitted).collect()),
        cpu_s_per_million: cpu * 1e6 / records.len() as f64,
    })
}

/// What the relay uses while nothing happens.
pub async fn idle_cpu_percent(servers: &Servers) -> Result<f64> {
    servers.create_slot("idle").await?;
    let topics = Topics::create(servers, "idle", Layout::USUAL, &[]).await?;
    let relay = running(servers, "idle", &topics, Mode::AtLeastOnce).await?;
    sleep(WARM_UP).await;
    let (begin, before) = (Instant::now(), cpu_s(relay.pid).unwrap_or_default());
    sleep(IDLE).await;
    let used = cpu_s(relay.pid).ok_or("the relay ended")? - before;
    let percent = 100.0 * used / begin.elapsed().as_secs_f64();
    relay.stop().await?;
    topics.delete().await?;
    servers.drop_slot("idle").await?;
    Ok(percent)
}

async fn running(servers: &Servers, slot: &str, topics: &Topics, mode: Mode) -> Result<Relay> {
    let mut relay = Relay::start(servers, slot, topics, mode, Source::Messages)?;
    while servers.active_pid(slot).await?.is_none() {
        if let Some(status) = relay.child.try_wait()? {
            return Err(format!("the relay ended by itself: {status}").into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(relay)
}

/// Emits a fact each period, and stamps it just before: its commit is part of the way.
async fn emit(
    servers: &Servers,
    layout: Layout,
    begin: Instant,
    facts: u64,
    period: Duration,
) -> Result<()> {
    let client = servers.postgres.connect(NAME).await?;
    let statement = client.prepare("SELECT pg_logical_emit_message(true, $1, $2::bytea)").await?;
    let types = layout.aggregate_types;
    let mut templates: Vec<OutboxEvent> =
        (0..AGGREGATES).map(|n| fact(types[n % types.len()], n, PAYLOAD_BYTES)).collect();
    let mut due = begin;
    for n in 0..facts {
        tokio::time::sleep_until(due.into()).await;
        due += period;
        let at = n as usize % templates.len();
        let Some(event) = templates.get_mut(at) else { continue };
        event.created_at = now_ns();
        client.query(&statement, &[&NAME, &event.encode_to_vec()]).await?;
    }
    Ok(())
}

/// Reads as many records, on a thread of its own.
fn consume(topics: &Topics, count: u64) -> Result<tokio::task::JoinHandle<Result<Vec<Received>>>> {
    let consumer = topics.consumer()?;
    let mut list = TopicPartitionList::new();
    for (topic, partition) in topics.partitions() {
        list.add_partition_offset(&topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    Ok(spawn_blocking(move || {
        let mut records = Vec::with_capacity(count as usize);
        while (records.len() as u64) < count {
            let Some(message) = consumer.poll(SILENCE) else {
                return Err(format!("{} of {count} records were received", records.len()).into());
            };
            let (received, message) = (now_ns(), message?);
            let event = OutboxEvent::decode(message.payload().unwrap_or_default())?;
            let appended_ms = message.timestamp().to_millis().ok_or("a record without a time")?;
            let appended = appended_ms * 1_000_000 + 500_000;
            records.push(Received { emitted: event.created_at, appended, received });
        }
        Ok(records)
    }))
}
