//! The shadow: factlib's records of rows, compared with those that the real Debezium sends of them.

use std::time::Duration;

use factlib::{
    takeover::debezium::{Shadow, ShadowOptions},
    testing::{KafkaServer, PostgresServer},
};
use slog::{Discard, Logger, o};

use crate::{
    shapes,
    support::{
        Result,
        peer::{Debezium, is_installed},
        shape::{Place, Shape},
    },
};

/// Name of the database.
const DATABASE: &str = "shop";

struct Servers {
    _postgres: PostgresServer,
    _kafka: KafkaServer,
    sql: tokio_postgres::Client,
    place: Place,
}

impl Servers {
    async fn start() -> Result<Self> {
        let postgres = PostgresServer::builder().setting("max_connections", "400").start().await?;
        let kafka = KafkaServer::builder().start().await?;
        postgres.execute("postgres", &format!("CREATE DATABASE {DATABASE}")).await?;
        let sql = postgres.connect(DATABASE).await?;
        let place = Place {
            postgres_port: postgres.port(),
            database: DATABASE.into(),
            brokers: kafka.bootstrap(),
        };
        Ok(Servers { _postgres: postgres, _kafka: kafka, sql, place })
    }
}

fn options(shape: &Shape) -> ShadowOptions {
    let mut options = ShadowOptions::default();
    options.rows = shape.rows.len() as u64;
    options.patience = Duration::from_secs(60);
    options
}

/// Compares the records of these shapes, and returns what differs.
async fn compare(
    servers: &Servers,
    shapes: &[Shape],
    debezium: &Debezium,
    properties: impl Fn(&Shape) -> String,
) -> Result<Vec<String>> {
    let slots: Vec<String> = shapes.iter().map(|shape| shape.name.to_owned()).collect();
    debezium.reads(&servers.sql, &slots).await?;
    let log = Logger::root(Discard, o!());
    let mut shadows = Vec::new();
    for shape in shapes {
        let config = shape.config(&properties(shape), &servers.place.brokers)?;
        let shadow = Shadow::open(&config, &log).await;
        shadows.push(shadow.map_err(|error| format!("{}: {error}", shape.name))?);
    }
    for shape in shapes {
        shape.insert(&servers.sql).await?;
    }
    let mut problems = Vec::new();
    for (shape, shadow) in shapes.iter().zip(shadows) {
        let report = shadow.run(&options(shape)).await?;
        let rows = shape.rows.len() as u64;
        if report.records != rows {
            problems.push(format!("{}: {} records of {rows} rows", shape.name, report.records));
        }
        let mut differing = 0;
        for difference in &report.differences {
            differing += 1;
            if !difference.known.is_some_and(|known| shape.known.contains(&known)) {
                problems.push(format!("{}: {difference:?}", shape.name));
            }
        }
        if report.equal + differing < rows {
            problems.push(format!("{}: {} of {rows} are equal", shape.name, report.equal));
        }
    }
    if !problems.is_empty() {
        problems.push(debezium.complaints());
    }
    Ok(problems)
}

/// Compares with Kafka Connect, a connector for each shape.
async fn with_kafka_connect(shapes: &[Shape]) -> Result<()> {
    let servers = Servers::start().await?;
    for shape in shapes {
        shape.create(&servers.sql).await?;
    }
    let connectors: Vec<_> = shapes
        .iter()
        .map(|shape| (shape.name.to_owned(), shape.properties(&servers.place)))
        .collect();
    let debezium = Debezium::connect(&servers.place.brokers, &connectors)?;
    let properties = |shape: &Shape| shape.properties(&servers.place);
    let problems = compare(&servers, shapes, &debezium, properties).await?;
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

#[actix::test]
async fn records_equal_those_of_debezium_in_a_few_shapes() -> Result<()> {
    if !is_installed() {
        eprintln!("Debezium is not installed: scripts/bootstrap --compare");
        return Ok(());
    }
    let mut shapes = shapes::all();
    shapes.retain(|shape| shapes::FEW.contains(&shape.name));
    with_kafka_connect(&shapes).await
}

#[actix::test]
#[ignore = "minutes: make takeover"]
async fn records_equal_those_of_debezium_in_all_shapes() -> Result<()> {
    let mut shapes = shapes::all();
    if let Ok(only) = std::env::var("SHAPES") {
        shapes.retain(|shape| only.split(',').any(|name| shape.name == name));
    }
    with_kafka_connect(&shapes).await
}

#[actix::test]
#[ignore = "minutes: make takeover"]
async fn records_equal_those_of_debezium_server() -> Result<()> {
    let shape = Shape {
        name: "of_server",
        columns: ", tenant text",
        inserted: "payload, tenant",
        router: "table.fields.additional.placement=type:header:eventType,tenant:header",
        rows: &[
            r#"'Order', '1', 'placed', '{"a": "é"}', 'x'"#,
            "'Order', '2', 'placed', '{}', 'té\"xt'",
        ],
        ..Shape::default()
    };
    let servers = Servers::start().await?;
    shape.create(&servers.sql).await?;
    let folder = tempfile::tempdir()?;
    let properties = shape.server_properties(&servers.place, folder.path());
    let debezium = Debezium::server(&properties)?;
    let problems = compare(&servers, &[shape], &debezium, |_| properties.clone()).await?;
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}
