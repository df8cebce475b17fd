//! Validates a configuration: settings must fit each other and the servers' rules, and break no
//! promise. One file per section that needs more than a few lines.

mod connection;
mod delivery;
mod kafka;
mod outbox;
mod receipts;
mod routing;
mod schema_registry;

use std::time::Duration;

use secrecy::ExposeSecret;

pub(crate) use self::connection::SASL_MECHANISMS;
use super::{
    CheckpointConfig, Config, HttpConfig, Mistake, PipelineConfig, PostgresConfig, StoreKind,
    http::{EXPECTED_TOKEN, is_token},
    plain_client,
    secret::REDACTED,
    size::size_text,
};
use crate::{Result, routing::Pattern};

/// PostgreSQL's `NAMEDATALEN - 1`.
const IDENTIFIER_BYTES: usize = 63;

pub(super) type Check = Result<(), Mistake>;

impl Config {
    /// Refuses settings that can't work, before anything connects.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config): names the first wrong setting, and what is
    /// allowed.
    pub fn validate(&self) -> Result<()> {
        self.check().map_err(|mistake| mistake.error(None))
    }

    pub(crate) fn check(&self) -> Check {
        check_postgres(&self.postgres)?;
        outbox::check(self.postgres.source, &self.outbox)?;
        kafka::check(&self.kafka)?;
        plain_client::check_client(self)?;
        if self.kafka.topic_prefix.is_none() {
            let prefix = &self.postgres.message_prefix;
            kafka::check_topic_prefix("postgres.message_prefix", prefix).map_err(
                |mut mistake| {
                    mistake.problem += "; or set kafka.topic_prefix";
                    mistake
                },
            )?;
        }
        check_checkpoint(&self.checkpoint)?;
        positive("fleet.retry_after", self.fleet.retry_after)?;
        positive("fleet.session_timeout", self.fleet.session_timeout)?;
        for (setting, value) in
            [("fleet.group", &self.fleet.group), ("fleet.instance", &self.fleet.instance)]
        {
            value.as_ref().map_or(Ok(()), |value| text(setting, value))?;
        }
        for pattern in &self.fleet.databases {
            if let Err(problem) = Pattern::parse(pattern) {
                return wrong("fleet.databases", quoted(pattern), problem);
            }
        }
        if let Some(topic) = &self.dead_letter.topic {
            kafka::check_topic_prefix("dead_letter.topic", topic)?;
        }
        if self.dead_letter.held_limit == 0 {
            return wrong("dead_letter.held_limit", 0, "must be above zero");
        }
        delivery::check(self)?;
        receipts::check(self)?;
        outbox::check_retention(self)?;
        routing::check(self)?;
        schema_registry::check(self)?;
        check_pipeline(&self.pipeline)?;
        check_http(&self.http)?;
        text("log.service", &self.log.service)
    }
}

fn check_postgres(postgres: &PostgresConfig) -> Check {
    if postgres.url.expose_secret().trim().is_empty() {
        return wrong("postgres.url", "\"\"", "must be a connection string");
    }
    check_password_command(postgres)?;
    let slot = &postgres.slot;
    let legal = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_');
    if slot.is_empty() || slot.len() > IDENTIFIER_BYTES || !slot.chars().all(legal) {
        let problem =
            "PostgreSQL allows 1 to 63 lower-case letters, digits and underscores in a slot's name";
        return wrong("postgres.slot", quoted(slot), problem);
    }
    text("postgres.publication", &postgres.publication)?;
    if postgres.publication.len() > IDENTIFIER_BYTES {
        let problem = "PostgreSQL allows 63 bytes in a publication's name";
        return wrong("postgres.publication", quoted(&postgres.publication), problem);
    }
    text("postgres.message_prefix", &postgres.message_prefix)?;
    positive("postgres.status_interval", postgres.status_interval)?;
    positive("postgres.wal_receiver_timeout", postgres.wal_receiver_timeout)?;
    positive("postgres.connect_timeout", postgres.connect_timeout)?;
    positive("postgres.publication_check_interval", postgres.publication_check_interval)?;
    if postgres.retained_wal_warning.as_u64() == 0 {
        let value = size_text(postgres.retained_wal_warning);
        return wrong("postgres.retained_wal_warning", value, "must be above zero");
    }
    Ok(())
}

fn check_password_command(postgres: &PostgresConfig) -> Check {
    const NAME: &str = "postgres.password_command";
    match &postgres.password_command {
        Some(command) if command.is_empty() => wrong(NAME, "\"\"", "must name a command to run"),
        Some(_) if postgres.password.is_some() => {
            let problem = "is not run while postgres.password or its file is set: leave one out";
            wrong(NAME, "given", problem)
        }
        _ => Ok(()),
    }
}

fn check_checkpoint(checkpoint: &CheckpointConfig) -> Check {
    if checkpoint.store == StoreKind::File && checkpoint.path.as_os_str().is_empty() {
        return wrong("checkpoint.path", "\"\"", "must name the file that the store `file` writes");
    }
    positive("checkpoint.interval", checkpoint.interval)?;
    positive("checkpoint.idle_interval", checkpoint.idle_interval)
}

fn check_pipeline(pipeline: &PipelineConfig) -> Check {
    let (window, batch) = (pipeline.window, pipeline.batch);
    if batch.as_u64() == 0 {
        return wrong("pipeline.batch", size_text(batch), "must be above zero");
    }
    if window < batch {
        let problem =
            format!("must hold at least one batch (pipeline.batch = {})", size_text(batch));
        return wrong("pipeline.window", size_text(window), problem);
    }
    positive("pipeline.restart_backoff", pipeline.restart_backoff)?;
    if pipeline.restart_backoff_max < pipeline.restart_backoff {
        let least = humantime(pipeline.restart_backoff);
        let problem = format!("must not be below pipeline.restart_backoff = {least}");
        let value = humantime(pipeline.restart_backoff_max);
        return wrong("pipeline.restart_backoff_max", value, problem);
    }
    positive("pipeline.drain_timeout", pipeline.drain_timeout)
}

fn check_http(http: &HttpConfig) -> Check {
    for (setting, port) in [("health_port", http.health_port), ("metrics_port", http.metrics_port)]
    {
        if port == Some(0) {
            return wrong(format!("http.{setting}"), 0, "expected a port from 1 to 65535");
        }
    }
    if let Some(token) = &http.token {
        let token = token.expose_secret();
        if !is_token(token) {
            return wrong("http.token", REDACTED, EXPECTED_TOKEN);
        }
    }
    positive("http.stuck_after", http.stuck_after)
}

fn text(setting: &str, value: &str) -> Check {
    if value.trim().is_empty() {
        return wrong(setting, quoted(value), "must not be empty");
    }
    Ok(())
}

fn positive(setting: &str, value: Duration) -> Check {
    if value.is_zero() {
        return wrong(setting, humantime(value), "must be above zero");
    }
    Ok(())
}

pub(super) fn wrong(
    setting: impl Into<String>,
    value: impl ToString,
    problem: impl Into<String>,
) -> Check {
    let (setting, problem) = (setting.into(), problem.into());
    Err(Mistake { setting, value: Some(value.to_string()), problem })
}

fn missing(setting: &str, problem: &str) -> Check {
    Err(Mistake { setting: setting.into(), value: None, problem: problem.into() })
}

pub(super) fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn humantime(duration: Duration) -> String {
    humantime_serde::re::humantime::format_duration(duration).to_string()
}
