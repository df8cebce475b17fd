//! What a part leads to beside its end: records that go on, events that were refused.

use std::sync::Arc;

use actix::Context;
use slog::{error, warn};

use super::{Router, Sorted, deliveries::Rest, send};
use crate::{
    Error, ErrorKind, Event, Lsn, Result,
    handlers::{Onward, Record},
    kafka::record::is_kept_in_table,
};

impl Router {
    /// Hands the records on to their topics and the refused events to the dead letters; the
    /// batch waits for these instead of the part.
    pub(super) fn hand_on(&mut self, rest: Rest, ctx: &mut Context<Self>) {
        let Rest { lane, refused, onward, events, batch, permit } = rest;
        let mut sorted = Sorted::default();
        let Some(from) = self.deliveries.topic(lane).cloned() else { return };
        if let Err(error) = self.park(&from, refused, &mut sorted) {
            return self.fail(error);
        }
        if let Err(error) = self.place_onward(&from, onward, events, &mut sorted) {
            return self.fail(error);
        }
        let Sorted { parts, filtered } = sorted;
        self.status.read(0, filtered);
        if let Some(done) = self.deliveries.split(batch, parts.len()) {
            return self.batch_done(done, ctx);
        }
        for (lane, events) in parts {
            if let Some(topic) = self.deliveries.topic(lane) {
                self.status.waits(topic, events.len());
                self.status.routed(topic, &events);
            }
            if let Some(dispatch) = self.deliveries.add(lane, batch, events, permit.clone()) {
                send(dispatch, ctx);
            }
        }
    }

    /// Routes what the handler's lane `from` handed on. Parks one letter for an event with records
    /// that no topic can take.
    fn place_onward(
        &mut self,
        from: &Arc<str>,
        onward: Vec<Onward>,
        events: Arc<Vec<Event>>,
        to: &mut Sorted,
    ) -> Result<()> {
        let goes_on = onward.iter().any(|one| matches!(one, Onward::Event(_)));
        // Most often nobody else has them any more.
        let events = if goes_on { Arc::unwrap_or_clone(events) } else { Vec::new() };
        let mut events = events.into_iter().enumerate();
        let mut parked: Option<Lsn> = None;
        for one in onward {
            match one {
                Onward::Event(index) => {
                    let Some((_, event)) = events.find(|(at, _)| *at == index) else {
                        let what = "events of a handler did not go on in their order";
                        return Err(Error::new(ErrorKind::ActorFailed, what));
                    };
                    if let Some((event, error)) = self.route(event, to)? {
                        self.refuse(event, error, Some(from), to)?;
                    }
                }
                Onward::Record(record) => {
                    let refused = self.place_record(*record, to)?;
                    if let Some((event, error)) = refused
                        && parked.replace(event.lsn()) != Some(event.lsn())
                    {
                        self.refuse(event, error, Some(from), to)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds a handler's record to the part of the topic that it names, or of those that its
    /// event is routed to. Of one that can go nowhere, the event comes back as it was.
    fn place_record(&mut self, record: Record, to: &mut Sorted) -> Result<Option<(Event, Error)>> {
        let (original, changed, chosen) = record.into_parts();
        let refused = match (changed, chosen) {
            (Err(error), _) => Some(error),
            (Ok(event), None) => self.route(event, to)?.map(|(_, error)| error),
            (Ok(event), Some(topic)) => match self.topics_of_handlers.get(&topic) {
                Err(error) => Some(error),
                Ok(()) => {
                    let event = self.routing.unrouted(event);
                    self.add(to, &topic, event);
                    None
                }
            },
        };
        Ok(refused.map(|error| (original, error)))
    }

    /// Addresses refused events to the dead letters.
    fn park(
        &mut self,
        from: &Arc<str>,
        refused: Vec<(Event, Error)>,
        to: &mut Sorted,
    ) -> Result<()> {
        for (event, error) in refused {
            let event = match event.refusal() {
                None => self.dead_letter(event, error, Some(from))?.1,
                Some(_) if !is_kept_in_table(&event) => {
                    warn!(self.log, "dead letter goes to its table, as its topic refuses it";
                        "event" => ?event, "error" => %error);
                    event.kept_in_table()
                }
                // The table has it, with its error: that is as good as can be had.
                Some(_) => {
                    error!(self.log, "dead letter is in its table alone, as its topic refuses it";
                        "event" => ?event, "error" => %error);
                    continue;
                }
            };
            let letters = self.dead_letters.topic.clone();
            self.add(to, &letters, event);
        }
        Ok(())
    }
}
