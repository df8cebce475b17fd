//! The relay inside this program, as a process of its own: plain, and with what costs something.

use actix_rt::System;
use clap::ValueEnum;
use factlib::{
    Pipeline,
    config::{Config, Route},
    handlers::{ANY, Outcome},
};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::{Result, servers::NAME};

/// What the relay has beside its defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum With {
    Nothing,
    /// Ten of them, by text, glob and expression; events go where they went without.
    Routes,
    /// One that forwards all.
    Handler,
}

/// Runs until it is asked to end by SIGTERM.
pub fn run(args: &[String]) -> Result<()> {
    let [url, slot, brokers, topic_prefix, with] = args else {
        return Err("URL SLOT BROKERS TOPIC_PREFIX WITH".into());
    };
    let with = With::from_str(with, false)?;
    let mut config = Config::default();
    config.postgres.url = url.clone().into();
    config.postgres.slot = slot.clone();
    config.postgres.publication = NAME.into();
    config.postgres.message_prefix = NAME.into();
    config.kafka.brokers = vec![brokers.clone()];
    config.kafka.topic_prefix = Some(topic_prefix.clone());
    if with == With::Routes {
        config.route = routes();
    }
    let mut builder = Pipeline::builder().config(config);
    if with == With::Handler {
        builder = builder.handler(ANY, async |_| Ok(Outcome::Forward));
    }
    System::new().block_on(async {
        let mut ended = signal(SignalKind::terminate())?;
        let pipeline = builder.start().await?;
        ended.recv().await;
        Ok(pipeline.shutdown().await?)
    })
}

fn routes() -> Vec<Route> {
    let others = (0..7).map(|n| Route::of(format!("other{n}")).to("{prefix}.elsewhere"));
    let ours = [
        Route::of("order").to("{prefix}.order"),
        Route::of("pay*").to("{prefix}.{aggregate_type}"),
        Route::of("/^(?<what>customer)$/").to("{prefix}.{what}"),
    ];
    others.chain(ours).collect()
}
