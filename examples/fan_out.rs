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
    let matching = |aggregate_type: &str| RouteMatch {
        aggregate_type: Some(aggregate_type.into()),
        ..Default::default()
    };
    let kinds = RouteMatch {
        // The named group is for templates.
        event_type: Some(r"/^order\.(?<what>\w+)$/".into()),
        ..matching("order")
    };
    vec![
        Route { matches: matching("test*"), drop: true, ..Default::default() },
        Route {
            matches: kinds,
            topic: vec!["{prefix}.orders.{what}".into(), "{prefix}.orders".into()],
            headers: [("tenant".to_owned(), "{metadata.tenant}".to_owned())].into(),
            format: Some(Format::Json),
            ..Default::default()
        },
        // What no route above takes; a key that no two aggregates share.
        Route {
            topic: vec!["{prefix}.{aggregate_type}".into(), "{prefix}.audit".into()],
            key: Some("{aggregate_type}/{aggregate_id}".into()),
            ..Default::default()
        },
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
