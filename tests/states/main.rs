//! Each row of the table in docs/monitoring.md is run: the relay is brought into that state of
//! the world, on real servers, and what it answers is held against the row's cells.
//!
//! Rows have databases, slots and proxies of their own, so that those of a kind run side by
//! side. `STATE=text` runs only the rows whose name contains the text.

#[path = "../support/mod.rs"]
mod support;

mod alerts;
mod answers;
mod delivery;
mod instances;
mod kafka;
mod position;
mod postgres;
mod publication;
mod scene;
mod table;

use std::{collections::BTreeSet, pin::Pin, time::Instant};

use self::{
    scene::Scene,
    table::{Row, table},
};

/// The name of a row, and how its state of the world is made.
type State = (&'static str, fn(Scene) -> Pin<Box<dyn Future<Output = Scene>>>);

/// Names rows and the functions that make their states.
macro_rules! states {
    ($($name:literal => $make:path,)*) => {
        &[$(($name, |scene| Box::pin($make(scene)))),*]
    };
}

const DELIVERY: &[State] = states! {
    "Facts are written" => delivery::flowing,
    "Nothing is written" => delivery::idle,
    "Only other tables are written to" => delivery::others_write,
    "A topic is paused" => delivery::paused,
    "A topic is paused, and the relay stops" => delivery::paused_while_stopping,
    "A topic is paused, and others flow" => delivery::paused_beside_others,
    "A topic is paused, and the window is full" => delivery::window_full,
    "A record is refused and parked" => delivery::parked,
    "A record is refused, with policy `block`" => delivery::refused_and_blocking,
    "A record is refused, with policy `stop`" => delivery::refused_and_stopping,
    "A handler fails again and again" => delivery::handler_fails,
};

const KAFKA: &[State] = states! {
    "Kafka is away, and facts wait" => kafka::away,
    "Kafka is away, and nothing is written" => kafka::away_at_rest,
    "Kafka is away when the relay starts" => kafka::away_at_the_start,
    "Kafka wants TLS, and the relay has none" => kafka::wants_tls,
    "Kafka wants a login, and the relay has none" => kafka::wants_a_login,
    "Kafka advertises a name without an address" => kafka::names_nowhere,
    "Kafka is silent, and facts wait" => kafka::silent,
    "A topic is missing, and may not be created" => kafka::topic_missing,
    "A topic needs more replicas than there are brokers" => kafka::topic_lacks_brokers,
    "The relay has no right to a topic" => kafka::topic_not_allowed,
    "Kafka is slow" => kafka::slow,
    "The schema registry is away" => kafka::registry_away,
};

const POSTGRES: &[State] = states! {
    "PostgreSQL is away" => postgres::away,
    "PostgreSQL is away when the relay starts" => postgres::away_at_the_start,
    "PostgreSQL is silent" => postgres::silent,
    "The relay's walsender stands still" => postgres::walsender_still,
    "A transaction is open at the first start" => postgres::writer_at_the_first_start,
    "PostgreSQL is slow" => postgres::slow,
    "PostgreSQL has no connection to spare" => postgres::full,
    "PostgreSQL refuses the login" => postgres::refuses_the_login,
    "The slot was dropped" => postgres::slot_dropped,
    "A transaction of others stays open" => postgres::open_transaction,
};

const PUBLICATION: &[State] = states! {
    "A table has left the publication" => publication::without_a_table,
    "A row filter is on a table of the publication" => publication::filtered,
};

const POSITION: &[State] = states! {
    "The checkpoint table is locked" => position::locked,
    "The checkpoint table is gone" => position::gone,
    "A synchronous standby does not answer" => position::standby_silent,
    "The checkpoint file's folder is gone" => position::folder_gone,
    "Old rows can't be removed" => position::rows_kept,
};

const INSTANCES: &[State] = states! {
    "Another instance reads the slot" => instances::standing_by,
    "The relay was asked to stop" => instances::stopped,
    "The process is gone" => instances::gone,
};

#[test]
fn each_row_has_a_state_and_each_state_a_row() {
    let rows = table();
    let named: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(named.len(), rows.len(), "a row is there twice");
    let states = [DELIVERY, KAFKA, POSTGRES, PUBLICATION, POSITION, INSTANCES].concat();
    let made: BTreeSet<&str> = states.iter().map(|(name, _)| *name).collect();
    assert_eq!(named, made);
    assert!(rows.len() >= 25, "{}", rows.len());
}

#[actix_rt::test]
async fn states_of_delivery() {
    hold(DELIVERY).await;
}

#[actix_rt::test]
async fn states_of_kafka() {
    hold(KAFKA).await;
}

#[actix_rt::test]
async fn states_of_postgres() {
    hold(POSTGRES).await;
}

#[actix_rt::test]
async fn states_of_the_publication() {
    hold(PUBLICATION).await;
}

#[actix_rt::test]
async fn states_of_the_position() {
    hold(POSITION).await;
}

#[actix_rt::test]
async fn states_of_instances() {
    hold(INSTANCES).await;
}

/// Runs these states side by side; the rows that do not hold are named together.
async fn hold(states: &[State]) {
    let chosen = std::env::var("STATE").unwrap_or_default();
    let rows = table();
    let mut running = Vec::new();
    for (name, make) in states.iter().filter(|(name, _)| name.contains(&chosen)) {
        let row = rows.iter().find(|row| row.name == *name);
        let row = row.unwrap_or_else(|| panic!("docs/monitoring.md has no row {name:?}")).clone();
        running.push((*name, actix_rt::spawn(run(row, *make))));
    }
    let mut failed = Vec::new();
    for (name, row) in running {
        if row.await.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "rows that do not hold: {failed:#?}");
}

async fn run(row: Row, make: fn(Scene) -> Pin<Box<dyn Future<Output = Scene>>>) {
    let scene = Scene::new().await;
    let begin = Instant::now();
    let scene = make(scene).await;
    scene.holds(&row).await;
    println!("{}: {:.1?}", row.name, begin.elapsed());
}
