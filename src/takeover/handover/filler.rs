//! Sends events that topics lack, as the relay would, many in flight.

use std::collections::VecDeque;

use bytes::Bytes;
use slog::Logger;

use crate::{
    Error, Event, Refusal, Result,
    config::Config,
    dead_letter,
    kafka::resend::{InFlightRecords, RECORD_OVERHEAD, ResendClient},
    record::Record,
    replay::RowRecords,
    routing::OutgoingEvent,
};

pub(super) struct Filler<'a> {
    rows: &'a RowRecords,
    client: ResendClient,
    /// In the order of sending.
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    window: usize,
}

struct InFlight {
    event: Event,
    bytes: usize,
    delivery: InFlightRecords,
}

impl<'a> Filler<'a> {
    pub fn new(config: &Config, rows: &'a RowRecords, log: &Logger) -> Result<Self> {
        let mut client = ResendClient::new(&config.kafka.settings(), log)?;
        // A second run sends what was refused: nothing of its aggregate may be there before it.
        client.stop_at_refusals();
        Ok(Filler {
            rows,
            client,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            window: config.window_bytes() as usize,
        })
    }

    /// Sends a record; returns when there is room for the next.
    ///
    /// # Errors
    /// This or an earlier record is refused, or its topic can't be sent to.
    pub async fn send(&mut self, topic: &str, outgoing: &OutgoingEvent) -> Result<()> {
        let record = self.rows.record(topic, outgoing).await;
        let record = record.map_err(|error| left_out_remedy(outgoing.event(), error))?;
        self.push(topic, outgoing.event(), record).await
    }

    /// Parks an event that was refused, as [`send`](Self::send).
    pub async fn park(&mut self, topic: &str, event: &Event, refusal: &Refusal) -> Result<()> {
        self.push(topic, event, dead_letter::record(event, refusal)).await
    }

    async fn push(&mut self, topic: &str, event: &Event, record: Record) -> Result<()> {
        self.client.open(topic).await?;
        let value = record.value.as_ref().map_or(0, Bytes::len);
        let bytes = value + record.key.len() + RECORD_OVERHEAD;
        while !self.in_flight.is_empty() && self.in_flight_bytes + bytes > self.window {
            self.settle().await?;
        }
        let event = event.clone();
        let delivery = self.client.send(topic, vec![(record, format!("event {}", event.id()))]);
        self.in_flight_bytes += bytes;
        self.in_flight.push_back(InFlight { event, bytes, delivery });
        Ok(())
    }

    /// Waits until all records are acknowledged.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn finish(&mut self) -> Result<()> {
        while !self.in_flight.is_empty() {
            self.settle().await?;
        }
        Ok(())
    }

    /// Waits for the oldest record in flight.
    async fn settle(&mut self) -> Result<()> {
        let Some(InFlight { event, bytes, mut delivery }) = self.in_flight.pop_front() else {
            return Ok(());
        };
        self.in_flight_bytes -= bytes;
        delivery.acknowledged().await.map_err(|error| left_out_remedy(&event, error))
    }
}

/// Says how to go on without an event that can't be sent.
pub(super) fn left_out_remedy(event: &Event, error: Error) -> Error {
    if error.is_transient() {
        return error;
    }
    let lsn = event.lsn().to_string();
    let id = if event.id().is_empty() { &lsn } else { event.id() };
    error.remedy(format!(
        "it lies before events that the topics have; --leave-out {id} takes over without it"
    ))
}
