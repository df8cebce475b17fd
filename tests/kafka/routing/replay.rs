//! A replay goes by the routes: what they drop stays away, and each of several topics gets
//! all, marked and in order.

use factlib::{
    config::{ARCHIVE_TABLE, Route},
    emit::{Emitter, schema},
    replay::{Archive, REPLAY_HEADER, Replayer, Selection},
    testing::{read_topic, topic_names},
};
use slog::{Discard, Logger, o};

use super::{history::delivered, route};
use crate::support::{Bed, Workload, bed::PARTITIONS, history::Checker};

#[actix::test]
async fn what_was_relayed_by_routes_is_replayed_by_them() {
    let mut bed = Bed::shared("replayed").await;
    let copy = format!("{}-copy", bed.name);
    let copied = format!("{copy}.{{aggregate_type}}");
    bed.config.route =
        vec![Route::of("noise*").dropped(), route("*", &["{prefix}.{aggregate_type}", &copied])];
    let mut client = bed.client().await;
    let table = schema::outbox_table("outbox_events").expect("a name");
    client.batch_execute(&table).await.expect("the table");
    let emitter = Emitter::archive(&bed.name, "outbox_events");
    let of = |kinds: &[&str]| Workload {
        aggregate_types: kinds.iter().map(|kind| kind.to_string()).collect(),
        ..Workload::new(&bed.name, 200)
    };
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let history = of(&["user", "order"]).emit_by(&emitter, &mut client).await;
    of(&["noise"]).emit_by(&emitter, &mut client).await;
    for prefix in [&bed.name, &copy] {
        delivered(&bed, prefix, &history).await;
    }
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");

    let log = Logger::root(Discard, o!());
    let archive = Archive::open(&bed.config, ARCHIVE_TABLE, &Selection::default(), &log).await;
    let mut archive = archive.expect("the archive");
    let mut replayer = Replayer::new(&bed.config, "run", None, &log).expect("a replayer");
    while let Some(row) = archive.next().await.expect("a row") {
        let event = row.event.as_ref().expect("an event");
        let records = replayer.records(event).expect("a route");
        replayer.send(&row, &records).await.expect("sent");
    }
    replayer.finish().await.expect("all is there");
    assert_eq!(replayer.replayed(), 2 * history.len() as u64, "a record for each topic");

    let bootstrap = bed.kafka.admin_bootstrap();
    for prefix in [&bed.name, &copy] {
        let mut checker = Checker::new(&history, prefix, Some(PARTITIONS));
        for kind in history.aggregate_types() {
            let topic = format!("{prefix}.{kind}");
            let records = read_topic(&bootstrap, &topic).await.expect("a topic");
            let marked = records.iter().filter(|record| record.header(REPLAY_HEADER).is_some());
            marked.for_each(|record| checker.record(record));
        }
        // The mark makes its headers others than the relay's.
        let report = checker.report();
        let wrong = (report.lost, report.phantom, report.order_violations, report.duplicates);
        assert_eq!(wrong, (0, 0, 0, 0), "{report}");
    }
    let names = topic_names(&bootstrap).await.expect("names");
    assert!(!names.contains(&format!("{}.noise", bed.name)));
}
