//! Handlers on the real servers: what they do wrong loses nothing and keeps the order.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use actix::{Actor, Context, Handler};
use factlib::{
    ErrorKind, Event, FaultSite, Faults, PipelineHandle, PipelineState, Refused, TopicBatch,
    config::RefusalPolicy,
    emit::{Emitter, Fact},
    handlers::{ANY, BatchFailure, EventHandler, HandlerError, HandlerOptions, Outcome, Record},
    proto::OutboxEvent,
    testing::{ConsumedRecord, read_topic, wait_for_count},
};
use prost::Message;
use tokio::sync::watch;

use crate::support::{
    Bed, History, Report, Workload, bed::LIMIT, history::Checker, records::header,
};

fn patient() -> HandlerOptions {
    let first = Duration::from_millis(1);
    HandlerOptions::default().tries(3).backoff(first, Duration::from_millis(5))
}

/// Of an ordered delivery of all, whatever the handler changed.
fn complete(report: &Report) -> bool {
    (report.lost, report.phantom, report.order_violations) == (0, 0, 0)
}

/// A fact of the aggregate `odd`, which the workload does not have.
async fn emit(bed: &Bed<'_>, event_type: &str) -> OutboxEvent {
    let mut client = bed.client().await;
    let transaction = client.transaction().await.expect("a transaction");
    let fact = Fact::new("user", "odd", event_type);
    Emitter::new(bed.name.clone()).emit(&transaction, &fact).await.expect("emitted");
    transaction.commit().await.expect("a commit");
    fact.to_event().expect("valid")
}

async fn records(bed: &Bed<'_>, topic: &str, count: usize) -> Vec<ConsumedRecord> {
    let bootstrap = bed.kafka.admin_bootstrap();
    wait_for_count(&bootstrap, &[topic], count, LIMIT).await.expect("records");
    read_topic(&bootstrap, topic).await.expect("a topic")
}

#[actix::test]
async fn a_handler_transforms_splits_and_drops() {
    let bed = Bed::shared("transform").await;
    let split = format!("{}.split", bed.name);
    let topic = split.clone();
    let builder = bed.pipeline().handler("user", async move |event: &Event| {
        Ok(match event.event_type() {
            "split" => Outcome::Replace(vec![
                Record::of(event).topic(topic.as_str()).id("first").header("n", "1"),
                Record::of(event).topic(topic.as_str()).id("second").key("other"),
            ]),
            "drop" => Outcome::Skip,
            "hopeless" => Outcome::DeadLetter("not today".into()),
            "nowhere" => Outcome::Replace(vec![Record::of(event).topic("no topic")]),
            _ => Outcome::Replace(vec![Record::of(event).payload("redacted")]),
        })
    });
    let pipeline = builder.start().await.expect("the pipeline starts");
    let history = Workload::new(&bed.name, 500).emit(&mut bed.client().await).await;
    for event_type in ["split", "drop", "hopeless", "nowhere"] {
        emit(&bed, event_type).await;
    }
    bed.delivered(&history).await;
    let two = records(&bed, &split, 2).await;
    let mut ids: Vec<_> = two.iter().map(|record| header(record, "event_id")).collect();
    ids.sort();
    assert_eq!(ids, ["first", "second"]);
    assert!(two.iter().any(|record| record.key.as_deref() == Some(b"other")));
    let letters = records(&bed, &bed.config.dead_letter_topic(), 2).await;
    let errors: Vec<_> = letters.iter().map(|letter| header(letter, "dead_letter_error")).collect();
    assert!(errors.iter().any(|error| error.contains("not today")), "{errors:?}");
    assert!(errors.iter().any(|error| error.contains("no legal topic name")), "{errors:?}");
    pipeline.shutdown().await.expect("a clean stop");
    let user = format!("{}.user", bed.name);
    for record in records(&bed, &user, 1).await {
        let event = OutboxEvent::decode(record.value.expect("a value")).expect("an event");
        assert_eq!(&event.payload[..], b"redacted");
    }
    // Its own records and the letters apart, whose ids the history does not know.
    let mut checker = Checker::new(&history, &bed.name, None);
    for topic in bed.topics(&history) {
        records(&bed, &topic, 1).await.iter().for_each(|record| checker.record(record));
    }
    let report = checker.report();
    assert!(complete(&report) && report.duplicates == 0, "{report}");
}

/// Panics once for each event of `once`; always, hangs or fails for others.
#[derive(Default)]
struct Troubled {
    seen: Arc<Mutex<HashSet<String>>>,
}

impl EventHandler for Troubled {
    async fn handle(&self, event: &Event) -> Result<Outcome, HandlerError> {
        match event.event_type() {
            "panics" => panic!("as it always does"),
            "hangs" => std::future::pending().await,
            "fails" => Err("no such thing".into()),
            "later" if self.seen.lock().unwrap().insert(event.id().into()) => {
                Ok(Outcome::RetryLater(Duration::from_millis(1)))
            }
            _ if event.lsn().as_u64().is_multiple_of(7)
                && self.seen.lock().unwrap().insert(event.id().into()) =>
            {
                panic!("once")
            }
            _ => Ok(Outcome::Forward),
        }
    }
}

#[actix::test]
async fn panics_hangs_and_errors_end_in_dead_letters_and_lose_and_repeat_nothing() {
    let bed = Bed::shared("troubled").await;
    let (seen, made) = (Arc::new(Mutex::new(HashSet::new())), Arc::new(AtomicUsize::new(0)));
    let (remembered, count) = (Arc::clone(&seen), Arc::clone(&made));
    let make = move || {
        count.fetch_add(1, SeqCst);
        Troubled { seen: Arc::clone(&remembered) }
    };
    let options = patient().timeout(Duration::from_millis(200)).concurrency(4);
    let builder = bed.pipeline().event_handler_with("user", options, make);
    let pipeline = builder.start().await.expect("the pipeline starts");
    let mut history = Workload::new(&bed.name, 300).emit(&mut bed.client().await).await;
    for event_type in ["panics", "hangs", "fails"] {
        emit(&bed, event_type).await;
    }
    // Behind them, of the same aggregate.
    history.committed(&emit_as(&bed, "later").await);
    bed.delivered(&history).await;
    let letters = records(&bed, &bed.config.dead_letter_topic(), 3).await;
    for (event_type, reason) in [
        ("panics", "panicked: as it always does"),
        ("hangs", "did not end in 200ms"),
        ("fails", "no such thing"),
    ] {
        let letter = letters.iter().find(|l| header(l, "event_type") == event_type);
        let error = header(letter.expect("a letter"), "dead_letter_error");
        assert!(error.contains("failed 3 times") && error.contains(reason), "{error}");
    }
    let panics = seen.lock().unwrap().len() - 1;
    assert!(panics > 0, "none of {} positions", history.len());
    assert!(made.load(SeqCst) >= panics, "made again after a panic");
    pipeline.shutdown().await.expect("a clean stop");
    let mut checker = Checker::new(&history, &bed.name, None);
    for topic in bed.topics(&history) {
        records(&bed, &topic, 1).await.iter().for_each(|record| checker.record(record));
    }
    let report = checker.report();
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

/// The same, and the fact as it was emitted.
async fn emit_as(bed: &Bed<'_>, event_type: &str) -> OutboxEvent {
    let mut client = bed.client().await;
    let transaction = client.transaction().await.expect("a transaction");
    let fact = Fact::new("user", "odd", event_type);
    let event = fact.to_event().expect("valid");
    let emit = "SELECT pg_logical_emit_message(true, $1, $2::bytea)";
    let bytes = event.encode_to_vec();
    transaction.execute(emit, &[&bed.name, &bytes]).await.expect("emitted");
    transaction.commit().await.expect("a commit");
    event
}

/// The aggregates whose events are being handled now.
#[derive(Clone, Default)]
struct Busy {
    now: Arc<Mutex<HashSet<String>>>,
    most: Arc<AtomicUsize>,
    collisions: Arc<AtomicUsize>,
}

/// One of them; also a call that is dropped has ended.
struct Call<'a>(&'a Busy, &'a Event);

impl Busy {
    fn call<'a>(&'a self, event: &'a Event) -> Call<'a> {
        let mut now = self.now.lock().unwrap();
        let alone = now.insert(event.aggregate_id().to_owned());
        self.collisions.fetch_add(usize::from(!alone), SeqCst);
        self.most.fetch_max(now.len(), SeqCst);
        Call(self, event)
    }

    /// A handler whose later events are quicker than earlier ones; one in three awaits nothing.
    fn handler(
        &self,
        most_us: u64,
    ) -> impl AsyncFn(&Event) -> Result<Outcome, HandlerError> + use<> {
        let busy = self.clone();
        async move |event: &Event| {
            let _call = busy.call(event);
            // Positions are multiples of eight.
            let at = event.lsn().as_u64() / 8;
            if !at.is_multiple_of(3) {
                tokio::time::sleep(Duration::from_micros((at * 8) % most_us)).await;
            }
            Ok(Outcome::Forward)
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.now.lock().unwrap().remove(self.1.aggregate_id());
    }
}

#[actix::test]
async fn a_slow_handler_keeps_the_order_of_each_aggregate_and_handles_several_at_once() {
    let bed = Bed::shared("slow").await;
    let busy = Busy::default();
    let options = patient().concurrency(8);
    let builder = bed.pipeline().handler_with(ANY, options, busy.handler(3_000));
    let pipeline = builder.start().await.expect("the pipeline starts");
    let history = Workload::new(&bed.name, 1_000).emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    pipeline.shutdown().await.expect("a clean stop");
    assert_eq!((busy.most.load(SeqCst), busy.collisions.load(SeqCst)), (8, 0));
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[actix::test]
async fn a_chain_that_starts_again_has_no_two_calls_for_one_aggregate() {
    let mut bed = Bed::shared("chain").await;
    bed.config.pipeline.batch = bytesize::ByteSize::kib(8);
    bed.config.pipeline.restart_backoff = Duration::from_millis(5);
    let (busy, reached) = (Busy::default(), AtomicUsize::new(0));
    // In the router, while calls are under way.
    let faults = Faults::hook(move |at| {
        if at == FaultSite::Router && [5, 15, 30].contains(&reached.fetch_add(1, SeqCst)) {
            panic!("injected");
        }
    });
    // Long enough to be at work when the next chain is there.
    let builder = bed.pipeline().faults(faults);
    let builder = builder.handler_with(ANY, patient().concurrency(8), busy.handler(20_000));
    let pipeline = builder.start().await.expect("the pipeline starts");
    let history = Workload::new(&bed.name, 1_000).emit(&mut bed.client().await).await;
    bed.confirmed(bed.wal_end().await).await;
    assert_eq!(pipeline.status().restarts["router"], 3);
    pipeline.shutdown().await.expect("a clean stop");
    assert_eq!(busy.collisions.load(SeqCst), 0);
    let report = bed.check(&history).await;
    assert!(report.is_clean(), "{report}");
}

#[actix::test]
async fn a_pipeline_that_dies_in_the_middle_has_its_events_handled_again_in_order() {
    let bed = Bed::shared("dies").await;
    let (handled, mut handling) = watch::channel(0);
    let handled = Arc::new(handled);
    let start = async || {
        let handled = Arc::clone(&handled);
        let handler = async move |_: &Event| {
            tokio::task::yield_now().await;
            handled.send_modify(|count| *count += 1);
            Ok(Outcome::Forward)
        };
        bed.pipeline().handler_with(ANY, patient().concurrency(3), handler).start().await
    };
    let pipeline = start().await.expect("the pipeline starts");
    let mut history = Workload::new(&bed.name, 1_000).emit(&mut bed.client().await).await;
    handling.wait_for(|count| *count > 300).await.expect("handled");
    drop(pipeline);
    let more = Workload { aggregate_prefix: "b", ..Workload::new(&bed.name, 200) };
    history.merge(more.emit(&mut bed.client().await).await);
    let pipeline = start().await.expect("the pipeline starts again");
    let end = bed.wal_end().await;
    bed.confirmed(end).await;
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean(), "{report}");
}

#[actix::test]
async fn without_kafka_handlers_are_the_end_of_the_line() {
    let mut bed = Bed::shared("sink").await;
    bed.config.kafka.brokers = vec!["127.0.0.1:1".into()];
    let got: Arc<Mutex<HashMap<String, Vec<u64>>>> = Arc::default();
    let sink = Arc::clone(&got);
    let handler = async move |event: &Event| {
        let payload: serde_json::Value = serde_json::from_slice(&event.decode()?.payload)?;
        let sequence = payload["sequence"].as_u64().ok_or("no sequence")?;
        sink.lock().unwrap().entry(event.aggregate_id().into()).or_default().push(sequence);
        Ok(Outcome::Skip)
    };
    let builder = bed.pipeline().without_kafka().handler_with("user", patient(), handler.clone());
    let builder = builder.handler("order", handler.clone()).handler("invoice", handler.clone());
    let pipeline = builder.start().await.expect("no broker is asked for");
    let history = Workload::new(&bed.name, 500).emit(&mut bed.client().await).await;
    // Without a payload, and of a type that nobody handles.
    emit(&bed, "odd").await;
    let client = bed.client().await;
    let other = Fact::new("other", "o1", "e").to_event().expect("valid").encode_to_vec();
    let emit = "SELECT pg_logical_emit_message(true, $1, $2::bytea)";
    client.execute(emit, &[&bed.name, &other]).await.expect("emitted");
    bed.confirmed(bed.wal_end().await).await;
    let status = pipeline.status();
    assert_eq!((status.events, status.dead_letters), (502, 2));
    pipeline.shutdown().await.expect("a clean stop");
    let got = std::mem::take(&mut *got.lock().unwrap());
    assert_eq!(got.values().map(Vec::len).sum::<usize>(), history.len());
    assert!(got.values().all(|sequences| sequences.iter().copied().eq(0..sequences.len() as u64)));
    let query = "SELECT error FROM factlib.dead_letters WHERE slot = $1 ORDER BY lsn";
    let rows = client.query(query, &[&bed.name]).await.expect("the table");
    let errors: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(errors[0].contains("failed 3 times"), "{errors:?}");
    assert!(errors[1].contains("no handler ends with events of \"other\""), "{errors:?}");
}

/// Panics at its first batch; the next one of it forwards all.
struct Bare {
    panics: bool,
}

impl Actor for Bare {
    type Context = Context<Self>;
}

impl Handler<TopicBatch> for Bare {
    type Result = ();

    fn handle(&mut self, batch: TopicBatch, _: &mut Self::Context) {
        assert!(!self.panics, "as actors of users may");
        batch.ack.hand_on(batch.events.iter().map(Record::of).collect(), Vec::new());
    }
}

#[actix::test]
async fn an_actor_of_the_users_is_made_again_and_gets_what_it_did_not_answer_for() {
    let bed = Bed::shared("bare").await;
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let builder = bed.pipeline().handler_actor("user", move |_| {
        Bare { panics: count.fetch_add(1, SeqCst) < 2 }.start().recipient()
    });
    let pipeline = builder.start().await.expect("the pipeline starts");
    let history = Workload::new(&bed.name, 500).emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    assert_eq!(made.load(SeqCst), 3);
    assert_eq!(pipeline.status().topics["handler:user"].restarts, 1);
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

/// Panics at every batch with a certain event in it.
struct Allergic;

impl Actor for Allergic {
    type Context = Context<Self>;
}

impl Handler<TopicBatch> for Allergic {
    type Result = ();

    fn handle(&mut self, batch: TopicBatch, _: &mut Self::Context) {
        assert!(batch.events.iter().all(|event| event.event_type() != "poison"), "as always");
        batch.ack.hand_on(batch.events.iter().map(Record::of).collect(), Vec::new());
    }
}

#[actix::test]
async fn an_event_that_an_actor_always_panics_at_is_parked_and_all_else_goes_on_in_order() {
    let bed = Bed::shared("allergic").await;
    let make = |_: &_| Allergic.start().recipient();
    let builder = bed.pipeline().handler_actor_with("user", patient(), make);
    let pipeline = builder.start().await.expect("the pipeline starts");
    let mut history = Workload::new(&bed.name, 200).emit(&mut bed.client().await).await;
    // In one transaction, and so in one batch.
    let mut client = bed.client().await;
    let transaction = client.transaction().await.expect("a transaction");
    for event_type in ["before", "poison", "behind", "poison", "last"] {
        let fact = Fact::new("user", "odd", event_type);
        Emitter::new(bed.name.clone()).emit(&transaction, &fact).await.expect("emitted");
        if event_type != "poison" {
            history.committed(&fact.to_event().expect("valid"));
        }
    }
    transaction.commit().await.expect("a commit");
    let later = Workload { aggregate_prefix: "later-", ..Workload::new(&bed.name, 200) };
    history.merge(later.emit(&mut bed.client().await).await);
    bed.delivered(&history).await;
    let letters = records(&bed, &bed.config.dead_letter_topic(), 2).await;
    assert_eq!(pipeline.status().dead_letters, 2);
    pipeline.shutdown().await.expect("a clean stop");
    let mut checker = Checker::new(&history, &bed.name, None);
    for topic in bed.topics(&history) {
        records(&bed, &topic, 1).await.iter().for_each(|record| checker.record(record));
    }
    let report = checker.report();
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
    for letter in &letters {
        assert_eq!(header(letter, "event_type"), "poison");
        let error = header(letter, "dead_letter_error");
        assert!(error.contains("its handler failed 3 times"), "{error}");
    }
}

#[actix::test]
async fn a_handler_that_blocks_its_thread_is_named_by_health_and_loses_nothing() {
    let mut bed = Bed::shared("blocking").await;
    bed.config.http.stuck_after = Duration::from_millis(500);
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Mutex::new(released);
    let handler = async move |_: &Event| {
        // Until the test lets go of the other end.
        let _ = released.lock().unwrap().recv();
        Ok(Outcome::Forward)
    };
    let options = patient().timeout(Duration::from_millis(10));
    let builder = bed.pipeline().handler_with("user", options, handler);
    let pipeline = builder.start().await.expect("the pipeline starts");
    let users = Workload { aggregate_types: vec!["user".into()], ..Workload::new(&bed.name, 50) };
    let others = Workload { aggregate_types: vec!["order".into()], seed: 2, ..users.clone() };
    let mut history = users.emit(&mut bed.client().await).await;
    let flowing = others.emit(&mut bed.client().await).await;
    bed.delivered(&flowing).await;

    let app = actix_web::App::new().service(pipeline.routes().scope("/relay"));
    let app = actix_web::test::init_service(app).await;
    let unhealthy = async {
        loop {
            let asking = actix_web::test::TestRequest::get().uri("/relay/healthz").to_request();
            let answer = actix_web::test::call_service(&app, asking).await;
            if answer.status() == 503 {
                break actix_web::test::read_body(answer).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let said = tokio::time::timeout(LIMIT, unhealthy).await.expect("health follows progress");
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("topic handler:user (open), undelivered events: 50"), "{said}");

    drop(release);
    history.merge(flowing);
    bed.delivered(&history).await;
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[actix::test]
async fn a_paused_topic_waits_while_others_flow_and_goes_on_in_order() {
    let bed = Bed::shared("paused").await;
    let user = format!("{}.user", bed.name);
    let builder = bed.pipeline().pause_topic(user.as_str());
    let pipeline: PipelineHandle = builder.start().await.expect("the pipeline starts");
    let mut states = pipeline.subscribe();
    assert_eq!(*states.borrow_and_update(), PipelineState::Running);
    let other = Workload { aggregate_types: vec!["order".into()], ..Workload::new(&bed.name, 200) };
    let kept =
        Workload { aggregate_types: vec!["user".into()], seed: 2, ..Workload::new(&bed.name, 200) };
    let mut history = kept.emit(&mut bed.client().await).await;
    let flowing = other.emit(&mut bed.client().await).await;
    bed.delivered(&flowing).await;
    let status = pipeline.status();
    let topic = &status.topics[user.as_str()];
    assert_eq!((topic.paused, topic.events, topic.waiting), (true, 0, 200));
    pipeline.resume_topic(user.as_str()).expect("known");
    history.merge(flowing);
    bed.delivered(&history).await;
    pipeline.shutdown().await.expect("a clean stop");
    states.wait_for(|state| *state == PipelineState::Stopped).await.expect("told");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[actix::test]
async fn where_a_refusal_blocks_a_handler_tries_for_ever() {
    let mut bed = Bed::shared("block").await;
    bed.config.dead_letter.policy = RefusalPolicy::Block;
    let tries = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tries);
    let handler = async move |event: &Event| match event.event_type() {
        "odd" => match count.fetch_add(1, SeqCst) {
            0 => Ok(Outcome::DeadLetter("not now".into())),
            1..7 => Err("not yet".into()),
            _ => Ok(Outcome::Forward),
        },
        _ => Ok(Outcome::Forward),
    };
    let builder = bed.pipeline().handler_with("user", patient(), handler);
    let pipeline = builder.start().await.expect("the pipeline starts");
    let mut history = History::default();
    for event_type in ["odd", "behind"] {
        history.committed(&emit_as(&bed, event_type).await);
    }
    bed.delivered(&history).await;
    assert_eq!(tries.load(SeqCst), 8);
    assert_eq!(pipeline.status().dead_letters, 0);
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

/// Hands all on but what it refuses, of which it gives an index that is wrong.
struct Miscounts;

impl Actor for Miscounts {
    type Context = Context<Self>;
}

impl Handler<TopicBatch> for Miscounts {
    type Result = ();

    fn handle(&mut self, batch: TopicBatch, _: &mut Self::Context) {
        let (mut records, mut refused) = (Vec::new(), Vec::new());
        for (index, event) in batch.events.iter().enumerate() {
            let error = || factlib::Error::new(ErrorKind::RecordRefused, "none of mine");
            match event.event_type() {
                // Counted from one.
                "beyond" => refused.push(Refused::new(batch.events.len(), error())),
                "twice" => {
                    refused.push(Refused::new(index, error()));
                    refused.push(Refused::new(index, error()));
                }
                _ => records.push(Record::of(event)),
            }
        }
        batch.ack.hand_on(records, refused);
    }
}

#[actix::test]
async fn an_index_that_no_event_has_or_that_comes_twice_fails_the_batch_and_loses_nothing() {
    let bed = Bed::shared("miscounts").await;
    let make = |_: &_| Miscounts.start().recipient();
    let builder = bed.pipeline().handler_actor_with("user", patient(), make);
    let pipeline = builder.start().await.expect("the pipeline starts");
    let mut history = History::default();
    let mut client = bed.client().await;
    let transaction = client.transaction().await.expect("a transaction");
    for event_type in ["before", "beyond", "between", "twice", "behind"] {
        let fact = Fact::new("user", "odd", event_type);
        Emitter::new(bed.name.clone()).emit(&transaction, &fact).await.expect("emitted");
        if !["beyond", "twice"].contains(&event_type) {
            history.committed(&fact.to_event().expect("valid"));
        }
    }
    transaction.commit().await.expect("a commit");
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    let letters = records(&bed, &bed.config.dead_letter_topic(), 2).await;
    let said: Vec<_> = letters
        .iter()
        .map(|letter| (header(letter, "event_type"), header(letter, "dead_letter_error")))
        .collect();
    assert_eq!(said.len(), 2, "{said:?}");
    for (event_type, text) in [
        ("beyond", "the answer refuses event 1 of a batch of 1, from 0 on"),
        ("twice", "the answer refuses event 0 of a batch twice"),
    ] {
        let found = said.iter().find(|(kind, _)| *kind == event_type).expect("a letter");
        assert!(found.1.contains(text), "{said:?}");
    }
    for letter in &letters {
        assert_eq!(header(letter, "dead_letter_handler"), "user");
    }
    let mut checker = Checker::new(&history, &bed.name, None);
    for topic in bed.topics(&history) {
        records(&bed, &topic, 1).await.iter().for_each(|record| checker.record(record));
    }
    let report = checker.report();
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[actix::test]
async fn what_a_handler_can_not_send_is_parked_as_it_came_with_the_handlers_name() {
    let bed = Bed::shared("marked").await;
    let handler = async move |event: &Event| {
        let record = || Record::of(event).payload("redacted");
        Ok(match event.event_type() {
            "nowhere" => {
                Outcome::Replace(vec![record().topic("no topic"), record().topic("nor this")])
            }
            "nul" => Outcome::Replace(vec![record().header("n\0l", "")]),
            "forward" => Outcome::Forward,
            _ => Outcome::Replace(vec![record()]),
        })
    };
    let pipeline = bed.pipeline().handler(ANY, handler).start().await.expect("it starts");
    let client = bed.client().await;
    // What the client would refuse, others emit: no topic can have this name.
    for (aggregate_type, event_type) in
        [("user", "nowhere"), ("user", "nul"), ("no type", "forward"), ("no type", "replaced")]
    {
        let event = OutboxEvent {
            id: event_type.into(),
            aggregate_type: aggregate_type.into(),
            aggregate_id: "a".into(),
            event_type: event_type.into(),
            payload: "secret".into(),
            ..Default::default()
        };
        let emit = "SELECT pg_logical_emit_message(true, $1, $2::bytea)";
        client.execute(emit, &[&bed.name, &event.encode_to_vec()]).await.expect("emitted");
    }
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    let letters = records(&bed, &bed.config.dead_letter_topic(), 4).await;
    let kinds: Vec<_> = letters.iter().map(|letter| header(letter, "event_type")).collect();
    assert_eq!(kinds.len(), 4, "one for each event: {kinds:?}");
    for letter in &letters {
        let kind = header(letter, "event_type");
        let handler = letter.header("dead_letter_handler").map(|name| &name[..]);
        assert_eq!(handler, Some(&b"*"[..]), "{kind}");
        let event = OutboxEvent::decode(letter.value.clone().expect("a value")).expect("an event");
        assert_eq!(&event.payload[..], b"secret", "{kind}: the original bytes");
    }
}

/// Fails its first batches, and parks those that are hopeless.
struct Unwell(Arc<AtomicUsize>);

impl Actor for Unwell {
    type Context = Context<Self>;
}

impl Handler<TopicBatch> for Unwell {
    type Result = ();

    fn handle(&mut self, batch: TopicBatch, _: &mut Self::Context) {
        if batch.events.iter().any(|event| event.event_type() == "hopeless") {
            return batch.ack.fail(BatchFailure::park("no such format"));
        }
        let kind = match self.0.fetch_add(1, SeqCst) {
            0..6 => ErrorKind::ActorFailed,
            6..8 => ErrorKind::HandlerFailed,
            8 => return batch.ack.fail(BatchFailure::retry_after(Duration::ZERO, "not now")),
            _ => return batch.ack.hand_on(batch.events.iter().map(Record::of).collect(), vec![]),
        };
        batch.ack.fail(BatchFailure::retry(factlib::Error::new(kind, "not now")));
    }
}

#[actix::test]
async fn what_an_actor_fails_comes_again_whatever_it_says_and_however_often() {
    let mut bed = Bed::shared("unwell").await;
    bed.config.pipeline.restart_backoff = Duration::from_millis(5);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let make = move |_: &_| Unwell(Arc::clone(&count)).start().recipient();
    let builder = bed.pipeline().handler_actor_with("user", patient(), make);
    let pipeline = builder.start().await.expect("the pipeline starts");
    let mut history = History::default();
    for event_type in ["first", "second"] {
        history.committed(&emit_as(&bed, event_type).await);
    }
    let ended = async { panic!("{:?}", pipeline.wait().await) };
    tokio::select! {
        () = bed.delivered(&history) => {}
        () = ended => {}
    }
    assert_eq!(pipeline.status().dead_letters, 0);
    emit(&bed, "hopeless").await;
    let letter = records(&bed, &bed.config.dead_letter_topic(), 1).await.remove(0);
    let error = header(&letter, "dead_letter_error");
    assert!(error.contains("its handler gives its batch up: no such format"), "{error}");
    assert_eq!(header(&letter, "dead_letter_handler"), "user");
    pipeline.shutdown().await.expect("a clean stop");
    let mut checker = Checker::new(&history, &bed.name, None);
    for topic in bed.topics(&history) {
        records(&bed, &topic, 1).await.iter().for_each(|record| checker.record(record));
    }
    let report = checker.report();
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}
