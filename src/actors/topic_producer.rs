//! TopicProducer: the records of one topic into Kafka.
//!
//! # Life
//! Made by [`KafkaLanes`] at the topic's first event and after each failure,
//! once all that its predecessor sent has ended.
//!
//! # Backpressure
//! librdkafka's queue is larger than the byte window, so it is full only when a
//! configuration makes it smaller; the actor then waits and tries again.
//!
//! # Failure
//! A record that ends badly fails its part, and the part's token the lane.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix::{Actor, AsyncContext, Context, Handler, Recipient};
use async_trait::async_trait;
use slog::info;

use super::lane::{LaneContext, Lanes};
use crate::{
    Event, Result,
    config::KafkaConfig,
    faults::{FaultSite, Faults},
    kafka::{
        admin,
        producer::{InFlight, KafkaProducer, Part},
    },
    messages::{ExitGuard, TopicBatch},
};

/// How long to wait for room in librdkafka's queue: about a batch's time there.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

/// Opens lanes to Kafka: the default.
pub(crate) struct KafkaLanes {
    config: KafkaConfig,
    producer: Mutex<KafkaProducer>,
    faults: Faults,
}

impl KafkaLanes {
    pub fn new(config: KafkaConfig, producer: KafkaProducer, faults: Faults) -> Self {
        KafkaLanes { config, producer: Mutex::new(producer), faults }
    }

    /// The client, or a new one where librdkafka has given it up.
    fn producer(&self) -> Result<KafkaProducer> {
        let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(renewed) = producer.renewed()? {
            *producer = renewed;
        }
        Ok(producer.clone())
    }
}

#[async_trait]
impl Lanes for KafkaLanes {
    async fn open(&self, lane: LaneContext) -> Result<Recipient<TopicBatch>> {
        let producer = self.producer()?;
        let in_flight = producer.in_flight(&lane.topic);
        in_flight.ended().await;
        if self.config.topics.create
            && admin::ensure_topic(&self.config, &producer, &lane.topic).await?
        {
            info!(lane.log, "topic created"; "topic" => %lane.topic);
        }
        let producer = TopicProducer {
            producer,
            in_flight,
            queue: VecDeque::new(),
            faults: self.faults.clone(),
            _exit: lane.exit,
        };
        Ok(producer.start().recipient())
    }

    async fn check(&self, timeout: Duration) -> Result<()> {
        admin::check(&self.producer()?, timeout).await
    }
}

/// One topic's way into Kafka.
struct TopicProducer {
    producer: KafkaProducer,
    in_flight: InFlight,
    /// What waits for room in librdkafka's queue.
    queue: VecDeque<Sending>,
    faults: Faults,
    _exit: ExitGuard,
}

struct Sending {
    topic: Arc<str>,
    events: Arc<Vec<Event>>,
    part: Arc<Part>,
    sent: usize,
}

impl Actor for TopicProducer {
    type Context = Context<Self>;
}

impl Handler<TopicBatch> for TopicProducer {
    type Result = ();

    fn handle(&mut self, batch: TopicBatch, ctx: &mut Self::Context) {
        self.faults.reach(FaultSite::TopicProducer);
        let TopicBatch { topic, events, ack } = batch;
        let (in_flight, faults) = (self.in_flight.clone(), self.faults.clone());
        let part = Part::new(Arc::clone(&topic), events.len(), ack, in_flight, faults);
        self.queue.push_back(Sending { topic, events, part, sent: 0 });
        if self.queue.len() == 1 {
            self.send(ctx);
        }
    }
}

impl TopicProducer {
    /// Sends from the front of the queue while librdkafka takes records.
    fn send(&mut self, ctx: &mut Context<Self>) {
        while let Some(Sending { topic, events, part, sent }) = self.queue.front_mut() {
            for event in events.iter().skip(*sent) {
                if !self.producer.send(topic, event, part) {
                    ctx.run_later(QUEUE_FULL_PAUSE, |this, ctx| this.send(ctx));
                    return;
                }
                *sent += 1;
            }
            self.queue.pop_front();
        }
    }
}
