//! A place of one's own for the position: a table of another database.
//!
//!     cargo run --example checkpoint_store -- postgresql://postgres@localhost/shop localhost:9092 postgresql://postgres@localhost/ops

use std::sync::Arc;

use async_trait::async_trait;
use factlib::{
    Error, ErrorKind, Lsn, Pipeline, PipelineBuilder, Result,
    checkpoint::{Checkpoint, CheckpointStore},
    config::Config,
    postgres::sql,
};
use tokio::sync::Mutex;
use tokio_postgres::Client;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS relay_positions (
    slot text PRIMARY KEY, system_id text NOT NULL, timeline bigint NOT NULL, lsn text NOT NULL)";
const SAVE: &str = "INSERT INTO relay_positions VALUES ($1, $2, $3, $4)
    ON CONFLICT (slot) DO UPDATE SET (system_id, timeline, lsn) =
        (excluded.system_id, excluded.timeline, excluded.lsn)";

/// A session that is made again after it was lost.
pub struct Positions {
    url: String,
    client: Mutex<Option<Arc<Client>>>,
}

impl Positions {
    pub fn new(url: String) -> Self {
        Positions { url, client: Mutex::default() }
    }

    async fn client(&self) -> Result<Arc<Client>> {
        let mut present = self.client.lock().await;
        if let Some(client) = present.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(sql::connect_url(&self.url).await?);
        *present = Some(Arc::clone(&client));
        Ok(client)
    }
}

#[async_trait]
impl CheckpointStore for Positions {
    async fn load(&self, slot: &str) -> Result<Option<Checkpoint>> {
        let query = "SELECT system_id, timeline, lsn FROM relay_positions WHERE slot = $1";
        let row = self.client().await?.query_opt(query, &[&slot]).await.map_err(unavailable)?;
        let Some(row) = row else { return Ok(None) };
        let (system_id, timeline): (String, i64) = (row.get(0), row.get(1));
        let lsn = row.get::<_, String>(2).parse::<Lsn>().map_err(invalid)?;
        let system_id = system_id.parse().map_err(invalid)?;
        let timeline = timeline.try_into().map_err(invalid)?;
        Ok(Some(Checkpoint::new(slot, system_id, timeline, lsn)))
    }

    async fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        let Checkpoint { slot, system_id, timeline, lsn, .. } = checkpoint;
        let (system_id, timeline, lsn) =
            (system_id.to_string(), i64::from(*timeline), lsn.to_string());
        let client = self.client().await?;
        // Returns after the commit, and so after it is on the disk.
        let saved = client.execute(SAVE, &[slot, &system_id, &timeline, &lsn]).await;
        saved.map(drop).map_err(unavailable)
    }

    async fn create(&self) -> Result<()> {
        self.client().await?.batch_execute(TABLE).await.map_err(unavailable)
    }

    async fn remove(&self, slot: &str) -> Result<()> {
        let statement = "DELETE FROM relay_positions WHERE slot = $1";
        let removed = self.client().await?.execute(statement, &[&slot]).await;
        removed.map(drop).map_err(unavailable)
    }

    fn describe(&self) -> String {
        "table relay_positions of the operators' database".into()
    }
}

fn unavailable(error: tokio_postgres::Error) -> Error {
    let what = "the table relay_positions can't be used";
    Error::new(ErrorKind::CheckpointUnavailable, what).caused_by(error)
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::CheckpointInvalid, "the saved position is none").caused_by(error)
}

pub fn pipeline(config: Config, positions: String) -> PipelineBuilder {
    Pipeline::builder().config(config).store(Arc::new(Positions::new(positions)))
}

#[actix_rt::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut config = Config::default();
    config.postgres.url = arguments.next().ok_or("give a connection string")?.into();
    config.kafka.brokers = vec![arguments.next().ok_or("give a broker")?];
    let positions = arguments.next().ok_or("give the connection string of the positions")?;
    let pipeline = pipeline(config, positions).start().await?;
    tokio::signal::ctrl_c().await?;
    Ok(pipeline.shutdown().await?)
}
