//! A sink of one's own in place of Kafka: every event becomes a line of a file.
//!
//!     cargo run --example record_sink -- postgresql://postgres@localhost/shop events.jsonl

use std::path::PathBuf;

use factlib::{
    Event, Pipeline, PipelineBuilder,
    config::Config,
    handlers::{ANY, EventHandler, HandlerError, Outcome},
};
use serde_json::json;
use tokio::{fs::OpenOptions, io::AsyncWriteExt};

/// Opened for each event: simple, not fast.
struct Lines(PathBuf);

impl EventHandler for Lines {
    async fn handle(&self, event: &Event) -> Result<Outcome, HandlerError> {
        let line = json!({
            "id": event.id(),
            "type": event.event_type(),
            "about": format!("{}/{}", event.aggregate_type(), event.aggregate_id()),
            "payload": String::from_utf8(event.decode()?.payload.to_vec())?,
        });
        let mut file = OpenOptions::new().create(true).append(true).open(&self.0).await?;
        file.write_all(format!("{line}\n").as_bytes()).await?;
        // Only now PostgreSQL may forget it.
        file.sync_data().await?;
        Ok(Outcome::Skip)
    }
}

pub fn pipeline(config: Config, file: PathBuf) -> PipelineBuilder {
    let builder = Pipeline::builder().config(config).without_kafka();
    builder.event_handler(ANY, move || Lines(file.clone()))
}

#[actix_rt::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut config = Config::default();
    config.postgres.url = arguments.next().ok_or("give a connection string")?.into();
    let file = arguments.next().ok_or("give a file")?;
    let pipeline = pipeline(config, file.into()).start().await?;
    tokio::signal::ctrl_c().await?;
    Ok(pipeline.shutdown().await?)
}
