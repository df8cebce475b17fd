//! A panic in each actor, under load: the supervisor brings it back, nothing is
//! lost, order holds, and only what was in flight, or not yet saved, comes twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use bytesize::ByteSize;
use factlib::{FaultSite, Faults};

use crate::support::{Bed, Workload};

/// The most that can be in flight, in facts: what fits into the window below,
/// each charged with its bytes and its overhead.
const IN_FLIGHT: u64 = 256 * 1024 / 300;

/// What may be acknowledged and not yet saved, in facts: saves are 10 ms apart, and
/// further on a busy machine.
const UNSAVED: u64 = IN_FLIGHT;

/// How often the actor panics.
const PANICS: u32 = 3;

/// Panics every `every`-th time that `site` is reached, [`PANICS`] times.
fn panics_at(site: FaultSite, every: u32) -> (Faults, Arc<AtomicU32>) {
    let panics = Arc::new(AtomicU32::new(0));
    let (reached, counter) = (AtomicU32::new(0), Arc::clone(&panics));
    let faults = Faults::hook(move |at| {
        if at == site
            && (reached.fetch_add(1, SeqCst) + 1).is_multiple_of(every)
            && counter.load(SeqCst) < PANICS
        {
            counter.fetch_add(1, SeqCst);
            panic!("injected at {site:?}");
        }
    });
    (faults, panics)
}

async fn survives(site: FaultSite, every: u32) {
    let mut bed = Bed::shared("panic").await;
    bed.config.pipeline.window = ByteSize::kib(256);
    bed.config.pipeline.batch = ByteSize::kib(8);
    bed.config.pipeline.restart_backoff = Duration::from_millis(10);
    bed.config.checkpoint.interval = Duration::from_millis(10);
    let (faults, panics) = panics_at(site, every);
    let pipeline = bed.pipeline().faults(faults).start().await.expect("the pipeline starts");
    let mut client = bed.client().await;
    let workload = Workload { aggregates: 100, ..Workload::new(&bed.name, 5_000) };
    let history = workload.emit(&mut client).await;
    bed.delivered(&history).await;
    bed.confirmed(bed.wal_end().await).await;
    assert_eq!(panics.load(SeqCst), PANICS, "every panic happened");
    pipeline.shutdown().await.expect("a clean stop");

    let report = bed.check(&history).await;
    assert!(report.is_clean(), "{report}");
    assert!(report.duplicates <= u64::from(PANICS) * (IN_FLIGHT + UNSAVED), "{report}");
}

#[actix::test]
async fn a_panic_in_the_wal_reader() {
    survives(FaultSite::WalReader, 7).await;
}

#[actix::test]
async fn a_panic_in_the_decoder() {
    survives(FaultSite::Decoder, 7).await;
}

#[actix::test]
async fn a_panic_in_the_router() {
    survives(FaultSite::Router, 7).await;
}

#[actix::test]
async fn a_panic_in_a_topic_producer() {
    survives(FaultSite::TopicProducer, 7).await;
}

#[actix::test]
async fn a_panic_in_the_checkpointer() {
    survives(FaultSite::Checkpointer, 7).await;
}

#[actix::test]
async fn a_panic_while_the_position_is_saved() {
    survives(FaultSite::BeforeSave, 3).await;
}

#[actix::test]
async fn a_panic_between_saved_and_confirmed() {
    survives(FaultSite::AfterSave, 3).await;
}
