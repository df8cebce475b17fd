//! `factlib route`: prints the route and the records of an event, without connecting anywhere.

use std::io::{BufRead, stdin};

use factlib::{
    Error, ErrorKind, Result,
    binary::Loaded,
    proto::OutboxEvent,
    routing::{ExplainedRecord, Explanation, RoutingOutcome, explain},
};

use crate::{
    args::{EventArgs, RouteArgs},
    line, output,
};

pub fn run(args: RouteArgs, loaded: &Loaded) -> Result<()> {
    if let Some(event) = event(args.event) {
        return print(&event, loaded);
    }
    for (index, line) in stdin().lock().lines().enumerate() {
        let explained = line
            .map_err(|error| {
                Error::new(ErrorKind::InvalidFact, "it can't be read").caused_by(error)
            })
            .and_then(|line| match line.trim().is_empty() {
                true => Ok(()),
                false => print(&line::fact(&line)?.to_event()?, loaded),
            });
        explained.map_err(|error| {
            let failure = format!("cannot explain line {} of standard input", index + 1);
            Error::new(error.kind(), failure).caused_by(error)
        })?;
    }
    Ok(())
}

fn event(args: EventArgs) -> Option<OutboxEvent> {
    Some(OutboxEvent {
        id: args.id,
        aggregate_type: args.aggregate_type?,
        aggregate_id: args.aggregate_id,
        event_type: args.event_type,
        payload: args.payload.into(),
        metadata: args.metadata.into_iter().collect(),
        ..Default::default()
    })
}

fn print(event: &OutboxEvent, loaded: &Loaded) -> Result<()> {
    let explanation = explain(&loaded.config, event)?;
    output::print(&text(event, &explanation, &loaded.routes))
}

fn text(event: &OutboxEvent, explanation: &Explanation, locations: &[String]) -> String {
    let OutboxEvent { aggregate_type, event_type, aggregate_id, .. } = event;
    let mut text = format!("event     {event_type:?} of {aggregate_type:?} {aggregate_id:?}\n");
    text += &match explanation.route {
        Some(route) => {
            let location = locations.get(route).map(String::as_str).unwrap_or_default();
            format!("route     route[{route}], {location}\n")
        }
        None => "route     none: kafka.unrouted decides\n".into(),
    };
    match &explanation.outcome {
        RoutingOutcome::Sent(records) => records.iter().for_each(|sent| text += &record(sent)),
        RoutingOutcome::Filtered => text += "filtered  it is not sent, and counts as done\n",
        RoutingOutcome::Refused(error) => text += &format!("refused   {error}\n"),
        RoutingOutcome::Stops(error) => text += &format!("stops     {error}\n"),
        other => text += &format!("{other:?}\n"),
    }
    text
}

fn record(record: &ExplainedRecord) -> String {
    let bytes = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("{} bytes", bytes.len()),
    };
    let partition = record.partition.map_or("by its key".into(), |number| number.to_string());
    let mut text = format!("record    topic      {}\n", record.topic);
    let mut add = |name: &str, value: &str| text += &format!("          {name:<10} {value}\n");
    add("key", &bytes(&record.key));
    add("partition", &partition);
    add("format", &record.format.to_string());
    if let Some(subject) = &record.subject {
        add("subject", subject);
    }
    for (key, value) in &record.headers {
        let value = value.as_ref().map_or("null".into(), |value| bytes(value));
        add("header", &format!("{key} = {value}"));
    }
    add("value", &record.value.as_ref().map_or("none: a tombstone".into(), |value| bytes(value)));
    text
}
