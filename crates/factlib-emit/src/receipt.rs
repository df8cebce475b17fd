//! Awaits the relay's receipt of an event, in the table where the relay keeps receipts.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, Row, types::Type};
use uuid::Uuid;

use crate::{Error, ErrorKind, Result, driver::tokio_postgres::failed};

const FIND: &str = "\
SELECT topic, fate, record_partition, record_offset, route, error
FROM factlib.receipts WHERE event_id = $1 ORDER BY at, topic LIMIT 1";

/// The first pause between two looks; each next one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// The place of a delivered event's record in Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset; none if the broker had forgotten it when it confirmed the record.
    pub offset: Option<i64>,
}

/// Waits until the relay has delivered an event to Kafka. Call it after the commit.
///
/// It is meant for tests of services, and for the rare step that has to wait for Kafka. The relay
/// must keep its receipts in the source database, with `receipts.store = "table"`, which exactly-once
/// does not allow; the user needs `USAGE` on the schema `factlib` and `SELECT` on `factlib.receipts`.
/// Of an event that goes to several topics, the first record counts.
///
/// ```no_run
/// # async fn example(client: &mut tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use factlib_emit::{Fact, delivered, emit};
///
/// let tx = client.transaction().await?;
/// let event_id = emit(&tx, Fact::new("user", "u1", "user.created")).await?;
/// tx.commit().await?;
/// let receipt = delivered(client, event_id, Duration::from_secs(10)).await?;
/// assert_eq!(receipt.topic, "factlib.user");
/// # Ok(()) }
/// ```
///
/// # Errors
/// Returns [`ErrorKind::NotDelivered`] if a route drops the event, if it is a dead letter, or if
/// there is no receipt within `limit`; the text says which. Otherwise returns PostgreSQL's error.
pub async fn delivered(client: &Client, event_id: Uuid, limit: Duration) -> Result<Receipt> {
    let (began, mut pause, id) = (Instant::now(), FIRST_PAUSE, event_id.to_string());
    loop {
        let rows = client.query_typed(FIND, &[(&id, Type::TEXT)]).await;
        let rows = rows.map_err(|error| explained(failed("cannot read the receipt", error)))?;
        if let Some(row) = rows.first() {
            return read(&id, row).map_err(|error| failed("cannot read the receipt", error))?;
        }
        if began.elapsed() >= limit {
            let what = format!("event {id} has no receipt after {limit:?}");
            return Err(Error::new(ErrorKind::NotDelivered, what)
                .remedy("is its transaction committed, and does the relay run?"));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Reads a row: the receipt, or the reason why there is no record.
fn read(id: &str, row: &Row) -> Result<Result<Receipt>, tokio_postgres::Error> {
    let (topic, fate): (String, &str) = (row.try_get(0)?, row.try_get(1)?);
    let (partition, offset): (Option<i32>, Option<i64>) = (row.try_get(2)?, row.try_get(3)?);
    if let ("delivered", Some(partition)) = (fate, partition) {
        return Ok(Ok(Receipt { topic, partition, offset }));
    }
    let (route, error): (Option<i32>, Option<&str>) = (row.try_get(4)?, row.try_get(5)?);
    let what = match (fate, route, error) {
        ("filtered", Some(route), _) => format!("route[{route}] of the relay drops event {id}"),
        ("filtered", None, _) => format!("no route of the relay takes event {id}"),
        (_, _, Some(error)) => format!("event {id} is {fate}: {error}"),
        _ => format!("event {id} is {fate}"),
    };
    Ok(Err(Error::new(ErrorKind::NotDelivered, what)))
}

fn explained(error: Error) -> Error {
    match error.sqlstate() {
        Some("42P01" | "3F000") => {
            error.remedy("let the relay keep receipts there: receipts.store = \"table\"")
        }
        Some("42501") => error
            .remedy("grant the user USAGE on the schema factlib and SELECT on factlib.receipts"),
        _ => error,
    }
}
