//! Log lines as events of `tracing`.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Mutex, OnceLock},
};

use factlib::{Pipeline, TracingDrain};
use slog::{Drain, Logger, o, warn};
use tracing_core::{
    Dispatch, Event, Level, Metadata, Subscriber, dispatcher,
    field::{Field, Visit},
    span,
};

use crate::support::Bed;

/// An event: level, target, fields.
type Seen = (Level, String, BTreeMap<String, String>);

static SEEN: Mutex<Vec<Seen>> = Mutex::new(Vec::new());

/// Sees all but traces.
struct Collector;

#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), format!("the number {value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().into(), format!("{value:?}"));
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        assert!(metadata.file().is_some() && metadata.line().is_some());
        let target = metadata.target().to_owned();
        SEEN.lock().expect("whole").push((*metadata.level(), target, fields.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// What was seen with this message, or value.
fn seen(key: &str, value: &str) -> Vec<Seen> {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| dispatcher::set_global_default(Dispatch::new(Collector)).expect("alone"));
    let all = SEEN.lock().expect("whole");
    all.iter().filter(|seen| seen.2.get(key).is_some_and(|is| is == value)).cloned().collect()
}

#[test]
fn a_line_is_an_event_whose_fields_are_its_values() {
    assert!(seen("message", "topic failed").is_empty());
    let log = Logger::root(TracingDrain::default().fuse(), o!("relay" => "orders", "n" => 1));
    for n in [7_u32, 8] {
        warn!(log, "topic failed"; "failures" => n, "error" => %"away", "n" => 2_u64);
    }
    slog::trace!(log, "not asked for");
    assert!(seen("message", "not asked for").is_empty());
    let seen = seen("message", "topic failed");
    assert_eq!(seen.len(), 2, "{seen:?}");
    for ((level, target, fields), n) in seen.iter().zip([7, 8]) {
        assert_eq!((*level, target.as_str()), (Level::WARN, module_path!()));
        let failures = format!("the number {n}");
        let expected = [
            ("error", "away"),
            ("failures", &failures),
            ("message", "topic failed"),
            // The line's before the logger's.
            ("n", "the number 2"),
            ("relay", "orders"),
        ];
        let fields: Vec<_> = fields.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(fields, expected);
    }
}

#[actix::test]
async fn a_pipeline_without_a_logger_logs_there() {
    assert!(seen("slot", "none").is_empty());
    let bed = Bed::shared("tracing").await;
    let pipeline = Pipeline::builder().config(bed.config.clone()).start().await.expect("up");
    pipeline.shutdown().await.expect("a clean stop");
    let running = seen("message", "relay running");
    assert!(!running.is_empty());
    let (level, target, fields) = &running[0];
    assert_eq!(*level, Level::INFO);
    assert!(target.starts_with("factlib::actors"), "{target}");
    assert_eq!(fields["generation"], "the number 1");
}
