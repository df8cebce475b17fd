//! What it costs to emit: facts per second by driver and mode, against a bare INSERT of
//! the same bytes through tokio-postgres in the same run. `make bench-emit`.
//!
//! A short turn of the bare INSERT comes before each turn of a way, and what counts is the
//! median of their ratios: a machine that is busy for a while is busy for both. The server
//! has `fsync = off`, as a commit otherwise costs more than all that is compared here.

use std::time::{Duration, Instant};

use diesel_async::{AsyncConnection, AsyncPgConnection};
use factlib::{
    emit::{Emitter, Fact, schema},
    testing::PostgresServer,
};
use prost::Message;
use sqlx::{Connection, PgConnection};
use tokio_postgres::{Client, types::Type};

const TURN: Duration = Duration::from_millis(250);
const PAYLOAD: usize = 300;
const BARE: &str = "INSERT INTO bare (bytes) SELECT * FROM unnest($1::bytea[])";

/// One connection of each kind.
struct Connections {
    tokio: Client,
    deadpool: deadpool_postgres::Client,
    sqlx: PgConnection,
    diesel: AsyncPgConnection,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Bare,
    Tokio,
    Deadpool,
    Sqlx,
    Diesel,
}

fn facts(count: usize) -> Vec<Fact> {
    let payload = vec![b'x'; PAYLOAD];
    let fact = |n| Fact::new("user", format!("u{n}"), "user.created").payload(payload.clone());
    (0..count).map(fact).collect()
}

impl Connections {
    /// One transaction with these facts.
    async fn emit(&mut self, way: Way, emitter: &Emitter, facts: &[Fact]) {
        match way {
            Way::Bare => {
                let tx = self.tokio.transaction().await.expect("begun");
                let event = |fact: &Fact| fact.to_event().expect("valid").encode_to_vec();
                let bytes: Vec<Vec<u8>> = facts.iter().map(event).collect();
                tx.query_typed(BARE, &[(&bytes, Type::BYTEA_ARRAY)]).await.expect("inserted");
                tx.commit().await.expect("committed");
            }
            Way::Tokio => {
                let tx = self.tokio.transaction().await.expect("begun");
                emitter.emit_all(&tx, facts).await.expect("emitted");
                tx.commit().await.expect("committed");
            }
            Way::Deadpool => {
                let tx = self.deadpool.transaction().await.expect("begun");
                emitter.emit_all(&tx, facts).await.expect("emitted");
                tx.commit().await.expect("committed");
            }
            Way::Sqlx => {
                let mut tx = self.sqlx.begin().await.expect("begun");
                emitter.emit_all(&mut tx, facts).await.expect("emitted");
                tx.commit().await.expect("committed");
            }
            Way::Diesel => {
                let done = self.diesel.transaction(async |connection| {
                    emitter.emit_all(connection, facts).await.expect("emitted");
                    Ok::<_, diesel::result::Error>(())
                });
                done.await.expect("committed");
            }
        }
    }

    /// Facts a second in one turn.
    async fn turn(&mut self, way: Way, emitter: &Emitter, batch: usize) -> f64 {
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed() < TURN {
            self.emit(way, emitter, &facts(batch)).await;
            count += batch;
        }
        count as f64 / start.elapsed().as_secs_f64()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // Cargo passes --bench.
    let rounds = std::env::var("REPEATS").ok().and_then(|n| n.parse().ok()).unwrap_or(7);
    let server = PostgresServer::start().await.expect("a server");
    let mut connections = connections(&server).await;
    let message = || Emitter::new("factlib");
    let mut ways = vec![("bare INSERT again", "-", Way::Bare, message())];
    for (driver, way) in [
        ("tokio-postgres", Way::Tokio),
        ("deadpool-postgres", Way::Deadpool),
        ("sqlx", Way::Sqlx),
        ("diesel-async", Way::Diesel),
    ] {
        ways.push((driver, "message", way, message()));
        ways.push((driver, "table", way, Emitter::table("outbox_events")));
        ways.push((driver, "archive", way, Emitter::archive("factlib", "outbox_events")));
    }
    // Of each way, one by one and in batches: rates, and ratios to the bare turn before.
    let mut measured = vec![[(); 2].map(|()| (Vec::new(), Vec::new())); ways.len()];
    for _ in 0..rounds {
        for (column, batch) in [1, 100].into_iter().enumerate() {
            for ((_, _, way, emitter), measured) in ways.iter().zip(&mut measured) {
                let bare = connections.turn(Way::Bare, emitter, batch).await;
                let rate = connections.turn(*way, emitter, batch).await;
                measured[column].0.push(rate);
                measured[column].1.push(rate / bare);
            }
            let empty = "TRUNCATE bare, outbox_events; CHECKPOINT";
            connections.tokio.batch_execute(empty).await.expect("empty again");
        }
    }
    println!(
        "| driver | mode | one by one, facts/s | of bare | batches of 100, facts/s | of bare |"
    );
    println!("| --- | --- | ---: | ---: | ---: | ---: |");
    for ((driver, mode, ..), measured) in ways.iter().zip(measured) {
        let [one, many] = measured.map(|(rates, ratios)| (median(rates), median(ratios)));
        println!(
            "| {driver} | {mode} | {:.0} | {:.2} | {:.0} | {:.2} |",
            one.0, one.1, many.0, many.1
        );
    }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

async fn connections(server: &PostgresServer) -> Connections {
    let url = server.url();
    let tokio = factlib::postgres::sql::connect_url(&url).await.expect("connected");
    let tables = schema::outbox_table("outbox_events").expect("a name")
        + "CREATE TABLE bare (id bigserial PRIMARY KEY, bytes bytea)";
    tokio.batch_execute(&tables).await.expect("tables");
    let mut config = deadpool_postgres::Config::new();
    config.url = Some(url.clone());
    let runtime = Some(deadpool_postgres::Runtime::Tokio1);
    let pool = config.create_pool(runtime, tokio_postgres::NoTls).expect("a pool");
    Connections {
        tokio,
        deadpool: pool.get().await.expect("connected"),
        sqlx: PgConnection::connect(&url).await.expect("connected"),
        diesel: AsyncPgConnection::establish(&url).await.expect("connected"),
    }
}
