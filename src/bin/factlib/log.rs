//! Builds the program's logger: slog to stderr, as JSON or for a terminal, on its own thread.

use std::{
    io::{BufWriter, IsTerminal, stderr},
    sync::Mutex,
};

use factlib::config::{LogConfig, LogFormat, LogLevel};
use slog::{Drain, FnValue, Level, LevelFilter, Logger, Never, Record, o};
use slog_async::{Async, AsyncGuard, OverflowStrategy};

use crate::output;

/// Maximum number of queued lines. When the queue is full, the caller waits: the last lines before
/// a failure matter most, so none is dropped.
const QUEUE_LINES: usize = 4096;

/// The root logger, and a guard that writes the queued lines when it is dropped.
pub fn logger(config: &LogConfig) -> (Logger, AsyncGuard) {
    let json = match config.format {
        LogFormat::Json => true,
        LogFormat::Terminal => false,
        _ => !stderr().is_terminal(),
    };
    let (lines, guard) = if json { queued(json_lines()) } else { queued(terminal_lines()) };
    let drain = LevelFilter::new(lines, level(config.level)).ignore_res();
    let log = Logger::root(drain, o!());
    // For programs that collect lines, and for a search for a cause. On a terminal they are noise.
    if !json && !matches!(config.level, LogLevel::Debug | LogLevel::Trace) {
        return (log, guard);
    }
    let caller = FnValue(|record: &Record| format!("{}:{}", record.file(), record.line()));
    (log.new(o!("service" => config.service.clone(), "caller" => caller)), guard)
}

fn queued<D>(drain: D) -> (Async, AsyncGuard)
where
    D: Drain<Ok = (), Err = Never> + Send + 'static,
{
    Async::new(drain)
        .chan_size(QUEUE_LINES)
        .overflow_strategy(OverflowStrategy::Block)
        .thread_name("factlib-log".into())
        .build_with_guard()
}

fn json_lines() -> impl Drain<Ok = (), Err = Never> + Send + 'static {
    // Buffered and flushed once per line, so that each line is one write.
    let json = slog_json::Json::new(BufWriter::new(stderr()));
    let json = json.set_flush(true).add_default_keys().build();
    // An error on stderr can't be reported anywhere.
    Mutex::new(json).ignore_res()
}

fn terminal_lines() -> impl Drain<Ok = (), Err = Never> + Send + 'static {
    let decorator = slog_term::TermDecorator::new().stderr();
    let decorator = match output::has_colours(&stderr()) {
        true => decorator.build(),
        false => decorator.force_plain().build(),
    };
    let format = slog_term::FullFormat::new(decorator).build();
    Mutex::new(format).ignore_res()
}

fn level(level: LogLevel) -> Level {
    match level {
        LogLevel::Error => Level::Error,
        LogLevel::Warn => Level::Warning,
        LogLevel::Debug => Level::Debug,
        LogLevel::Trace => Level::Trace,
        _ => Level::Info,
    }
}
