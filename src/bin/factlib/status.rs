//! `factlib status`: what a running relay says of itself in `/status.json`.

use std::{
    io::{IsTerminal, stdout},
    thread,
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use clap::Args as ClapArgs;
use factlib::{Error, ErrorKind, Lsn, Result, config::Config};
use serde_json::Value;

use crate::output;

pub const HELP: &str = "\
Asks a running relay, at http.address and http.metrics_port or at --url.

Examples:
  factlib status
  factlib status --watch
  factlib status --url http://10.0.0.7:9100 --json
  factlib status --url http://app:8080/relay       where an application mounted it

Exit codes:
  0 it answered     1 nobody answers, or not with a status     2 configuration";

/// The relay answers from memory.
const LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, ClapArgs)]
pub struct StatusArgs {
    /// Where the relay answers; from the configuration when not given
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Again and again, every so many seconds, with the rate in between
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    pub watch: Option<u64>,
    /// Print what the relay answers, a line each time
    #[arg(long)]
    pub json: bool,
}

/// An answer, and when it came.
struct Reading {
    at: Instant,
    status: Value,
}

pub fn run(args: &StatusArgs, config: &Config) -> Result<()> {
    let url = url(args, config)?;
    let clear = args.watch.is_some() && stdout().is_terminal();
    let mut before: Option<Reading> = None;
    loop {
        let reading = match read(&url) {
            Ok(reading) => Some(reading),
            // Who watches sees it come back.
            Err(error) if args.watch.is_some() => {
                output::complain(&error.to_string());
                None
            }
            Err(error) => return Err(error),
        };
        if let Some(reading) = &reading {
            let text = match args.json {
                true => format!("{}\n", reading.status),
                false => text(reading, before.as_ref()),
            };
            let (start, end) = match (clear && !args.json, args.watch) {
                (true, _) => ("\x1b[H\x1b[2J", ""),
                (false, Some(_)) if !args.json => ("", "\n"),
                _ => ("", ""),
            };
            if !output::print_bytes(format!("{start}{text}{end}").as_bytes())? {
                return Ok(());
            }
        }
        let Some(seconds) = args.watch else { return Ok(()) };
        before = reading;
        thread::sleep(Duration::from_secs(seconds));
    }
}

fn url(args: &StatusArgs, config: &Config) -> Result<String> {
    if let Some(url) = &args.url {
        let base = url.trim_end_matches('/');
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        return Ok(match base.ends_with("/status.json") {
            true => base,
            false => base + "/status.json",
        });
    }
    let Some(port) = config.http.metrics_port else {
        let what = "http.metrics_port is not set, so that no relay is known to answer";
        return Err(Error::new(ErrorKind::Config, what)
            .remedy("set it where the relay runs, or give --url http://HOST:PORT"));
    };
    let address = match config.http.address {
        any if any.is_unspecified() && any.is_ipv4() => "127.0.0.1".into(),
        any if any.is_unspecified() => "[::1]".into(),
        std::net::IpAddr::V6(address) => format!("[{address}]"),
        address => address.to_string(),
    };
    Ok(format!("http://{address}:{port}/status.json"))
}

fn read(url: &str) -> Result<Reading> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(LIMIT)).build().into();
    let asked = agent.get(url).call().and_then(|mut answer| answer.body_mut().read_to_string());
    // Exit code 1: neither server is at fault, nor the configuration.
    let failed = |what: String| Error::new(ErrorKind::ActorFailed, what);
    let body = asked.map_err(|error| {
        failed(format!("no relay answers at {url}"))
            .caused_by(error)
            .remedy("is it running, with http.metrics_port set?")
    })?;
    let status: Value = serde_json::from_str(&body)
        .map_err(|error| failed(format!("{url} is no status")).caused_by(error))?;
    match status["state"].is_string() {
        true => Ok(Reading { at: Instant::now(), status }),
        false => Err(failed(format!("{url} is not the status of a relay"))),
    }
}

fn text(reading: &Reading, before: Option<&Reading>) -> String {
    let status = &reading.status;
    let number = |name: &str| status[name].as_u64().unwrap_or_default();
    let word = |name: &str| status[name].as_str().unwrap_or("none").to_owned();
    let lsn = |name: &str| word(name).parse::<Lsn>().unwrap_or_default();
    let bytes = |count: u64| ByteSize::b(count).to_string();
    let state = match status["error"].as_str() {
        Some(error) => format!("{}: {error}", word("state")),
        None => word("state"),
    };
    let lag = lsn("received_lsn").distance_from(lsn("saved_lsn"));
    let mut lines = vec![
        ("state", state),
        ("received", word("received_lsn")),
        ("saved", word("saved_lsn")),
        ("confirmed", word("confirmed_lsn")),
        ("lag", format!("{} received and not saved as delivered", bytes(lag))),
        ("retained WAL", bytes(number("retained_wal_bytes"))),
    ];
    if let Some(what) = status["retained_wal_waits_for"].as_str() {
        lines.push(("kept for", what.to_owned()));
    }
    let (events, dead) = (number("events"), number("dead_letters"));
    let read = number("events_read");
    lines.push(("events", format!("{events} delivered, {read} read, {dead} dead letters")));
    if let Some(rate) = before.and_then(|before| rate(before, reading)) {
        lines.push(("rate", format!("{rate:.1} events/s")));
    }
    let (used, window) = (number("in_flight_bytes"), number("window_bytes"));
    lines.push(("in flight", format!("{} of {}", bytes(used), bytes(window))));
    lines.push(("restarts", restarts(status)));
    if let Some(error) = status["kafka_error"].as_str() {
        lines.push(("Kafka", error.to_owned()));
    }
    output::table(&lines) + &topics(status)
}

/// Events a second between two readings; none across a restart of the relay.
fn rate(before: &Reading, now: &Reading) -> Option<f64> {
    let events = |reading: &Reading| reading.status["events"].as_u64();
    let more = events(now)?.checked_sub(events(before)?)?;
    let seconds = now.at.duration_since(before.at).as_secs_f64();
    #[allow(clippy::cast_precision_loss)] // For display.
    Some(more as f64 / seconds.max(f64::EPSILON))
}

fn restarts(status: &Value) -> String {
    let generation = status["generation"].as_u64().unwrap_or_default();
    let errors = status["replication_errors"].as_u64().unwrap_or_default();
    let actors = status["restarts"].as_object().into_iter().flatten();
    let actors = actors.map(|(actor, count)| format!("{actor} {count}")).collect::<Vec<_>>();
    let actors = if actors.is_empty() { "none".into() } else { actors.join(", ") };
    format!("{actors}; generation {generation}, replication errors {errors}")
}

fn topics(status: &Value) -> String {
    let Some(topics) = status["topics"].as_object().filter(|topics| !topics.is_empty()) else {
        return String::new();
    };
    let width = topics.keys().map(String::len).max().unwrap_or_default().max("topic".len());
    let mut text = format!(
        "\n{:width$}  {:8}  {:>12}  {:>8}  {:>8}  last error\n",
        "topic", "state", "events", "waiting", "restarts"
    );
    for (name, topic) in topics {
        let number = |name: &str| topic[name].as_u64().unwrap_or_default();
        let state = match (topic["paused"].as_bool(), topic["open"].as_bool()) {
            (Some(true), _) => "paused",
            (_, Some(true)) => "open",
            _ => "not open",
        };
        let error = topic["retrying"].as_str().or(topic["last_error"].as_str()).unwrap_or("none");
        let (events, waiting) = (number("events"), number("waiting"));
        let restarts = number("restarts");
        text += &format!(
            "{name:width$}  {state:8}  {events:>12}  {waiting:>8}  {restarts:>8}  {error}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_rate_is_what_came_between_two_readings_of_one_process() {
        let at = Instant::now();
        let reading = |seconds, events: u64| Reading {
            at: at + Duration::from_secs(seconds),
            status: json!({ "events": events }),
        };
        assert_eq!(rate(&reading(0, 10), &reading(2, 30)), Some(10.0));
        assert_eq!(rate(&reading(0, 10), &reading(2, 3)), None);
    }
}
