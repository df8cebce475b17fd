//! The shadow: factlib's records of rows, compared with those that the real Debezium sends of them.

use std::time::Duration;

use factlib::{
    takeover::debezium::{ConfigMapping, ConnectorConfig, Shadow, ShadowOptions},
    testing::{KafkaServer, PostgresServer},
};
use futures_util::future::join_all;
use slog::{Discard, Logger, o};

use crate::{
    shapes,
    support::{
        Result,
        peer::Debezium,
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
        let postgres = PostgresServer::builder()
            .setting("max_connections", "400")
            .setting("wal_sender_timeout", "10min")
            .start()
            .await?;
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
    let all: Vec<_> = shapes.iter().map(options).collect();
    let reports = join_all(shadows.into_iter().zip(&all).map(|(shadow, of)| shadow.run(of)));
    let insert = async {
        for shape in shapes {
            shape.insert(&servers.sql).await?;
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    let (inserted, reports) = tokio::join!(insert, reports);
    inserted?;
    let mut problems = Vec::new();
    for (shape, report) in shapes.iter().zip(reports) {
        let report = report?;
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

/// Starts Kafka Connect with a connector for each shape, and compares.
async fn with_kafka_connect(servers: &Servers, shapes: &[Shape]) -> Result<Debezium> {
    for shape in shapes {
        shape.create(&servers.sql).await?;
    }
    let connectors: Vec<_> = shapes
        .iter()
        .map(|shape| (shape.name.to_owned(), shape.properties(&servers.place)))
        .collect();
    let debezium = Debezium::connect(&servers.place.brokers, &connectors)?;
    let properties = |shape: &Shape| shape.properties(&servers.place);
    let problems = compare(servers, shapes, &debezium, properties).await?;
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(debezium)
}

#[actix::test]
async fn records_equal_those_of_debezium_in_a_few_shapes() -> Result<()> {
    let mut shapes = shapes::all();
    shapes.retain(|shape| shapes::FEW.contains(&shape.name));
    let servers = Servers::start().await?;
    let debezium = with_kafka_connect(&servers, &shapes).await?;
    let shape = shapes.iter().find(|shape| shape.name == "partitioned").expect("it is there");
    let (code, said) = by_command(&servers, &debezium, shape, &[]).await?;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("5 rows, 5 records, 5 equal in every byte\n"), "{said}");

    // A configuration whose records differ.
    let (path, worker) =
        (debezium.folder().join("wrong.toml"), debezium.folder().join("worker.properties"));
    let connector = ConnectorConfig::read(&debezium.folder().join("partitioned.properties"))?;
    let toml = ConfigMapping::of(&connector.with_worker(&worker)?).toml;
    let toml = toml.replace("partition = \"shard\"", "headers = [\"type\"]");
    std::fs::write(&path, toml)?;
    let path = path.display().to_string();
    let (code, said) = by_command(&servers, &debezium, shape, &["--factlib", &path]).await?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("headers: 5\n") && said.contains("Debezium id\n"), "{said}");
    Ok(())
}

/// Inserts the rows of a shape while the command compares; its exit code, and what it printed.
async fn by_command(
    servers: &Servers,
    debezium: &Debezium,
    shape: &Shape,
    more: &[&str],
) -> Result<(Option<i32>, String)> {
    let file = |name: &str| debezium.folder().join(name).display().to_string();
    let (config, worker) = (file(&format!("{}.properties", shape.name)), file("worker.properties"));
    let rows = shape.rows.len().to_string();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_factlib"));
    command.args(["takeover", "debezium", "--config", &config, "--worker", &worker, "--shadow"]);
    command.args(["--rows", &rows, "--log-level", "error"]).args(more);
    command.env_clear().current_dir(debezium.folder()).stdin(std::process::Stdio::null());
    let running = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let running = running.kill_on_drop(true).spawn()?;
    let insert = async {
        let query = "SELECT count(*) FROM pg_replication_slots \
                     WHERE active AND slot_name LIKE 'factlib_tail_%'";
        while servers.sql.query_one(query, &[]).await?.get::<_, i64>(0) == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        shape.insert(&servers.sql).await
    };
    let both = async { tokio::join!(running.wait_with_output(), insert) };
    let (output, inserted) = tokio::time::timeout(Duration::from_secs(120), both).await?;
    let (output, ()) = (output?, inserted?);
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
}

#[actix::test]
#[ignore = "minutes: make takeover"]
async fn records_equal_those_of_debezium_in_all_shapes() -> Result<()> {
    let mut shapes = shapes::all();
    if let Ok(only) = std::env::var("SHAPES") {
        shapes.retain(|shape| only.split(',').any(|name| shape.name == name));
    }
    with_kafka_connect(&Servers::start().await?, &shapes).await.map(drop)
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
