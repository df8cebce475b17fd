//! What is refused is parked as it was emitted, and comes back as its route says.

use factlib::{
    Event,
    config::{Format, Route, Unrouted},
    dead_letter::{DeadLetterTopic, Ledger, Letter, LetterFilter, Redriver},
    emit::Fact,
    handlers::{HandlerError, Outcome, Record},
    testing::create_topic,
};
use prost::Message;
use slog::{Discard, Logger, o};

use super::{emit, header, records, route};
use crate::support::Bed;

/// Nothing that compression makes small.
fn noise(words: u32) -> Vec<u8> {
    (0..words).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

async fn letters(bed: &Bed<'_>) -> Vec<Letter> {
    let log = Logger::root(Discard, o!());
    let topic = DeadLetterTopic::open(&bed.config, &log).await.expect("Kafka is there");
    let mut topic = topic.expect("the topic is there");
    let (mut letters, mut all) = (topic.letters(LetterFilter::default()), Vec::new());
    while let Some(letter) = letters.next().await.expect("a letter") {
        all.push(letter);
    }
    all
}

async fn redrive(bed: &Bed<'_>, to: Option<&str>) -> factlib::Result<()> {
    let log = Logger::root(Discard, o!());
    let mut ledger = Ledger::open(&bed.config, &log).await?;
    let mut redriver = Redriver::builder(&bed.config, &log).to_topic(to.map(Into::into)).build()?;
    for letter in letters(bed).await {
        let resent = redriver.resent(&letter, &ledger).await?;
        redriver.send(&letter, &resent, &mut ledger).await?;
    }
    Ok(())
}

#[actix::test]
async fn of_a_fan_out_only_what_was_refused_is_parked_and_redriven_in_its_format() {
    let mut bed = Bed::shared("refused_raw").await;
    let narrow = format!("{}.narrow", bed.name);
    let bootstrap = bed.kafka.admin_bootstrap();
    let limit = [("max.message.bytes", "20000")];
    create_topic(&bootstrap, &narrow, 3, &limit).await.expect("a topic");
    bed.config.route = vec![
        route("thing", &["{prefix}.narrow", "{prefix}.wide"])
            .format(Format::Raw)
            .key("{aggregate_type}/{aggregate_id}")
            .header("tenant", "{metadata.tenant}"),
    ];
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let fact = |id: &str, payload: Vec<u8>| {
        Fact::new("thing", id, "grew").payload(payload).metadata("tenant", "acme")
    };
    let facts = [fact("a", b"small".to_vec()), fact("b", noise(10_000)), fact("c", b"x".to_vec())];
    let events = emit(&bed, &facts).await;
    records(&bed, &narrow, 2).await;
    records(&bed, &format!("{}.wide", bed.name), 3).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");

    let parked = letters(&bed).await;
    assert_eq!(parked.len(), 1, "{parked:?}");
    assert_eq!(parked[0].source_topic(), Some(narrow.as_str()));
    assert!(parked[0].is_kept_in_table());
    let client = bed.client().await;
    let kept = client.query_one("SELECT bytes FROM factlib.dead_letters", &[]).await;
    let bytes = kept.expect("a row").get::<_, Vec<u8>>(0);
    assert_eq!(bytes, events[1].encode_to_vec(), "the event as it was emitted");

    bed.set_limit(&narrow, "2000000").await;
    redrive(&bed, None).await.expect("redriven");
    let all = records(&bed, &narrow, 3).await;
    records(&bed, &format!("{}.wide", bed.name), 3).await;
    let redriven = all.iter().find(|record| record.header("redriven_from").is_some());
    let redriven = redriven.expect("the redriven one");
    assert_eq!(redriven.value.as_deref(), Some(&noise(10_000)[..]), "the payload alone");
    assert_eq!(redriven.key.as_deref(), Some(&b"thing/b"[..]));
    assert_eq!(header(redriven, "tenant"), "acme");
    assert_eq!(header(redriven, "event_id"), events[1].id);
    assert_eq!(header(redriven, "aggregate_id"), "b");
}

#[actix::test]
async fn what_no_route_took_goes_by_the_routes_of_now() {
    let mut bed = Bed::shared("unrouted").await;
    bed.config.kafka.unrouted = Unrouted::DeadLetter;
    bed.config.route = vec![route("order", &[])];
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let fact = Fact::new("thing", "7", "grew").payload("x");
    let events = emit(&bed, &[fact.clone(), fact]).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");

    let text = redrive(&bed, None).await.expect_err("still no route").to_string();
    assert!(text.contains("no [[route]] takes an event \"grew\""), "{text}");
    assert!(text.contains("add a [[route]]") && text.contains("--to-topic"), "{text}");
    bed.config.route.push(route("thing", &["{prefix}.a", "{prefix}.b"]).format(Format::Raw));
    redrive(&bed, None).await.expect("redriven");
    for topic in ["a", "b"] {
        let sent = records(&bed, &format!("{}.{topic}", bed.name), 2).await;
        for (record, event) in sent.iter().zip(&events) {
            assert_eq!(record.value.as_deref(), Some(&b"x"[..]));
            assert_eq!(header(record, "event_id"), event.id);
        }
    }
    // Where no route is needed, it goes where such events go now.
    bed.config.route.clear();
    bed.config.kafka.unrouted = Unrouted::Default;
    redrive(&bed, None).await.expect("redriven");
    records(&bed, &format!("{}.thing", bed.name), 2).await;
}

/// Events that belong to a handler, and what that makes of them.
async fn keep_back(event: &Event) -> Result<Outcome, HandlerError> {
    Ok(match event.event_type() {
        "grew" => Outcome::DeadLetter("it is not redacted".into()),
        _ => Outcome::Replace(vec![Record::of(event).topic("no topic").payload("redacted")]),
    })
}

#[actix::test]
async fn what_a_handler_refused_or_could_not_send_does_not_go_past_it_unasked() {
    for event_type in ["grew", "moved"] {
        let mut bed = Bed::shared("of_handler").await;
        bed.config.route = vec![route("thing", &["{prefix}.things"])];
        let pipeline = bed.pipeline().handler("thing", keep_back).start().await;
        let pipeline = pipeline.expect("it starts");
        emit(&bed, &[Fact::new("thing", "7", event_type)]).await;
        bed.confirmed(bed.wal_end().await).await;
        pipeline.shutdown().await.expect("a clean stop");

        for routes in [true, false] {
            if !routes {
                bed.config.route.clear();
            }
            let text = redrive(&bed, None).await.expect_err("refused").to_string();
            assert!(text.contains("it belongs to a handler"), "{text}");
            assert!(text.contains("--to-topic") && !text.contains("[[route]]"), "{text}");
        }
        let to = format!("{}.checked", bed.name);
        redrive(&bed, Some(&to)).await.expect("redriven");
        let sent = records(&bed, &to, 1).await.remove(0);
        assert_eq!(sent.header("dead_letter_handler"), None);
    }
}

#[actix::test]
async fn what_no_route_sends_where_it_was_refused_needs_a_topic() {
    let mut bed = Bed::shared("rerouted").await;
    let narrow = format!("{}.narrow", bed.name);
    let bootstrap = bed.kafka.admin_bootstrap();
    let limit = [("max.message.bytes", "20000")];
    create_topic(&bootstrap, &narrow, 1, &limit).await.expect("a topic");
    bed.config.route = vec![route("thing", &["{prefix}.narrow"])];
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    emit(&bed, &[Fact::new("thing", "a", "grew").payload(noise(10_000))]).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");

    // The route was changed since; it is not guessed what was meant.
    bed.config.route = vec![route("thing", &["{prefix}.other"]).format(Format::Raw)];
    let error = redrive(&bed, None).await.expect_err("refused");
    assert!(Redriver::is_final_for_letter(&error));
    let text = error.to_string();
    assert!(text.contains("narrow, and goes to") && text.contains("--to-topic"), "{text}");
    bed.config.route[0] = Route::of("thing").dropped();
    let text = redrive(&bed, None).await.expect_err("refused").to_string();
    assert!(text.contains("its route drops it now"), "{text}");

    let other = format!("{}.other", bed.name);
    bed.config.route = vec![route("thing", &["{prefix}.other"]).format(Format::Raw)];
    redrive(&bed, Some(&other)).await.expect("redriven");
    let sent = records(&bed, &other, 1).await;
    assert_eq!(sent[0].value.as_deref(), Some(&noise(10_000)[..]));
}
