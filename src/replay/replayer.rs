//! Sends rows again: many records in flight, confirmed in the order of rows.

use bytes::Bytes;
use slog::Logger;

use super::{archive::ArchivedRow, row_records::RowRecords};
use crate::{
    Error, ErrorKind, Event, Result,
    config::Config,
    kafka::{
        resend::ResendClient,
        send_window::{SendWindow, memory},
    },
    record::{Headers, Record},
    routing::{Decision, OutgoingEvent},
};

/// Header that marks a replayed record with its run, see [`Replayer::run`].
pub const REPLAY_HEADER: &str = "factlib_replay";

/// Sends rows as the records that the relay makes of them.
pub struct Replayer {
    run: String,
    rows: RowRecords,
    to_topic: Option<String>,
    client: ResendClient,
    window: SendWindow<SentRow>,
    replayed: u64,
    confirmed: Option<String>,
}

/// The row of a record in flight.
struct SentRow {
    id: String,
    /// True for the last record of the row.
    is_last: bool,
}

impl Replayer {
    /// Creates a replayer for this configuration's Kafka. All records go to `to_topic` if one is given.
    /// `run` marks the records.
    ///
    /// # Errors
    /// The client does not take the settings, or a route is invalid.
    pub fn new(
        config: &Config,
        run: impl Into<String>,
        to_topic: Option<String>,
        log: &Logger,
    ) -> Result<Self> {
        Ok(Replayer {
            run: run.into(),
            rows: RowRecords::new(config)?,
            to_topic,
            client: ResendClient::new(&config.kafka.settings(), log)?,
            window: SendWindow::new(config.window_bytes() as usize),
            replayed: 0,
            confirmed: None,
        })
    }

    /// Mark of the records.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Number of records that Kafka acknowledged.
    pub fn replayed(&self) -> u64 {
        self.replayed
    }

    /// Id of the last row such that it and all rows before it are acknowledged.
    pub fn confirmed(&self) -> Option<&str> {
        self.confirmed.as_deref()
    }

    /// Routes an event, with the topic of each record; gives nothing where a route drops it.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`] for an event that has no topic.
    pub fn records(&self, event: &Event) -> Result<Vec<(String, OutgoingEvent)>> {
        let decision = self.rows.decide(event);
        Ok(match (&self.to_topic, decision) {
            (None, Decision::Records(records)) => records,
            (None, Decision::Refused(error) | Decision::Stop(error)) => return Err(error),
            (_, Decision::Filtered) => Vec::new(),
            (Some(to), Decision::Records(records)) => {
                records.into_iter().take(1).map(|(_, outgoing)| (to.clone(), outgoing)).collect()
            }
            (Some(to), _) => vec![(to.clone(), OutgoingEvent::with_default_record(event.clone()))],
        })
    }

    /// Sends a row's [`records`](Self::records); returns when there is room for the next.
    /// Dropping the future loses no record's answer.
    ///
    /// # Errors
    /// The end of the replay: an earlier record that Kafka refused, a topic that can't be sent to.
    pub async fn send(
        &mut self,
        row: &ArchivedRow,
        records: &[(String, OutgoingEvent)],
    ) -> Result<()> {
        for (n, (topic, outgoing)) in records.iter().enumerate() {
            self.send_one(row, outgoing, topic, n + 1 == records.len()).await?;
        }
        Ok(())
    }

    async fn send_one(
        &mut self,
        row: &ArchivedRow,
        outgoing: &OutgoingEvent,
        topic: &str,
        is_last: bool,
    ) -> Result<()> {
        self.client.open(topic).await?;
        let record = self.rows.record(topic, outgoing).await?;
        while !self.window.has_room(&record) {
            self.settle().await?;
        }
        let bytes = memory(&record);
        let record = Record {
            headers: self.headers(outgoing, record.headers),
            // Another topic has other partitions.
            partition: record.partition.filter(|_| self.to_topic.is_none()),
            ..record
        };
        let delivery = self.client.send(topic, vec![(record, format!("row {}", row.id))]);
        self.window.push(SentRow { id: row.id.clone(), is_last }, bytes, delivery);
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
        let Some((SentRow { id, is_last }, answer)) = self.window.oldest().await else {
            return Ok(false);
        };
        answer.map_err(|error| with_remedy(&id, error))?;
        self.replayed += 1;
        if is_last {
            self.confirmed = Some(id);
        }
        Ok(true)
    }

    /// Headers as the relay makes them, plus the mark. `LSN` is removed, because a row does not know
    /// its position in the WAL.
    fn headers(&self, outgoing: &OutgoingEvent, mut headers: Headers) -> Headers {
        let row = outgoing.event.row();
        // A bare payload has no such header, but the table's own may have this name.
        let has_lsn = outgoing.plan.is_some() || !row.is_some_and(|row| row.payload_is_value);
        if has_lsn && let Some(lsn) = headers.iter().position(|(name, _)| name == "LSN") {
            headers.remove(lsn);
        }
        let run = Bytes::copy_from_slice(self.run.as_bytes());
        headers.push((REPLAY_HEADER.into(), Some(run)));
        headers
    }
}

/// Adds how to go on behind a row that Kafka refuses.
fn with_remedy(id: &str, error: Error) -> Error {
    match error.kind() {
        ErrorKind::RecordRefused | ErrorKind::RecordTooLarge => {
            error.remedy(format!("--after {id} continues after it"))
        }
        _ => error,
    }
}
