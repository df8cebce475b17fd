//! Held events that were redriven: taken off their line, and noted in `factlib.redriven`.

use std::time::SystemTime;

use super::{
    super::{letter::LetterPosition, record::kept_text, schema},
    lines::{HeldLines, unreadable},
};
use crate::Result;

/// The table's `topic` for held events: no topic can have a name with a colon. Two relays may hold
/// the same event, so it has the slot.
const REDRIVEN: &str = "\
WITH gone AS (
    DELETE FROM factlib.held_events WHERE slot = $1 AND id = ANY ($2)
    RETURNING slot, id, event_id, held_at
)
INSERT INTO factlib.redriven (topic, partition, record_offset, parked_ms, event_id, redriven_to)
SELECT 'held:' || slot, -1, id, (extract(epoch FROM held_at) * 1000)::bigint, event_id, $3
FROM gone
ON CONFLICT (topic, partition, record_offset, parked_ms) DO NOTHING";

const OF_EVENT: &str = "\
SELECT record_offset, parked_ms, redriven_to, redriven_at FROM factlib.redriven
WHERE topic = 'held:' || $1::text AND event_id = $2 ORDER BY redriven_at, record_offset";

/// A held event that was redriven.
pub(crate) struct RedrivenHeld {
    pub position: LetterPosition,
    /// Time since when it was held, Unix milliseconds.
    pub held_ms: i64,
    /// Topics that it was sent to.
    pub to: String,
    pub at: SystemTime,
}

impl HeldLines {
    /// Makes sure that redriven events can be noted, before anything is sent.
    pub(in crate::dead_letter) async fn ensure_redriven(&self) -> Result<()> {
        let prepared = schema::ensure(&self.connection, self.create).await;
        match prepared.map_err(|error| self.failed(error))? {
            true => Ok(()),
            false => Err(schema::missing()),
        }
    }

    /// Takes events that Kafka has acknowledged off their lines, and notes where they went: both or
    /// neither, so that none is in no place.
    pub(in crate::dead_letter) async fn redriven(
        &self,
        positions: &[LetterPosition],
        to: &str,
    ) -> Result<()> {
        let ids: Vec<_> = positions.iter().map(|position| position.offset).collect();
        let noted = self.connection.run(REDRIVEN, &[&self.slot, &ids, &to]).await;
        noted.map(drop).map_err(|error| self.failed(error))
    }

    /// The redrives of an event that was held: one for each topic that it waited for.
    pub(crate) async fn redriven_of(&self, event_id: &str) -> Result<Vec<RedrivenHeld>> {
        let rows = self.connection.run(OF_EVENT, &[&self.slot, &kept_text(event_id)]).await;
        let rows = match rows {
            Err(error) if error.is_missing_table() => return Ok(Vec::new()),
            rows => rows.map_err(|error| self.failed(error))?,
        };
        let read = |row: &tokio_postgres::Row| -> Result<_, tokio_postgres::Error> {
            Ok(RedrivenHeld {
                position: LetterPosition::held(row.try_get(0)?),
                held_ms: row.try_get(1)?,
                to: row.try_get(2)?,
                at: row.try_get(3)?,
            })
        };
        rows.iter().map(|row| read(row).map_err(unreadable)).collect()
    }
}
