//! `factlib status`: prints `/status.json` of a running relay, as a table or as JSON.

mod text;

use std::{
    io::{IsTerminal, stdout},
    thread,
    time::Duration,
};

use clap::Args as ClapArgs;
use factlib::{Error, ErrorKind, Result, config::Config};
use serde_json::Value;

use self::text::text;
use crate::output;

pub const HELP: &str = "\
Asks a running relay, at http.address and http.metrics_port or at --url.

Examples:
  factlib status
  factlib status --watch
  factlib status --url http://10.0.0.7:9100 --json
  factlib status --url http://app:8080/relay       as mounted in an application

Exit codes:
  0 answered     1 no answer, or not a relay's status     2 configuration";

/// Timeout of a request; the relay answers from memory.
const TIMEOUT: Duration = Duration::from_secs(5);

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
}

pub fn run(args: &StatusArgs, config: &Config) -> Result<()> {
    let url = url(args, config)?;
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
        let failure = "http.metrics_port is not set, so the relay's address is unknown";
        return Err(Error::new(ErrorKind::Config, failure)
            .remedy("set it as the relay has it, or give --url http://HOST:PORT"));
    };
    let address = match config.http.address {
        any if any.is_unspecified() && any.is_ipv4() => "127.0.0.1".into(),
        any if any.is_unspecified() => "[::1]".into(),
        std::net::IpAddr::V6(address) => format!("[{address}]"),
        address => address.to_string(),
    };
    Ok(format!("http://{address}:{port}/status.json"))
}

fn read(url: &str) -> Result<Value> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).build().into();
    let answer = agent.get(url).call().and_then(|mut answer| answer.body_mut().read_to_string());
    // Exit code 1: neither server is at fault, nor the configuration.
    let failed = |failure: String| Error::new(ErrorKind::ActorFailed, failure);
    let body = answer.map_err(|error| {
        failed(format!("no relay answers at {url}"))
            .caused_by(error)
            .remedy("is it running, with http.metrics_port set?")
    })?;
    let status = serde_json::from_str(&body).ok();
    status.filter(|status: &Value| status["state"].is_string()).ok_or_else(|| {
        failed(format!("{url} is not the status of a relay")).remedy(
            "another program listens there: check --url, http.address and http.metrics_port",
        )
    })
}
