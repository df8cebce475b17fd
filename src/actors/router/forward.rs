//! Routes handler output and refused events after a part completes.

use std::sync::Arc;

use slog::{error, warn};

use super::{
    deliveries::ReturnedEvents,
    sorter::{EventSorter, SortedEvents},
};
use crate::{
    Error, ErrorKind, Event, Result,
    dead_letter::is_kept_in_table,
    messages::{HandlerOutput, Record},
    routing::OutgoingEvent,
};

/// Sorts what the lane `from` gave back of a part: refused events go to the dead letters, the
/// output of a handler to its topics.
///
/// # Errors
/// As [`EventSorter::sort`]; events of a handler that are not in their order.
pub(super) fn forward(
    from: &Arc<str>,
    returned: ReturnedEvents,
    sorter: &mut EventSorter,
) -> Result<SortedEvents> {
    let ReturnedEvents { refused, output, events, .. } = returned;
    let mut sorted = SortedEvents::default();
    for (event, error) in refused {
        park(from, event, error, sorter, &mut sorted)?;
    }
    forward_output(from, output, events, sorter, &mut sorted)?;
    Ok(sorted)
}

/// Adds a refused event to the dead letters; a refused dead letter goes to its table, once.
fn park(
    from: &Arc<str>,
    event: Event,
    error: Error,
    sorter: &mut EventSorter,
    to: &mut SortedEvents,
) -> Result<()> {
    if event.refusal().is_none() {
        return sorter.refuse(event, error, Some(from), to);
    }
    if is_kept_in_table(&event) {
        // The table has it, with its error: that is as good as can be had.
        error!(sorter.log, "dead letter is in its table alone, as its topic refuses it";
            "event" => ?event, "error" => %error);
        return Ok(());
    }
    warn!(sorter.log, "dead letter goes to its table, as its topic refuses it";
        "event" => ?event, "error" => %error);
    to.add(&sorter.dead_letters.topic, OutgoingEvent::with_default_record(event.kept_in_table()));
    Ok(())
}

/// Routes the output of a handler. Parks one letter for an event with records that no topic
/// can take.
fn forward_output(
    from: &Arc<str>,
    output: Vec<HandlerOutput>,
    events: Arc<Vec<Event>>,
    sorter: &mut EventSorter,
    to: &mut SortedEvents,
) -> Result<()> {
    let needs_events = output.iter().any(|one| matches!(one, HandlerOutput::Event(_)));
    // Most often nobody else has them any more.
    let events = if needs_events { Arc::unwrap_or_clone(events) } else { Vec::new() };
    let mut events = events.into_iter().enumerate();
    let mut parked = None;
    for one in output {
        match one {
            HandlerOutput::Event(index) => {
                let Some((_, event)) = events.find(|(at, _)| *at == index) else {
                    let what = "events of a handler did not go on in their order";
                    return Err(Error::new(ErrorKind::ActorFailed, what));
                };
                if let Some((event, error)) = sorter.route(event, to)? {
                    sorter.refuse(event, error, Some(from), to)?;
                }
            }
            HandlerOutput::Record(record) => {
                // Records of one event follow each other.
                let position = record.event().stream_position();
                if let Some((event, error)) = forward_record(*record, sorter, to)?
                    && parked.replace(position) != Some(position)
                {
                    sorter.refuse(event, error, Some(from), to)?;
                }
            }
        }
    }
    Ok(())
}

/// Adds a handler's record under the topic that it names, or under those that its event is
/// routed to. Gives the original event back of one that can go nowhere.
fn forward_record(
    record: Record,
    sorter: &mut EventSorter,
    to: &mut SortedEvents,
) -> Result<Option<(Event, Error)>> {
    let (original, changed, chosen) = record.into_parts();
    let refused = match (changed, chosen) {
        (Err(error), _) => Some(error),
        (Ok(event), None) => sorter.route(event, to)?.map(|(_, error)| error),
        (Ok(event), Some(topic)) => sorter.route_to_chosen(event, &topic, to).err(),
    };
    Ok(refused.map(|error| (original, error)))
}
