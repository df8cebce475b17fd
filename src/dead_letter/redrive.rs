//! Sends dead letters again: with the original bytes, key and headers, or routed and formatted again.
//!
//! Each letter is acknowledged and recorded before the next, so that letters of one aggregate keep
//! their order and a crash repeats at most one. Held events of a line are sent together, and nothing
//! behind a refused one.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use slog::Logger;
use tokio::time::timeout;

use super::{
    event::{event, event_of_row},
    header,
    held::{HELD_TABLE, HeldLines},
    ledger::Ledger,
    letter::{Letter, LetterPosition},
};
use crate::{
    Error, ErrorKind, Event, Result,
    config::{Config, OutboxTable},
    format,
    kafka::resend::ResendClient,
    record::{Answer, Headers, Record},
    routing::{Decision, OutgoingEvent, Routes},
    schema_registry::Registry,
};

/// Header with the letter's position in the dead-letter topic: `topic/partition:offset`.
const REDRIVEN_FROM: &str = "redriven_from";

/// Time that a record may wait for unavailable brokers. It need not wait for ever, because the order
/// of records does not depend on it.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// The record that a letter becomes.
#[derive(Clone)]
#[non_exhaustive]
pub struct Resent {
    /// Topic.
    pub topic: String,
    /// Key: the aggregate id.
    pub key: Option<Bytes>,
    /// The event's bytes, or the value that its route's format makes of them.
    pub value: Option<Bytes>,
    partition: Option<i32>,
    timestamp_ms: Option<i64>,
    headers: Headers,
}

/// Settings of a [`Redriver`].
pub struct RedriverBuilder {
    config: Config,
    to_topic: Option<String>,
    log: Logger,
}

/// Sends letters again.
pub struct Redriver {
    to_topic: Option<String>,
    routes: Arc<Routes>,
    /// Tables by which parked rows are read again.
    tables: Vec<OutboxTable>,
    registry: Registry,
    dead_letter_topic: String,
    client: ResendClient,
}

impl RedriverBuilder {
    /// Sends all letters to this topic instead of each one's own.
    pub fn to_topic(mut self, topic: Option<String>) -> Self {
        self.to_topic = topic;
        self
    }

    /// Builds the redriver, which connects in the background.
    ///
    /// # Errors
    /// The client does not take the settings.
    pub fn build(self) -> Result<Redriver> {
        let RedriverBuilder { config, to_topic, log } = self;
        let routes = Routes::new(&config).map_err(|mistake| mistake.error(None))?;
        Ok(Redriver {
            client: ResendClient::new(&config.kafka.settings(), &log)?,
            registry: Registry::new(&config)?,
            dead_letter_topic: config.dead_letter_topic(),
            tables: config.outbox_tables(),
            to_topic,
            routes: Arc::new(routes),
        })
    }
}

impl Redriver {
    /// Starts building a redriver for this configuration.
    pub fn builder(config: &Config, log: &Logger) -> RedriverBuilder {
        RedriverBuilder { config: config.clone(), to_topic: None, log: log.clone() }
    }

    /// Makes the records of a letter: one, or for an event that had no route one for each topic to
    /// which the routes send it now.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a letter of a handler, or whose topic no route names any
    /// more, or that no route takes, when no topic is given;
    /// [`ErrorKind::RecordRefused`] for one whose bytes are gone.
    pub async fn resent(&self, letter: &Letter, ledger: &Ledger) -> Result<Vec<Resent>> {
        let value = ledger.bytes(letter).await?;
        let from = match letter.position.is_held() {
            true => format!("{HELD_TABLE}/{}", letter.position.offset),
            false => format!("{}/{}", self.dead_letter_topic, letter.position),
        };
        let from = || (REDRIVEN_FROM.into(), Some(from.clone().into()));
        let mut all = Vec::new();
        for (topic, outgoing) in self.routed(letter, value.as_ref())? {
            let schema_ref = outgoing.schema_ref(&topic).ok().flatten();
            let prefixes = self.registry.prefixes(&topic, schema_ref).await?;
            let record = outgoing.record(&topic, &prefixes)?;
            let Record { key, value, mut headers, partition, timestamp_ms } = record;
            headers.push(from());
            all.push(Resent { topic, key: Some(key), value, partition, timestamp_ms, headers });
        }
        if all.is_empty() {
            let topic = self.to_topic.as_deref().or(letter.source_topic());
            let topic = topic
                .ok_or_else(|| without_destination(letter, "it is no event".into()))?
                .to_owned();
            let event = event(letter, value.as_ref());
            let partition_and_time = |event: &Event| (event.partition(), event.record_time_ms());
            let (partition, timestamp_ms) =
                event.as_ref().map(partition_and_time).unwrap_or_default();
            // The partition was meant for the original topic.
            let partition = partition.filter(|_| self.to_topic.is_none());
            let (key, mut headers) = original_key_and_headers(letter, event.as_ref());
            headers.push(from());
            all.push(Resent { topic, key, value, partition, timestamp_ms, headers });
        }
        Ok(all)
    }

    /// Routes the letter's event again and returns the records that were refused; none if the letter
    /// is sent as it is.
    fn routed(
        &self,
        letter: &Letter,
        value: Option<&Bytes>,
    ) -> Result<Vec<(String, OutgoingEvent)>> {
        let (to, source) = (self.to_topic.as_deref(), letter.source_topic());
        let row = event_of_row(letter, value, &self.tables);
        let is_row = row.is_some();
        let event = match row.transpose().map_err(|error| unmapped_row(letter, error))? {
            Some(event) => event,
            None => match event(letter, value) {
                Some(_) if self.routes.is_plain() && to.or(source).is_some() => {
                    return Ok(Vec::new());
                }
                Some(event) => event,
                None => return Ok(Vec::new()),
            },
        };
        if to.is_none() && letter.is_of_handler() {
            let why = "it belongs to a handler, which redriving does not ask";
            return Err(without_destination(letter, why.into()));
        }
        let mut records = match self.routes.decide(&event).1 {
            Decision::Records(records) => records,
            // A row itself is never sent.
            _ if is_row && let Some(to) = to => {
                return Ok(vec![(to.to_owned(), OutgoingEvent::with_default_record(event))]);
            }
            _ if to.is_some() => return Ok(Vec::new()),
            Decision::Filtered => {
                return Err(without_destination(letter, "its route drops it now".into()));
            }
            Decision::Refused(error) | Decision::Stop(error) => {
                return Err(without_destination(letter, error.without_remedy()));
            }
        };
        let at = source.and_then(|source| records.iter().position(|(topic, _)| topic == source));
        match (to, source, at) {
            (None, None, _) => {}
            (None, Some(source), None) => {
                let topics: Vec<_> = records.iter().map(|(topic, _)| topic.as_str()).collect();
                let topics = topics.join(", ");
                let why = format!("it was refused by {source}, and goes to {topics} now");
                return Err(without_destination(letter, why));
            }
            (_, _, at) => {
                let (topic, outgoing) = records.swap_remove(at.unwrap_or(0));
                return Ok(vec![(to.map_or(topic, str::to_owned), outgoing)]);
            }
        }
        Ok(records)
    }

    /// Sends a letter's records, and records that in the ledger once Kafka has acknowledged them all.
    ///
    /// # Errors
    /// If a record itself was refused, other letters can still be sent: see [`is_final_for_letter`](Self::is_final_for_letter).
    pub async fn send(
        &mut self,
        letter: &Letter,
        resent: &[Resent],
        ledger: &mut Ledger,
    ) -> Result<()> {
        // Before the first letter: without the tables, nothing is sent.
        if self.client.is_unused() {
            ledger.ensure_tables().await?;
        }
        for record in resent {
            self.send_one(letter.position, record).await?;
        }
        let topics: Vec<_> = resent.iter().map(|resent| resent.topic.as_str()).collect();
        ledger.record_redriven(letter, &topics.join(", ")).await
    }

    /// Sends the first of these events of a line, and those behind it that go to the same topic, and
    /// takes off the line those that Kafka has acknowledged: with the last one, the aggregate is
    /// released. Returns how many, and the error that ended it: nothing behind a refused event is sent.
    ///
    /// Send only events that are [confirmed](HeldLines::next_confirmed), and call it again for the rest.
    pub async fn send_held(
        &mut self,
        next: &[Letter],
        ledger: &Ledger,
        lines: &HeldLines,
    ) -> (usize, Result<()>) {
        let run = match self.run_to_one_topic(next, ledger).await {
            Ok(run) => run,
            Err(error) => return (0, Err(error)),
        };
        self.client.stop_at_refusals();
        if self.client.is_unused()
            && let Err(error) = lines.ensure_redriven().await
        {
            return (0, Err(error));
        }
        match &*run {
            [(position, several)] if several.len() != 1 => {
                for record in several {
                    if let Err(error) = self.send_one(*position, record).await {
                        return (0, self.refused_again(*position, error, lines).await);
                    }
                }
                let topics: Vec<_> = several.iter().map(|record| &*record.topic).collect();
                (1, lines.redriven(&[*position], &topics.join(", ")).await)
            }
            _ => {
                let all = run.iter().filter_map(|(at, records)| Some((*at, records.first()?)));
                let all: Vec<(_, &Resent)> = all.collect();
                let topic = all.first().map_or("", |(_, record)| &record.topic);
                let (delivered, error) = self.send_all(all.clone()).await;
                if let Err(error) = lines.redriven(&delivered, topic).await {
                    return (0, Err(error));
                }
                let ended = match error {
                    Some((position, error)) => self.refused_again(position, error, lines).await,
                    None => Ok(()),
                };
                (delivered.len(), ended)
            }
        }
    }

    /// The records of the first event, and of those behind it with one record for the same topic.
    async fn run_to_one_topic(
        &self,
        next: &[Letter],
        ledger: &Ledger,
    ) -> Result<Vec<(LetterPosition, Vec<Resent>)>> {
        fn topic(records: &[Resent]) -> Option<&str> {
            match records {
                [record] => Some(&record.topic),
                _ => None,
            }
        }
        let mut run: Vec<(LetterPosition, Vec<Resent>)> = Vec::new();
        for letter in next {
            let resent = match self.resent(letter, ledger).await {
                Ok(resent) => resent,
                Err(error) if run.is_empty() => return Err(error),
                // It is the first one of the next run, if all before it are sent.
                Err(_) => break,
            };
            if let Some((_, first)) = run.first()
                && (topic(first).is_none() || topic(first) != topic(&resent))
            {
                break;
            }
            run.push((letter.position, resent));
        }
        Ok(run)
    }

    async fn refused_again(
        &self,
        position: LetterPosition,
        error: Error,
        lines: &HeldLines,
    ) -> Result<()> {
        if Self::is_final_for_letter(&error) {
            lines.refused(position, &error).await?;
        }
        Err(error)
    }

    /// Sends later letters to this topic, or to their own.
    pub fn to_topic(&mut self, topic: Option<String>) {
        self.to_topic = topic;
    }

    async fn send_one(&mut self, position: LetterPosition, resent: &Resent) -> Result<()> {
        match self.send_all(vec![(position, resent)]).await.1 {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    /// Sends records to the topic of the first. Returns the letters that are delivered, and the first
    /// one that is not, with the reason.
    async fn send_all(
        &mut self,
        letters: Vec<(LetterPosition, &Resent)>,
    ) -> (Vec<LetterPosition>, Option<(LetterPosition, Error)>) {
        let Some((first, Resent { topic, .. })) = letters.first() else { return (vec![], None) };
        let (first, topic) = (*first, topic.clone());
        let not_taken = || format!("Kafka did not take dead letter {first} for {topic}");
        match timeout(DELIVERY_TIMEOUT, self.client.open(&topic)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return (vec![], Some((first, error))),
            Err(_) => return (vec![], Some((first, self.too_late(not_taken())))),
        }
        let records = letters.iter().map(|(position, resent)| {
            let Resent { key, value, partition, timestamp_ms, headers, .. } = (*resent).clone();
            let key = key.unwrap_or_default();
            let record = Record { key, value, headers, partition, timestamp_ms };
            (record, format!("dead letter {position}"))
        });
        let mut sent = self.client.send(&topic, records.collect());
        let answer = match timeout(DELIVERY_TIMEOUT, sent.answer()).await {
            Ok(answer) => answer,
            Err(_) => {
                self.client.close(&topic, self.too_late(not_taken()));
                // Some may have been acknowledged meanwhile.
                sent.answer().await
            }
        };
        let positions: Vec<_> = letters.iter().map(|(position, _)| *position).collect();
        let (delivered, mut refused, error) = match answer {
            Answer::Delivered => return (positions, None),
            Answer::Refused(refused) => {
                let is_refused = |index| refused.iter().any(|one| one.index == index);
                let delivered = (0..positions.len()).filter(|index| !is_refused(*index)).collect();
                (delivered, refused, None)
            }
            Answer::Failed(error, progress) => (progress.delivered, progress.refused, Some(error)),
        };
        let refused = (!refused.is_empty()).then(|| refused.swap_remove(0));
        if error.is_some() || refused.is_some() {
            self.client.forget(&topic);
        }
        let delivered: Vec<_> =
            delivered.iter().filter_map(|index: &usize| positions.get(*index)).copied().collect();
        let ended = match (refused, error) {
            (Some(refused), _) => positions.get(refused.index).map(|at| (*at, refused.error)),
            (None, Some(error)) => {
                let left = positions.iter().find(|position| !delivered.contains(position));
                left.map(|position| (*position, error))
            }
            (None, None) => None,
        };
        (delivered, ended)
    }

    /// True for an error of [`resent`](Self::resent) or [`send`](Self::send) that concerns one letter
    /// only, so that others can still be sent.
    pub fn is_final_for_letter(error: &Error) -> bool {
        use ErrorKind::{Config, KafkaRefused, RecordRefused, RecordTooLarge};
        matches!(error.kind(), Config | KafkaRefused | RecordRefused | RecordTooLarge)
    }

    /// Error for a letter that waited too long, with what the brokers complained of last.
    fn too_late(&self, not_taken: String) -> Error {
        let what = format!("{not_taken} in {DELIVERY_TIMEOUT:?}");
        let error = Error::new(ErrorKind::KafkaUnavailable, what);
        match self.client.trouble() {
            Some(trouble) => error.caused_by(trouble),
            None => error,
        }
    }
}

/// Error for a row that the present mapping can't read as an event either.
fn unmapped_row(letter: &Letter, error: Error) -> Error {
    let what = format!("dead letter {} is a row that is no event", letter.position);
    Error::new(ErrorKind::Config, what).caused_by(error).remedy(
        "map its columns with outbox.columns; a row without id, type or aggregate id never is one",
    )
}

/// Error for a letter whose destination the operator has to name.
fn without_destination(letter: &Letter, why: String) -> Error {
    let what = format!("dead letter {} goes nowhere: {why}", letter.position);
    let remedy = match letter.source_topic() {
        None if !letter.is_of_handler() => {
            "add a [[route]] that takes it, or say where it goes with --to-topic TOPIC"
        }
        _ => "say where it goes with --to-topic TOPIC",
    };
    Error::new(ErrorKind::Config, what).remedy(remedy)
}

/// Key and headers of the refused record.
fn original_key_and_headers(letter: &Letter, event: Option<&Event>) -> (Option<Bytes>, Headers) {
    // A letter whose bytes are in the table may have a cut record; the bytes have all of it. A bare
    // payload does not, but its record is not cut.
    if let Some(event) = event.filter(|_| letter.is_kept_in_table() && !letter.is_payload()) {
        let Record { key, headers, .. } = format::default_record(event);
        return (Some(key), headers);
    }
    let own = letter.headers.iter().filter(|(key, _)| !header::ALL.contains(&key.as_str()));
    let headers = own.map(|(key, value)| (key.as_str().into(), value.clone())).collect();
    (letter.key.clone(), headers)
}

impl Resent {
    /// Headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.headers.iter().map(|(name, value)| (&**name, value.as_deref()))
    }
}
