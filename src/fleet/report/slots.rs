//! Asks each PostgreSQL server once about the slots of all its pipelines.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use slog::Logger;

use crate::{
    Result,
    config::Config,
    postgres::{connect, postgres_error},
};

/// Most servers that are asked at the same time, each by one connection.
const SERVERS_AT_ONCE: usize = 8;

/// Databases of a server that are tried before it counts as away.
const TRIES: usize = 3;

const LIST: &str = "\
SELECT slot_name::text, active,
       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                       ELSE pg_current_wal_lsn() END, confirmed_flush_lsn)::bigint
FROM pg_replication_slots WHERE slot_name = ANY($1)";

/// State of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotState {
    pub active: bool,
    /// WAL after its confirmed position; none while it has no position.
    pub lag_bytes: Option<u64>,
}

/// The slot of each pipeline, or the reason why it is not known.
pub(super) async fn slots(
    pipelines: &BTreeMap<String, Result<Config>>,
    log: &Logger,
) -> BTreeMap<String, Result<SlotState, String>> {
    let mut found = BTreeMap::new();
    let mut servers = BTreeMap::<String, Vec<(&String, &Config)>>::new();
    for (name, config) in pipelines {
        let config = config.as_ref().map_err(ToString::to_string);
        let server = config.and_then(|config| {
            let info = config.postgres.connect_info().map_err(|error| error.to_string())?;
            Ok((info.describe_hosts(), config))
        });
        match server {
            Ok((server, config)) => servers.entry(server).or_default().push((name, config)),
            Err(problem) => _ = found.insert(name.clone(), Err(problem)),
        }
    }
    let asking = servers.into_values().map(|pipelines| async move {
        let asked = ask(&pipelines, log).await.map_err(|error| error.to_string());
        let of = |(name, config): &(&String, &Config)| {
            let slot = &config.postgres.slot;
            let state = asked.as_ref().map_err(String::clone).and_then(|slots| {
                slots.get(slot).cloned().ok_or_else(|| format!("slot {slot} does not exist"))
            });
            ((*name).clone(), state)
        };
        pipelines.iter().map(of).collect::<Vec<_>>()
    });
    let asked = stream::iter(asking).buffer_unordered(SERVERS_AT_ONCE).collect::<Vec<_>>().await;
    found.extend(asked.into_iter().flatten());
    found
}

/// Lists the slots of one server, by way of the first of its databases that can be connected to.
async fn ask(
    pipelines: &[(&String, &Config)],
    log: &Logger,
) -> Result<BTreeMap<String, SlotState>> {
    let names: Vec<&str> =
        pipelines.iter().map(|(_, config)| config.postgres.slot.as_str()).collect();
    let mut first_failure = None;
    for (_, config) in pipelines.iter().take(TRIES) {
        match connect(&config.postgres, log).await {
            Ok(client) => {
                let failed = |error| postgres_error("cannot list the replication slots", error);
                let rows = client.query(LIST, &[&names]).await.map_err(failed)?;
                let read = |row: &tokio_postgres::Row| {
                    let lag: Option<i64> = row.try_get(2)?;
                    let lag_bytes = lag.map(|lag| u64::try_from(lag).unwrap_or_default());
                    Ok((row.try_get(0)?, SlotState { active: row.try_get(1)?, lag_bytes }))
                };
                return rows.iter().map(read).collect::<Result<_, _>>().map_err(failed);
            }
            Err(failure) => _ = first_failure.get_or_insert(failure),
        }
    }
    first_failure.map_or_else(|| Ok(BTreeMap::new()), Err)
}
