//! What a part leads to beside its end: records that go on, events that were refused.

use actix::Context;

use super::router::{Router, send};
use crate::{
    Error, ErrorKind, Event, Result,
    handlers::{HandlerTopics, Record},
    kafka::record::is_kept_in_table,
    messages::{BatchId, WindowPermit},
};

/// What a token handed back of its part.
#[derive(Debug)]
pub(crate) struct Rest {
    pub lane: usize,
    pub refused: Vec<(Event, Error)>,
    pub records: Vec<Record>,
    pub batch: BatchId,
    pub permit: WindowPermit,
}

impl Router {
    /// Hands the records on to their topics and the refused events to the dead letters; the
    /// batch waits for these instead of the part.
    pub(super) fn hand_on(&mut self, rest: Rest, ctx: &mut Context<Self>) {
        let Rest { lane, refused, records, batch, permit } = rest;
        let mut parts: Vec<(usize, Vec<Event>)> = Vec::new();
        if let Err(error) = self.park(lane, refused, &mut parts) {
            return self.fail(error);
        }
        for record in records {
            let (event, chosen) = record.into_event();
            let topic = chosen.and_then(|topic| match topic {
                Some(topic) => self.topics_of_handlers.get(&topic).map(|()| topic),
                None => self.topic(&event),
            });
            let placed = match topic {
                Ok(topic) => Ok((topic, event)),
                Err(error) => self.dead_letter(event, error, None),
            };
            match placed {
                Ok((topic, event)) => self.add_to(&mut parts, &topic, event),
                Err(error) => return self.fail(error),
            }
        }
        self.deliveries.split(batch, parts.len());
        for (lane, events) in parts {
            if let Some(topic) = self.deliveries.topic(lane) {
                self.status.waits(topic, events.len());
            }
            if let Some(dispatch) = self.deliveries.add(lane, batch, events, permit.clone()) {
                send(dispatch, ctx);
            }
        }
    }

    /// Addresses refused events to the dead letters.
    fn park(
        &mut self,
        lane: usize,
        refused: Vec<(Event, Error)>,
        parts: &mut Vec<(usize, Vec<Event>)>,
    ) -> Result<()> {
        let Some(from) = self.deliveries.topic(lane).cloned() else { return Ok(()) };
        // What a handler refuses belongs to no topic.
        let topic = (!HandlerTopics::is_handler(&from)).then_some(&from);
        for (event, error) in refused {
            let (_, event) = match event.refusal() {
                None => self.dead_letter(event, error, topic)?,
                // Too large for the dead letters as well: its bytes go to the table.
                Some(refusal)
                    if error.kind() == ErrorKind::RecordTooLarge && !is_kept_in_table(&event) =>
                {
                    let topic = refusal.topic.clone();
                    (from.clone(), event.refused(error, topic))
                }
                Some(_) => return Err(error),
            };
            let letters = self.dead_letters.topic.clone();
            self.add_to(parts, &letters, event);
        }
        Ok(())
    }
}
