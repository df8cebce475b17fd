//! Log lines for assertions.

use std::{
    fmt,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use slog::{Drain, KV, Level, Logger, Never, OwnedKVList, Record, Serializer};
use tokio::sync::Notify;

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogLine {
    /// The level.
    pub level: Level,
    /// The message, without values.
    pub message: String,
    /// The line's own values, then those of its logger, innermost first.
    pub values: Vec<(String, String)>,
}

impl LogLine {
    /// Returns the first value of this key.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.values.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.level.as_short_str(), self.message)?;
        self.values.iter().try_for_each(|(key, value)| write!(f, " {key}={value:?}"))
    }
}

/// The lines of a [`Logger`]; clones share them.
///
/// ```
/// let (log, lines) = factlib_testing::CollectedLogs::logger();
/// slog::warn!(log, "slot is active"; "slot" => "orders");
/// assert_eq!(lines.lines()[0].value("slot"), Some("orders"));
/// ```
#[derive(Clone, Debug)]
pub struct CollectedLogs {
    lines: Arc<Mutex<Vec<LogLine>>>,
    added: Arc<Notify>,
}

impl CollectedLogs {
    /// Makes a logger and returns it with its lines.
    pub fn logger() -> (Logger, Self) {
        let logs = CollectedLogs { lines: Arc::default(), added: Arc::default() };
        (Logger::root(logs.clone().fuse(), slog::o!()), logs)
    }

    /// Returns all lines so far.
    pub fn lines(&self) -> Vec<LogLine> {
        self.lock().clone()
    }

    /// Waits for the first line that `fits`, past or future; returns `None` at the time limit.
    pub async fn await_line(
        &self,
        fits: impl Fn(&LogLine) -> bool,
        limit: Duration,
    ) -> Option<LogLine> {
        let found = async {
            loop {
                let mut added = pin!(self.added.notified());
                // Before the search, so that no line is missed in between.
                added.as_mut().enable();
                if let Some(line) = self.lock().iter().find(|line| fits(line)) {
                    return line.clone();
                }
                added.await;
            }
        };
        tokio::time::timeout(limit, found).await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<LogLine>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drain for CollectedLogs {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, of_logger: &OwnedKVList) -> Result<(), Never> {
        let mut values = Values(Vec::new());
        // A value that can't be formatted is left out; the rest of the line is kept.
        record.kv().serialize(record, &mut values).ok();
        of_logger.serialize(record, &mut values).ok();
        let message = record.msg().to_string();
        self.lock().push(LogLine { level: record.level(), message, values: values.0 });
        self.added.notify_waiters();
        Ok(())
    }
}

struct Values(Vec<(String, String)>);

impl Serializer for Values {
    fn emit_arguments(&mut self, key: slog::Key, value: &fmt::Arguments<'_>) -> slog::Result {
        self.0.push((key.to_string(), value.to_string()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use slog::{info, o};

    use super::*;

    #[tokio::test]
    async fn a_future_line_is_awaited() {
        let (log, lines) = CollectedLogs::logger();
        let waiting = {
            let lines = lines.clone();
            tokio::spawn(async move {
                lines.await_line(|line| line.message == "second", Duration::from_secs(10)).await
            })
        };
        let child = log.new(o!("actor" => "router"));
        info!(child, "first"; "bytes" => 3);
        tokio::task::yield_now().await;
        info!(child, "second"; "topic" => "orders");
        let line = waiting.await.unwrap().unwrap();
        assert_eq!(line.value("actor"), Some("router"));
        assert_eq!(line.to_string(), r#"INFO second topic="orders" actor="router""#);
        assert_eq!(lines.lines().len(), 2);
    }

    #[tokio::test]
    async fn a_line_that_never_comes_ends_the_wait() {
        let (_log, lines) = CollectedLogs::logger();
        assert_eq!(lines.await_line(|_| true, Duration::from_millis(10)).await, None);
    }
}
