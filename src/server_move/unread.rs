//! Counts the events that wait in a slot that nobody reads.

use super::end::End;
use crate::{Error, ErrorKind, Result, checkpoint::CheckpointStore, config::StoreKind};
use factlib_postgres::Slot;

/// Rows of outbox tables. $2: the publication; $3: the oids of the tables and of their partitions, since
/// a row of a partition may come under the name of its table.
const ROWS: &str = "\
SELECT count(*) FROM pg_logical_slot_peek_binary_changes($1::name, NULL, NULL,
    'proto_version', '1', 'publication_names', $2::text)
WHERE get_byte(data, 0) = 73
  AND (get_byte(data, 1)::bigint << 24) + (get_byte(data, 2) << 16) + (get_byte(data, 3) << 8)
      + get_byte(data, 4) IN (SELECT unnest($3::oid[])::bigint)";

/// Logical messages. $3: the prefix, which ends with a zero byte in the stream.
const MESSAGES: &str = "\
SELECT count(*) FROM pg_logical_slot_peek_binary_changes($1::name, NULL, NULL,
    'proto_version', '1', 'publication_names', $2::text, 'messages', 'true')
WHERE get_byte(data, 0) = 77
  AND substring(data FROM 11 FOR octet_length(convert_to($3::text, 'UTF8')) + 1)
      = convert_to($3::text, 'UTF8') || '\\x00'::bytea";

/// Counts the events that are in the slot and were not delivered. The slot must not be in use.
pub(super) async fn unread_events(end: &End, log: &slog::Logger) -> Result<u64> {
    confirm_saved(end, log).await?;
    let (slot, settings) = (end.slot_name(), &end.config.postgres);
    // A name in the option is a quoted identifier.
    let publication = postgres_protocol::escape::escape_identifier(&settings.publication);
    let rows = match end.config.outbox_tables().is_empty() {
        true => {
            let prefix = &settings.message_prefix;
            end.query(MESSAGES, &[&slot, &publication, prefix]).await?
        }
        false => end.query(ROWS, &[&slot, &publication, &end.outbox_oids().await?]).await?,
    };
    let row = rows.first().ok_or_else(|| Error::new(ErrorKind::Protocol, "a count has a row"))?;
    Ok(u64::try_from(end.column::<i64>(row, 0)?).unwrap_or_default())
}

/// Moves the slot to the saved position, if a relay was killed before it could confirm it.
async fn confirm_saved(end: &End, log: &slog::Logger) -> Result<()> {
    let Some(saved) = saved_position(end, log).await? else { return Ok(()) };
    if end.slot().await?.is_some_and(|slot| slot.is_ready() && slot.confirmed < saved) {
        Slot::advance(&end.client, end.slot_name(), saved).await?;
    }
    Ok(())
}

/// The position in the checkpoint table, if it is one of this server.
pub(super) async fn saved_position(
    end: &End,
    log: &slog::Logger,
) -> Result<Option<factlib_postgres::Lsn>> {
    if end.config.checkpoint.store != StoreKind::Postgres {
        return Ok(None);
    }
    let exists =
        "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                                 WHERE n.nspname = 'factlib' AND c.relname = 'checkpoints')";
    if !end.value::<bool>(exists).await? {
        return Ok(None);
    }
    let store: std::sync::Arc<dyn CheckpointStore> = end.startup.store(log);
    let saved = store.load(end.slot_name()).await?;
    let saved = saved.filter(|saved| saved.system_id == end.system.system_id);
    Ok(saved.map(|saved| saved.lsn))
}
