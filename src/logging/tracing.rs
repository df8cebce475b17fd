//! Passes log lines from `slog` to `tracing`, for programs that log there.
//!
//! Each log statement becomes a callsite of `tracing`, with its keys as fields, so that filters and
//! subscribers work as usual. Callsites live as long as the program: there is one per log
//! statement and set of keys.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, OnceLock, PoisonError},
};

use slog::{Drain, KV, Key, Level, Never, OwnedKVList, Record, Serializer};
use tracing_core::{
    Callsite as _, Event, Interest, Kind, LevelFilter, Metadata, callsite, dispatcher,
    field::{FieldSet, Value},
};

/// A `slog` drain into `tracing` (feature `tracing`): its events have the target `factlib::…`, and
/// the message and all values as fields.
///
/// A pipeline without its own logger uses it if the program has a subscriber. To use it in a
/// logger:
/// ```
/// use slog::{Drain, Logger, o};
///
/// let log = Logger::root(factlib::TracingDrain::default().fuse(), o!("relay" => "orders"));
/// let builder = factlib::Pipeline::builder().logger(log);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct TracingDrain;

impl TracingDrain {
    /// True if any thread of the program has a subscriber.
    pub(super) fn has_subscriber() -> bool {
        dispatcher::has_been_set()
    }
}

impl Drain for TracingDrain {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        let level = level(record.level());
        if level > LevelFilter::current() {
            return Ok(());
        }
        let mut fields = Fields::default();
        fields.add("message", record.msg().to_string());
        // `Fields` never fails.
        let _ = record.kv().serialize(record, &mut fields);
        let _ = values.serialize(record, &mut fields);
        let metadata = callsite_of(record, level, &fields.names).metadata();
        dispatcher::get_default(|dispatch| {
            if dispatch.enabled(metadata) {
                let values: Vec<_> = fields.values.iter().map(|value| Some(&**value)).collect();
                dispatch.event(&Event::new(metadata, &metadata.fields().value_set_all(&values)));
            }
        });
        Ok(())
    }
}

fn level(level: Level) -> tracing_core::Level {
    match level {
        Level::Critical | Level::Error => tracing_core::Level::ERROR,
        Level::Warning => tracing_core::Level::WARN,
        Level::Info => tracing_core::Level::INFO,
        Level::Debug => tracing_core::Level::DEBUG,
        Level::Trace => tracing_core::Level::TRACE,
    }
}

/// Names and values of a log line. The first value of a name counts: the record's before the
/// logger's.
#[derive(Default)]
struct Fields {
    names: Vec<String>,
    values: Vec<Box<dyn Value>>,
}

impl Fields {
    fn add(&mut self, name: impl fmt::Display, value: impl Value + 'static) {
        let name = name.to_string();
        if !self.names.contains(&name) {
            self.names.push(name);
            self.values.push(Box::new(value));
        }
    }
}

impl Serializer for Fields {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        self.add(key, value.to_string());
        Ok(())
    }

    fn emit_bool(&mut self, key: Key, value: bool) -> slog::Result {
        self.add(key, value);
        Ok(())
    }

    fn emit_u32(&mut self, key: Key, value: u32) -> slog::Result {
        self.emit_u64(key, value.into())
    }

    fn emit_u64(&mut self, key: Key, value: u64) -> slog::Result {
        self.add(key, value);
        Ok(())
    }

    fn emit_usize(&mut self, key: Key, value: usize) -> slog::Result {
        self.emit_u64(key, value as u64)
    }

    fn emit_i32(&mut self, key: Key, value: i32) -> slog::Result {
        self.emit_i64(key, value.into())
    }

    fn emit_i64(&mut self, key: Key, value: i64) -> slog::Result {
        self.add(key, value);
        Ok(())
    }

    fn emit_f64(&mut self, key: Key, value: f64) -> slog::Result {
        self.add(key, value);
        Ok(())
    }
}

/// Identity of a callsite: file, line and keys.
type CallsiteKey = (&'static str, u32, Vec<String>);

static CALLSITES: Mutex<Option<HashMap<CallsiteKey, &'static Callsite>>> = Mutex::new(None);

struct Callsite(OnceLock<Metadata<'static>>);

impl callsite::Callsite for Callsite {
    // Interest is not cached: log lines are rare.
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        self.static_metadata()
    }
}

impl Callsite {
    fn static_metadata(&self) -> &Metadata<'static> {
        self.0.get().expect("set before the callsite is shared")
    }
}

fn callsite_of(
    record: &Record<'_>,
    level: tracing_core::Level,
    names: &[String],
) -> &'static Callsite {
    let key = (record.file(), record.line(), names.to_vec());
    let mut callsites = CALLSITES.lock().unwrap_or_else(PoisonError::into_inner);
    let callsites = callsites.get_or_insert_default();
    if let Some(callsite) = callsites.get(&key) {
        return callsite;
    }
    let new: &'static Callsite = Box::leak(Box::new(Callsite(OnceLock::new())));
    let names = names.iter().map(|name| &*Box::leak(name.clone().into_boxed_str()));
    let names: &'static [&'static str] = Vec::leak(names.collect());
    new.0.get_or_init(|| {
        let (file, line, module) = (record.file(), record.line(), record.module());
        let fields = FieldSet::new(names, callsite::Identifier(new));
        let name = "slog";
        Metadata::new(
            name,
            module,
            level,
            Some(file),
            Some(line),
            Some(module),
            fields,
            Kind::EVENT,
        )
    });
    callsites.insert(key, new);
    callsite::register(new);
    new
}
