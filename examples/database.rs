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
    Pipeline, PipelineBuilder, TopicBatch,
    config::Config,
    handlers::{BatchFailure, HandlerError},
    postgres::sql,
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
    /// Or why there is none.
    client: Result<Arc<Client>, String>,
}

impl Actor for Writer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let url = self.url.clone();
        let connecting = async move {
            let client = sql::connect_url(&url).await?;
            client.batch_execute(TABLE).await?;
            Ok::<_, HandlerError>(Arc::new(client))
        };
        // Batches wait in the mailbox meanwhile.
        ctx.wait(connecting.into_actor(self).map(|client, this, _| {
            this.client = client.map_err(|error| error.to_string());
        }));
    }
}

impl Handler<TopicBatch> for Writer {
    type Result = ();

    fn handle(&mut self, batch: TopicBatch, ctx: &mut Self::Context) {
        let client = match self.client.clone() {
            Ok(client) => client,
            // The batch comes again, to the next actor, after a pause.
            Err(reason) => return batch.ack.fail(BatchFailure::retry(reason)),
        };
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
                    ack.fail(BatchFailure::retry(error));
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

pub fn pipeline(config: Config, reports: String) -> PipelineBuilder {
    Pipeline::builder().config(config).without_kafka().handler_actor("user", move |_| {
        Writer { url: reports.clone(), client: Err("not connected".into()) }.start().recipient()
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
