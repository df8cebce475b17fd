//! The position is saved in time, however busy the pipeline is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use factlib::{FaultSite, Faults};
use tokio::time::{sleep, timeout};

use super::{relayed, until};
use crate::support::{Bed, History, Workload, bed::LIMIT};

#[actix::test]
async fn a_chain_that_has_no_moment_does_not_hold_a_save_up() {
    let mut bed = Bed::shared("busy").await;
    bed.config.checkpoint.interval = Duration::from_secs(3);
    bed.config.checkpoint.idle_interval = Duration::from_secs(3);
    // From its switch on, whatever comes to the router keeps its thread busy.
    let busy = Arc::new(AtomicBool::new(false));
    let (armed, held) = (Arc::clone(&busy), Arc::new(AtomicBool::new(false)));
    let reached = Arc::clone(&held);
    let faults = Faults::hook(move |site| {
        while site == FaultSite::Router && armed.load(SeqCst) {
            reached.store(true, SeqCst);
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let pipeline = bed.pipeline().faults(faults).start().await.expect("it starts");
    let mut history = History::default();
    relayed(&bed, "a", &mut history).await;
    bed.confirmed(bed.wal_end().await).await;
    relayed(&bed, "bb", &mut history).await;
    let end = bed.wal_end().await;
    until("delivered", &pipeline, |pipeline| pipeline.status().delivered_lsn >= end).await;
    assert!(pipeline.status().saved_lsn < end, "the interval has not passed");
    busy.store(true, SeqCst);
    let more = Workload { seed: 9, aggregate_prefix: "c", ..Workload::new(&bed.name, 10) };
    history.merge(more.emit(&mut bed.client().await).await);
    until("busy", &pipeline, |_| held.load(SeqCst)).await;
    let saved = async {
        while bed.saved().await.is_none_or(|saved| saved < end) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = timeout(Duration::from_secs(20), saved).await;
    busy.store(false, SeqCst);
    in_time.expect("it is saved while the chain is busy");
    bed.delivered(&history).await;
    timeout(LIMIT, pipeline.shutdown()).await.expect("in time").expect("a clean stop");
    bed.drop_slot().await;
}
