//! `factlib dead-letter show`: prints one dead letter in full, or the bytes of its event.

use std::{
    fmt::Write,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use factlib::{
    Error, ErrorKind, Event, Lsn, Result,
    config::Config,
    dead_letter::{DeadLetterTopic, HeldLines, Ledger, Letter},
    proto::OutboxEvent,
};
use slog::Logger;

use super::args::ShowArgs;
use crate::{
    output,
    text::{parked, plain, shown, time},
};

pub async fn run(
    args: ShowArgs,
    topic: Option<DeadLetterTopic>,
    lines: &HeldLines,
    config: &Config,
    log: &Logger,
) -> Result<()> {
    let position = args.position;
    let (letter, place) = match topic {
        _ if position.is_held() => {
            let letter = lines.letter(position).await?.ok_or_else(|| super::not_held(position))?;
            (letter, format!("{position} of table factlib.held_events"))
        }
        Some(mut topic) => {
            (topic.letter(position).await?, format!("{position} of topic {}", topic.name()))
        }
        None => return Err(no_topic(&config.dead_letter_topic(), &args)),
    };
    let ledger = Ledger::open(config, log).await?;
    if args.raw {
        let bytes = ledger.bytes(&letter).await?.unwrap_or_default();
        return output::print_bytes(&bytes).map(|_| ());
    }
    let kept = ledger.kept(&letter).await?;
    // Shown even if the bytes are lost.
    let bytes = match ledger.bytes(&letter).await {
        Err(error) if error.kind() == ErrorKind::RecordRefused => Err(error),
        bytes => Ok(bytes?),
    };
    let mut page = Page::default();
    page.line("letter", &place);
    page.line("parked", &parked(&letter));
    page.line("error", letter.error().unwrap_or("none given"));
    page.line("source topic", letter.source_topic().unwrap_or("none"));
    page.line("redriven", &ledger.redriven_at(&letter).map_or("no".into(), time));
    if let Some(kept) = kept {
        page.line("bytes kept in", &format!("factlib.dead_letters, slot {}", kept.slot));
    }
    page.line("key", &shown(letter.key.as_deref().unwrap_or_default()));
    page.0.push_str("headers\n");
    for (name, value) in &letter.headers {
        let value = shown(value.as_deref().unwrap_or_default());
        page.line(&format!("  {}", plain(name)), &value);
    }
    match bytes {
        Err(error) => page.line("event", &error.to_string()),
        Ok(bytes) => page.event(&letter, &bytes.unwrap_or_default()),
    }
    output::print(&page.0)
}

/// The error for a letter named while the dead-letter topic does not exist.
fn no_topic(topic: &str, args: &ShowArgs) -> Error {
    let failure =
        format!("there is no dead letter {}: topic {topic} does not exist", args.position);
    Error::new(ErrorKind::Config, failure)
}

/// Aligned lines of a name and a value.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, name: &str, value: &str) {
        // Writing to a String never fails.
        let _ = writeln!(self.0, "{name:21} {}", plain(value));
    }

    fn event(&mut self, letter: &Letter, bytes: &Bytes) {
        let lsn = letter.lsn().unwrap_or(Lsn::ZERO);
        match Event::parse(bytes.clone(), lsn).and_then(|event| event.decode()) {
            Ok(event) => self.fields(&event, bytes.len()),
            Err(_) => {
                self.line("event", &format!("none: {} bytes", bytes.len()));
                self.line("  bytes", &shown(bytes));
            }
        }
    }

    fn fields(&mut self, event: &OutboxEvent, bytes: usize) {
        self.line("event", &format!("OutboxEvent, {bytes} bytes"));
        self.line("  id", &event.id);
        self.line("  aggregate_type", &event.aggregate_type);
        self.line("  aggregate_id", &event.aggregate_id);
        self.line("  event_type", &event.event_type);
        let created = u64::try_from(event.created_at).unwrap_or_default();
        let created = UNIX_EPOCH + Duration::from_nanos(created);
        self.line("  created_at", &format!("{} ({} ns)", time(created), event.created_at));
        for (key, value) in &event.metadata {
            self.line("  metadata", &format!("{key} = {value}"));
        }
        if let Some(trace) = &event.trace_info {
            self.line("  trace_id", &trace.trace_id);
            self.line("  span_id", &trace.span_id);
            for (key, value) in &trace.metadata {
                self.line("  trace metadata", &format!("{key} = {value}"));
            }
        }
        self.line("  payload", &shown(&event.payload));
    }
}
