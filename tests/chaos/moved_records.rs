//! Judges topics whose aggregates move between partitions, and topics whose earlier records are gone.

use std::collections::HashMap;

use factlib::{
    Lsn,
    testing::{ConsumedRecord, each_record},
};
use uuid::Uuid;

use crate::support::{Bed, History, Report, history::Checker};

/// Reads the topics of the history and holds them against it. Records of `ignored` do not count.
///
/// An aggregate may have records in several partitions. Then its records of each partition have to
/// be in order, and all those of one partition before all those of the next.
pub async fn check(bed: &Bed<'_>, history: &History, ignored: &History) -> Report {
    let bootstrap = bed.kafka.admin_bootstrap();
    let mut runs: HashMap<(String, Vec<u8>, i32), Vec<ConsumedRecord>> = HashMap::new();
    let mut checker = Checker::new(history, bed.config.topic_prefix(), None);
    checker.confirmed(bed.slot().await.0);
    for topic in bed.topics(history) {
        let take = |record: ConsumedRecord| {
            let id = header(&record, "event_id").and_then(|id| Uuid::parse_str(&id).ok());
            if !id.is_some_and(|id| ignored.has(&id)) {
                let key = record.key.as_deref().unwrap_or_default().to_vec();
                runs.entry((topic.clone(), key, record.partition)).or_default().push(record);
            }
        };
        each_record(&bootstrap, &topic, take).await.expect("a readable topic");
    }
    let mut runs: Vec<_> = runs.into_values().collect();
    runs.sort_by_key(|run| position(&run[0]));
    runs.iter().flatten().for_each(|record| checker.record(record));
    checker.report()
}

fn header(record: &ConsumedRecord, name: &str) -> Option<String> {
    record.header(name).map(|value| String::from_utf8_lossy(value).into_owned())
}

/// The position of the record's event in the WAL.
fn position(record: &ConsumedRecord) -> Option<Lsn> {
    header(record, "LSN")?.parse().ok()
}
