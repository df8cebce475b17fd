//! Waits for what the status of a pipeline says.

use std::time::Duration;

use factlib::{PipelineHandle, PipelineStatus};
use tokio::time::{sleep, timeout};

use super::bed::LIMIT;

/// Waits for a status; nothing signals it.
pub async fn until(pipeline: &PipelineHandle, what: &str, fits: impl Fn(&PipelineStatus) -> bool) {
    let waiting = async {
        while !fits(&pipeline.status()) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = timeout(LIMIT, waiting).await;
    waited.unwrap_or_else(|_| panic!("{what}: {:#?}", pipeline.status()));
}
