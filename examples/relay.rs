//! The smallest relay: facts of one database to Kafka, until Ctrl-C.
//!
//!     cargo run --example relay -- postgresql://postgres@localhost/shop localhost:9092

use factlib::{Pipeline, config::Config};

pub async fn relay(config: Config, stop: impl Future<Output = ()>) -> factlib::Result<()> {
    let pipeline = Pipeline::builder().config(config).start().await?;
    tokio::select! {
        // What can't get better by itself: its error names the remedy.
        ended = pipeline.wait() => ended,
        () = stop => pipeline.shutdown().await,
    }
}

#[actix_rt::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut config = Config::default();
    config.postgres.url = arguments.next().ok_or("give a connection string")?.into();
    config.kafka.brokers = arguments.collect();
    relay(config, async { drop(tokio::signal::ctrl_c().await) }).await?;
    Ok(())
}
