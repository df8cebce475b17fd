//! One fact, several topics: each reader gets what it can use.
//!
//!     cargo run --example fan_out -- postgresql://postgres@localhost/shop localhost:9092

use factlib::{
    Pipeline, PipelineBuilder,
    config::{Config, Format, Route, RouteMatch},
};

/// Facts about orders go as JSON to one topic of all and to one of their kind; others, as they
/// were emitted, to their usual topic and to an audit. What tests emit goes nowhere.
fn routes() -> Vec<Route> {
    // The named group is for templates.
    let orders =
        RouteMatch::default().aggregate_type("order").event_type(r"/^order\.(?<what>\w+)$/");
    vec![
        Route::of("test*").dropped(),
        Route::matching(orders)
            .to("{prefix}.orders.{what}")
            .to("{prefix}.orders")
            .header("tenant", "{metadata.tenant}")
            .format(Format::Json),
        // What no route above takes; a key that no two aggregates share.
        Route::default()
            .to("{prefix}.{aggregate_type}")
            .to("{prefix}.audit")
            .key("{aggregate_type}/{aggregate_id}"),
    ]
}

pub fn pipeline(mut config: Config) -> PipelineBuilder {
    config.route = routes();
    Pipeline::builder().config(config)
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
