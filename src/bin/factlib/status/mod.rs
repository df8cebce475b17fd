//! `factlib status`: prints `/status.json` of a running relay, as a table or as JSON, or the answer of
//! `/healthz`.

mod health;
mod request;
mod text;

use std::{
    io::{IsTerminal, stdout},
    thread,
    time::Duration,
};

use clap::Args as ClapArgs;
use factlib::{Result, config::Config};
use serde_json::Value;

use self::{
    request::{Endpoint, get, not_a_relay, url},
    text::text,
};
use crate::output;

pub const HELP: &str = "\
Asks a running relay, at http.address and http.metrics_port or at --url. --health asks
http.health_port; it is for health checks by a command, as Docker's.

Examples:
  factlib status
  factlib status --watch
  factlib status --health
  factlib status --url http://10.0.0.7:9100 --json
  factlib status --url http://app:8080/relay       as mounted in an application

Exit codes:
  0 answered; with --health: healthy     1 no answer, or not healthy     2 configuration";

#[derive(Debug, ClapArgs)]
pub struct StatusArgs {
    /// Address of the relay; taken from the configuration when not given
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Repeat every N seconds
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    pub watch: Option<u64>,
    /// Print the relay's JSON, one line per answer
    #[arg(long)]
    pub json: bool,
    /// Print `healthy`, or exit with 1 and the reason
    #[arg(long, conflicts_with_all = ["watch", "json"])]
    pub health: bool,
}

pub fn run(args: &StatusArgs, config: &Config) -> Result<()> {
    if args.health {
        return health::check(args.url.as_deref(), config);
    }
    let url = url(args.url.as_deref(), config, Endpoint::Status)?;
    let clear = args.watch.is_some() && stdout().is_terminal();
    loop {
        match read(&url) {
            Ok(status) => {
                let text = match args.json {
                    true => format!("{status}\n"),
                    false => text(&status),
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
            // Keep watching: the relay may come back.
            Err(error) if args.watch.is_some() => output::print_error(&error.to_string()),
            Err(error) => return Err(error),
        }
        let Some(seconds) = args.watch else { return Ok(()) };
        thread::sleep(Duration::from_secs(seconds));
    }
}

fn read(url: &str) -> Result<Value> {
    let (_, body) = get(url, Endpoint::Status)?;
    let status = serde_json::from_str(&body).ok();
    let status = status.filter(|status: &Value| status["state"].is_string());
    status.ok_or_else(|| not_a_relay(url, Endpoint::Status))
}
