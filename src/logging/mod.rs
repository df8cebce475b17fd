//! Provides the default logger of an embedded pipeline, and the drain into `tracing`.

#[cfg(feature = "tracing")]
mod tracing;

use std::{
    fmt::{self, Write as _},
    io::{self, Write as _},
};

use slog::{Drain, KV, Key, Level, Logger, Never, OwnedKVList, Record, Serializer, o};

#[cfg(feature = "tracing")]
pub use self::tracing::TracingDrain;

/// The logger of a pipeline that was given none, so that warnings and errors are never lost.
pub(crate) fn default_logger() -> Logger {
    Logger::root(DefaultDrain, o!())
}

/// Logs to `tracing` if the program has a subscriber, and otherwise warnings and errors to stderr.
struct DefaultDrain;

impl Drain for DefaultDrain {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        #[cfg(feature = "tracing")]
        if TracingDrain::has_subscriber() {
            return TracingDrain::default().log(record, values);
        }
        if record.level().is_at_least(Level::Warning) {
            // An error on stderr can't be reported anywhere.
            let _ = io::stderr().write_all(line(record, values).as_bytes());
        }
        Ok(())
    }
}

/// Formats one line: `factlib: WARN: topic failed, opening it again, topic: shop.user, failures: 1`.
fn line(record: &Record<'_>, values: &OwnedKVList) -> String {
    let mut line = Line(format!("factlib: {}: {}", record.level().as_short_str(), record.msg()));
    // Writing to a String never fails.
    let _ = record.kv().serialize(record, &mut line);
    let _ = values.serialize(record, &mut line);
    line.0.push('\n');
    line.0
}

struct Line(String);

impl Serializer for Line {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        Ok(write!(self.0, ", {key}: {value}")?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use slog::warn;

    use super::*;

    struct Lines(Arc<Mutex<String>>);

    impl Drain for Lines {
        type Ok = ();
        type Err = Never;

        fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
            self.0.lock().expect("whole").push_str(&line(record, values));
            Ok(())
        }
    }

    #[test]
    fn a_line_has_its_level_its_message_and_all_values() {
        let lines = Arc::default();
        let log = Logger::root(Lines(Arc::clone(&lines)), o!("actor" => "router"));
        warn!(log, "topic failed"; "failures" => 2, "error" => "away");
        let text = lines.lock().expect("whole").clone();
        assert!(text.starts_with("factlib: WARN: topic failed, "), "{text}");
        for value in [", failures: 2", ", error: away", ", actor: router"] {
            assert!(text.contains(value), "{text}");
        }
        assert!(text.ends_with('\n') && text.lines().count() == 1);
    }
}
