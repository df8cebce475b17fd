//! A handler between the database and Kafka: what is nobody's business does not get there.
//!
//!     cargo run --example transform -- postgresql://postgres@localhost/shop localhost:9092

use factlib::{
    Event, Pipeline, PipelineBuilder,
    config::Config,
    handlers::{HandlerError, Outcome, Record},
};

/// Facts about users go on without their e-mail address; logins do not go on at all.
async fn redact(event: &Event) -> Result<Outcome, HandlerError> {
    if event.event_type() == "user.logged_in" {
        return Ok(Outcome::Skip);
    }
    let mut user: serde_json::Value = serde_json::from_slice(&event.decode()?.payload)?;
    let Some(fields) = user.as_object_mut() else {
        return Ok(Outcome::DeadLetter("a user is a JSON object".into()));
    };
    fields.remove("email");
    let record = Record::of(event).payload(user.to_string()).header("redacted", "email");
    Ok(Outcome::Replace(vec![record]))
}

pub fn pipeline(config: Config) -> PipelineBuilder {
    Pipeline::builder().config(config).handler("user", redact)
}

#[actix_rt::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut config = Config::default();
    config.postgres.url = arguments.next().ok_or("give a connection string")?.into();
    config.kafka.brokers = arguments.collect();
    let pipeline = pipeline(config).start().await?;
    tokio::signal::ctrl_c().await?;
    Ok(pipeline.shutdown().await?)
}
