//! A relay whose events go nowhere, as a process of its own.

use std::{io::Read, time::Duration};

use actix_rt::System;
use factlib::{
    Pipeline,
    config::{Config, StoreKind},
};
use tokio::time::sleep;

use crate::{Result, servers::NAME};

/// What it says when the last event has come; it ends when its input does.
pub const DONE: &str = "done";

/// Once a batch is often enough: the status is a few counters.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

pub fn run(args: &[String]) -> Result<()> {
    let [url, slot, prefix, facts, source] = args else {
        return Err("URL SLOT PREFIX FACTS SOURCE".into());
    };
    let mut config = Config::default();
    config.postgres.url = url.clone().into();
    config.postgres.slot = slot.clone();
    config.postgres.publication = NAME.into();
    config.postgres.message_prefix = prefix.clone();
    if source == "tables" {
        config.postgres.source = Some(factlib::config::Source::Tables);
    }
    config.checkpoint.store = StoreKind::Memory;
    let facts: u64 = facts.parse()?;
    System::new().block_on(async {
        let pipeline = Pipeline::builder().config(config).discard().start().await?;
        while pipeline.status().events < facts {
            sleep(LOOK_INTERVAL).await;
        }
        println!("{DONE}");
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        Ok(pipeline.shutdown().await?)
    })
}
