//! Sessions with PostgreSQL that are hung up on, held up, or set up by others: nothing waits in
//! silence, nothing is left over in the server, and each error says whose doing it is.

mod creating;
mod held;
mod hostile;
mod lost;
mod password_command;
mod rotation;
mod saving;
mod signals;

use std::time::Duration;

use factlib::{
    PipelineHandle,
    testing::{CollectedLogs, LogLine},
};
use tokio::time::{sleep, timeout};

use crate::support::{Bed, History, Workload, bed::LIMIT};

/// Nothing signals what a status says, or a server.
const LOOK: Duration = Duration::from_millis(50);

/// Waits for a line with this message that says all of `parts`, in whatever value.
async fn says(logs: &CollectedLogs, message: &str, parts: &[&str]) -> LogLine {
    let fits = |line: &LogLine| {
        line.message == message
            && parts.iter().all(|part| line.values.iter().any(|(_, value)| value.contains(part)))
    };
    let line = logs.await_line(fits, LIMIT).await;
    line.unwrap_or_else(|| panic!("it never said {message:?} {parts:?}: {:#?}", logs.lines()))
}

/// Emits facts, whose aggregates nothing else has, and waits until they are delivered and their
/// position is confirmed.
async fn relayed(bed: &Bed<'_>, aggregates: &'static str, history: &mut History) {
    let seed = aggregates.len() as u64 * 1_000 + history.len() as u64;
    let facts = Workload { seed, aggregate_prefix: aggregates, ..Workload::new(&bed.name, 50) };
    let mut client = bed.client().await;
    // Emitters are none of what is tried here.
    let settings = "SET synchronous_commit = local; SET default_transaction_read_only = off";
    client.batch_execute(settings).await.expect("set");
    history.merge(facts.emit(&mut client).await);
    bed.delivered(history).await;
}

/// Waits until the pipeline is in a state for which this holds.
async fn until(what: &str, pipeline: &PipelineHandle, holds: impl Fn(&PipelineHandle) -> bool) {
    let waiting = async {
        while !holds(pipeline) {
            sleep(LOOK).await;
        }
    };
    let reached = timeout(LIMIT, waiting).await;
    reached.unwrap_or_else(|_| panic!("not {what}: {:#?}", pipeline.status()));
}
