//! Sends events that topics lack, as the relay would, many in flight.

use slog::Logger;

use crate::{
    Error, Event, Refusal, Result,
    config::Config,
    dead_letter,
    kafka::{
        resend::ResendClient,
        send_window::{SendWindow, memory},
    },
    record::Record,
    replay::RowRecords,
    routing::OutgoingEvent,
};

pub(super) struct Filler<'a> {
    rows: &'a RowRecords,
    client: ResendClient,
    window: SendWindow<Event>,
}

impl<'a> Filler<'a> {
    pub fn new(config: &Config, rows: &'a RowRecords, log: &Logger) -> Result<Self> {
        let mut client = ResendClient::new(&config.kafka.settings(), log)?;
        // A second run sends what was refused: nothing of its aggregate may be there before it.
        client.stop_at_refusals();
        Ok(Filler { rows, client, window: SendWindow::new(config.window_bytes() as usize) })
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
        while !self.window.has_room(&record) {
            self.settle().await?;
        }
        let bytes = memory(&record);
        let event = event.clone();
        let delivery = self.client.send(topic, vec![(record, format!("event {}", event.id()))]);
        self.window.push(event, bytes, delivery);
        Ok(())
    }

    /// Waits until all records are acknowledged.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn finish(&mut self) -> Result<()> {
        while self.settle().await? {}
        Ok(())
    }

    /// Waits for the oldest record in flight; returns false if there is none.
    async fn settle(&mut self) -> Result<bool> {
        match self.window.oldest().await {
            Some((event, answer)) => {
                answer.map_err(|error| left_out_remedy(&event, error))?;
                Ok(true)
            }
            None => Ok(false),
        }
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
