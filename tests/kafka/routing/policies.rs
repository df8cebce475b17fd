//! What becomes of events that no route takes, or that a route can't send.

use factlib::{
    ErrorKind, Event,
    config::{Format, Route, Unrouted},
    emit::Fact,
    handlers::{ANY, HandlerError, Outcome, Record},
    testing::topic_names,
};

use super::{emit, header, records, route};
use crate::support::{Bed, bed::LIMIT};

async fn bed(name: &str, unrouted: Unrouted) -> Bed<'static> {
    let mut bed = Bed::shared(name).await;
    bed.config.route = vec![route("order", &["{prefix}.orders"])];
    bed.config.kafka.unrouted = unrouted;
    bed
}

fn facts() -> [Fact; 3] {
    [("order", "1"), ("user", "2"), ("order", "3")].map(|(kind, id)| Fact::new(kind, id, "done"))
}

#[actix::test]
async fn what_is_ignored_is_done_and_counted() {
    let bed = bed("ignored", Unrouted::Ignore).await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    emit(&bed, &facts()).await;
    records(&bed, &format!("{}.orders", bed.name), 2).await;
    // Also where nothing else is in its transaction, nor behind it.
    emit(&bed, &[Fact::new("user", "4", "done")]).await;
    bed.confirmed(bed.wal_end().await).await;
    assert_eq!(pipeline.status().events_filtered, 2);
    pipeline.shutdown().await.expect("a clean stop");
    let names = topic_names(&bed.kafka.admin_bootstrap()).await.expect("names");
    assert!(!names.contains(&format!("{}.user", bed.name)));
}

#[actix::test]
async fn what_no_route_takes_may_be_parked() {
    let bed = bed("parked", Unrouted::DeadLetter).await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    emit(&bed, &facts()).await;
    records(&bed, &format!("{}.orders", bed.name), 2).await;
    let letters = records(&bed, &bed.config.dead_letter_topic(), 1).await;
    assert!(header(&letters[0], "dead_letter_error").starts_with("no [[route]] takes an event"));
    assert_eq!(letters[0].key.as_deref(), Some(&b"2"[..]));
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn what_no_route_takes_may_end_the_relay_and_is_not_lost() {
    let mut bed = bed("stopped", Unrouted::Stop).await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    emit(&bed, &facts()).await;
    let end = bed.wal_end().await;
    let ended = tokio::time::timeout(LIMIT, pipeline.wait()).await.expect("it ends");
    let error = ended.expect_err("with an error");
    assert_eq!(error.kind(), ErrorKind::RecordRefused);
    assert!(error.to_string().contains("kafka.unrouted"), "{error}");
    assert!(bed.slot().await.0 < end);
    drop(pipeline);
    bed.config.route.push(route("user", &[]));
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    records(&bed, &format!("{}.user", bed.name), 1).await;
    records(&bed, &format!("{}.orders", bed.name), 2).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn a_partition_or_a_topic_that_does_not_exist_is_a_dead_letter_and_the_others_flow() {
    let mut bed = Bed::shared("no_place").await;
    let mut route = route("order", &["{prefix}.{event_type}"]);
    route.partition = Some("{metadata.shard}".into());
    bed.config.route = vec![route];
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let fact = |id: &str, event_type: &str, shard: &str| {
        Fact::new("order", id, event_type).metadata("shard", shard)
    };
    let facts = [
        fact("a", "done", "4"),
        fact("b", "done", "99"),
        fact("c", "not legal", "1"),
        fact("d", "done", "x"),
        Fact::new("order", "e", "done"),
        fact("f", "done", "0"),
    ];
    emit(&bed, &facts).await;
    let mut sent = records(&bed, &format!("{}.done", bed.name), 2).await;
    sent.sort_by(|a, b| a.key.cmp(&b.key));
    let places: Vec<_> = sent.iter().map(|r| (r.key.as_deref(), r.partition)).collect();
    assert_eq!(places, [(Some(&b"a"[..]), 4), (Some(&b"f"[..]), 0)]);
    let letters = records(&bed, &bed.config.dead_letter_topic(), 4).await;
    for (key, why) in [
        ("b", "no partition 99"),
        ("c", "not allowed"),
        ("d", "is not a number"),
        ("e", "it has no metadata shard"),
    ] {
        let letter = letters.iter().find(|letter| letter.key.as_deref() == Some(key.as_bytes()));
        let error = header(letter.expect("its letter"), "dead_letter_error");
        assert!(error.contains(why), "{key}: {error}");
    }
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn what_a_handler_forwards_is_routed_and_what_is_dropped_behind_it_is_done() {
    async fn forward(event: &Event) -> Result<Outcome, HandlerError> {
        Ok(match event.event_type() {
            "named" => Outcome::Replace(vec![Record::of(event).topic(event.aggregate_id())]),
            _ => Outcome::Forward,
        })
    }

    let mut bed = Bed::shared("behind_handlers").await;
    bed.config.kafka.format = Format::Raw;
    bed.config.route =
        vec![Route::of("noise").dropped(), route("order", &["{prefix}.a", "{prefix}.b"]).key("k")];
    let pipeline = bed.pipeline().handler(ANY, forward).start().await.expect("it starts");
    let named = format!("{}.named", bed.name);
    let facts = [
        Fact::new("noise", "1", "done").payload("x"),
        Fact::new("order", "2", "done").payload("x"),
        Fact::new("order", &named, "named").payload("x"),
    ];
    emit(&bed, &facts).await;
    for topic in ["a", "b"] {
        let sent = records(&bed, &format!("{}.{topic}", bed.name), 1).await.remove(0);
        assert_eq!(
            (sent.key.as_deref(), sent.value.as_deref()),
            (Some(&b"k"[..]), Some(&b"x"[..]))
        );
    }
    // The handler names the topic; only the format of all is left to say.
    let sent = records(&bed, &named, 1).await.remove(0);
    assert_eq!(sent.key.as_deref(), Some(named.as_bytes()));
    assert_eq!(sent.value.as_deref(), Some(&b"x"[..]));
    // Nothing is left of the last batch behind the handler: it is done all the same.
    emit(&bed, &[Fact::new("noise", "3", "done")]).await;
    bed.confirmed(bed.wal_end().await).await;
    assert_eq!(pipeline.status().events_filtered, 2);
    pipeline.shutdown().await.expect("a clean stop");
}
