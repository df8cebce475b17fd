//! A handler actor that writes events into a database, each exactly once by its event id,
//! and needs no Kafka.
//!
//! The table's primary key remembers which events are in: what comes again after a crash
//! changes nothing. A batch is one statement, and so all of it or nothing.
//!
//!     cargo run --example database -- postgresql://postgres@localhost/shop postgresql://postgres@localhost/reports

use std::sync::Arc;

use actix::ActorFutureExt;
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, WrapFuture, fut};
use factlib::{
    Error, ErrorKind, Pipeline, PipelineBuilder, TopicBatch, config::Config, postgres::sql,
};
use tokio_postgres::Client;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS users_seen (
    event_id text PRIMARY KEY, user_id text NOT NULL, what text NOT NULL)";
const INSERT: &str =
    "INSERT INTO users_seen SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
    ON CONFLICT (event_id) DO NOTHING";

/// One session; batches are written one after the other, in order.
struct Writer {
    url: String,
    client: Option<Arc<Client>>,
}

impl Actor for Writer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let url = self.url.clone();
        let connecting = async move {
            let client = sql::connect_url(&url).await?;
            client.batch_execute(TABLE).await.map_err(unavailable)?;
            Ok::<_, Error>(Arc::new(client))
        };
        // Batches wait in the mailbox meanwhile. Without a session the actor ends, and with it
        // the batches, which come again to the next one after a pause.
        ctx.wait(connecting.into_actor(self).map(|client, this, ctx| match client {
            Ok(client) => this.client = Some(client),
            Err(_) => ctx.stop(),
        }));
    }
}

impl Handler<TopicBatch> for Writer {
    type Result = ();

    fn handle(&mut self, batch: TopicBatch, ctx: &mut Self::Context) {
        let Some(client) = self.client.clone() else { return };
        let TopicBatch { events, ack, .. } = batch;
        let writing = async move {
            let ids: Vec<&str> = events.iter().map(|event| event.id()).collect();
            let users: Vec<&str> = events.iter().map(|event| event.aggregate_id()).collect();
            let what: Vec<&str> = events.iter().map(|event| event.event_type()).collect();
            match client.execute(INSERT, &[&ids, &users, &what]).await {
                Ok(_) => {
                    ack.ack();
                    true
                }
                Err(error) => {
                    ack.fail(unavailable(error));
                    false
                }
            }
        };
        // The next batch after this one. A lost session: the next actor has another.
        ctx.wait(writing.into_actor(self).then(|written, _, ctx: &mut Context<Self>| {
            if !written {
                ctx.stop();
            }
            fut::ready(())
        }));
    }
}

fn unavailable(error: tokio_postgres::Error) -> Error {
    Error::new(ErrorKind::PostgresUnavailable, "the reports can't be written").caused_by(error)
}

pub fn pipeline(config: Config, reports: String) -> PipelineBuilder {
    Pipeline::builder().config(config).without_kafka().handler_actor("user", move |_| {
        Writer { url: reports.clone(), client: None }.start().recipient()
    })
}

#[actix_rt::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut config = Config::default();
    config.postgres.url = arguments.next().ok_or("give the facts' connection string")?.into();
    let reports = arguments.next().ok_or("give the reports' connection string")?;
    let pipeline = pipeline(config, reports).start().await?;
    tokio::signal::ctrl_c().await?;
    Ok(pipeline.shutdown().await?)
}
