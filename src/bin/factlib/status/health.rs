//! `factlib status --health`: turns the answer of `/healthz` into an exit code.

use factlib::{Result, config::Config};
use serde_json::Value;

use super::request::{Endpoint, failed, get, not_a_relay, url};
use crate::output;

/// Prints that the relay is healthy, or returns the reason why not as an error.
pub fn check(base: Option<&str>, config: &Config) -> Result<()> {
    let url = url(base, config, Endpoint::Health)?;
    let (code, body) = get(&url, Endpoint::Health)?;
    let answer: Value = serde_json::from_str(&body).unwrap_or_default();
    match (code, answer["ok"].as_bool(), answer["reason"].as_str()) {
        (200, Some(true), _) => output::print("healthy\n"),
        (503, Some(false), Some(reason)) => Err(failed(format!("not healthy: {reason}"))),
        _ => Err(not_a_relay(&url, Endpoint::Health)),
    }
}
