//! Formats behind the ids of a schema registry, decoded as any consumer does.

use std::time::Duration;

use bytes::Bytes;
use factlib::{
    ErrorKind, PipelineHandle, PipelineStatus,
    config::{Config, DeliveryMode, Format, Route, RouteMatch, SubjectStrategy},
    dead_letter::{DeadLetterTopic, Ledger, LetterFilter, Redriver},
    doctor::{self, CheckOutcome},
    emit::Fact,
    testing::{Authority, ConsumedRecord, KafkaServer, SchemaRegistry, read_topic},
};
use prost::Message;
use schema_registry_converter::{
    async_impl::{
        avro::AvroDecoder,
        proto_raw::ProtoRawDecoder,
        schema_registry::{SrSettings, get_schema_by_id, post_schema},
    },
    schema_registry_common::{BytesResult, SchemaType, SuppliedSchema, get_bytes_result},
};
use serde_json::json;
use slog::{Discard, Logger, o};

use crate::support::{
    Bed, History, Workload,
    bed::{LIMIT, PARTITIONS},
    history::Checker,
    records::{emit, header, records},
};

const AVRO: &str =
    r#"{"type":"record","name":"Placed","namespace":"shop","fields":[{"name":"n","type":"long"}]}"#;

/// `n: 21` by that schema: a long is a zigzag varint.
const AVRO_PAYLOAD: &[u8] = &[42];

const PROTO: &str = r#"
syntax = "proto3";
package shop.v1;
message Placed { string id = 1; map<string, string> notes = 2; }
message Paid { string id = 1; message Receipt { string id = 1; } }
"#;

/// A message whose field 1 is `x`, whichever.
const PROTO_PAYLOAD: &[u8] = &[0x0a, 1, b'x'];

fn reading(registry: &SchemaRegistry) -> SrSettings {
    let tls = factlib_tls::Options::default().into_config().expect("the settings of TLS");
    let http = reqwest::Client::builder().tls_backend_preconfigured(tls);
    SrSettings::new_builder(registry.url()).build_with(http).expect("a client")
}

async fn register(registry: &SchemaRegistry, subject: &str, kind: SchemaType, text: &str) -> u32 {
    let schema = SuppliedSchema::new(None, kind, text.into());
    post_schema(&reading(registry), subject.into(), schema).await.expect("registered").id
}

fn configure(config: &mut Config, registry: &SchemaRegistry) {
    config.schema_registry.url = vec![registry.url()];
    config.schema_registry.timeout = Duration::from_secs(30);
}

fn route(event_type: &str, format: Format) -> Route {
    let matches = RouteMatch::default().event_type(event_type);
    Route::matching(matches).to("{prefix}.{event_type}").format(format)
}

/// The id of the schema and what is behind it.
fn unframed(record: &ConsumedRecord) -> (u32, &[u8]) {
    match get_bytes_result(record.value.as_deref()) {
        BytesResult::Valid(id, rest) => (id, rest),
        other => panic!("no id: {other:?}"),
    }
}

/// The message's full name and its bytes, by the schema that the registry has.
async fn decoded(decoder: &ProtoRawDecoder, record: &ConsumedRecord) -> (String, Bytes) {
    let decoded = decoder.decode(record.value.as_deref()).await.expect("it can be decoded");
    let decoded = decoded.expect("a value");
    (decoded.full_name.to_string(), decoded.bytes.into())
}

#[actix::test]
async fn each_format_is_decoded_by_the_schema_that_the_registry_has() {
    let registry = SchemaRegistry::start().await.expect("the registry starts");
    let mut bed = Bed::shared("framed").await;
    configure(&mut bed.config, &registry);
    bed.config.route = vec![
        route("envelope", Format::ConfluentProtobuf),
        route("json", Format::ConfluentJson),
        route("avro", Format::ConfluentPayload).subject("placed by {metadata.tenant}/x?"),
        route("shop.v1.Paid", Format::ConfluentPayload),
        route("nested", Format::ConfluentPayload).schema("shop.v1.Paid.Receipt"),
        route("gone", Format::ConfluentProtobuf).tombstone(),
    ];
    let topic = |what: &str| format!("{}.{what}", bed.name);
    let avro = register(&registry, "placed by acme%2Fx%3F", SchemaType::Avro, AVRO).await;
    for what in ["shop.v1.Paid", "nested"] {
        let subject = format!("{}-value", topic(what));
        register(&registry, &subject, SchemaType::Protobuf, PROTO).await;
    }
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let fact = |what: &str, payload: &[u8]| {
        Fact::new("thing", "7", what).payload(payload.to_vec()).metadata("tenant", "acme")
    };
    let facts = [
        fact("envelope", b"{}"),
        fact("json", br#"{"a":1}"#),
        fact("avro", AVRO_PAYLOAD),
        fact("shop.v1.Paid", PROTO_PAYLOAD),
        fact("nested", PROTO_PAYLOAD),
        fact("gone", b""),
    ];
    let events = emit(&bed, &facts).await;
    let mut sent = Vec::new();
    for event in &events {
        sent.extend(records(&bed, &topic(&event.event_type), 1).await);
    }
    pipeline.shutdown().await.expect("a clean stop");

    let decoder = ProtoRawDecoder::new(reading(&registry));
    let (name, bytes) = decoded(&decoder, &sent[0]).await;
    assert_eq!(name, "factlib.v1.OutboxEvent");
    assert_eq!(bytes, events[0].encode_to_vec());
    assert_eq!(header(&sent[0], "event_id"), events[0].id);

    let (id, json) = unframed(&sent[1]);
    let schema = get_schema_by_id(id, &reading(&registry)).await.expect("a schema");
    assert_eq!(schema.schema_type, SchemaType::Json);
    assert!(schema.schema.contains("factlib.v1.OutboxEvent"), "{}", schema.schema);
    let json: serde_json::Value = serde_json::from_slice(json).expect("JSON");
    assert_eq!(
        (json["payload"]["a"].as_i64(), json["id"].as_str()),
        (Some(1), Some(&*events[1].id))
    );
    assert_eq!(sent[1].header("content-type"), None);

    assert_eq!(unframed(&sent[2]), (avro, AVRO_PAYLOAD));
    let decoder_of_avro = AvroDecoder::new(reading(&registry));
    let placed = decoder_of_avro.decode(sent[2].value.as_deref()).await.expect("Avro");
    assert_eq!(serde_json::Value::try_from(placed.value).expect("JSON"), json!({"n": 21}));
    assert_eq!(header(&sent[2], "aggregate_id"), "7");
    for (record, name) in [(&sent[3], "shop.v1.Paid"), (&sent[4], "shop.v1.Paid.Receipt")] {
        let expected = (name.to_owned(), Bytes::from_static(PROTO_PAYLOAD));
        assert_eq!(decoded(&decoder, record).await, expected);
    }
    assert_eq!(sent[5].value, None, "a tombstone has nothing before its value");
}

#[actix::test]
async fn a_registry_that_is_away_holds_back_what_needs_it_and_nothing_is_lost_or_overtaken() {
    let registry = SchemaRegistry::start().await.expect("the registry starts");
    let kafka = KafkaServer::start().await.expect("Kafka starts");
    let postgres = factlib::testing::shared_postgres().await.expect("PostgreSQL starts");
    let mut bed = Bed::on(postgres, &kafka, "registry_away").await;
    configure(&mut bed.config, &registry);
    bed.config.kafka.format = Format::ConfluentProtobuf;
    bed.config.schema_registry.subject = SubjectStrategy::TopicRecord;
    let mut client = bed.client().await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let of = |seed, kinds: &[&str]| Workload {
        seed,
        aggregate_types: kinds.iter().map(|kind| kind.to_string()).collect(),
        ..Workload::new(&bed.name, 300)
    };
    let mut history = of(1, &["user"]).emit(&mut client).await;
    bed.delivered(&history).await;

    registry.kill().await;
    // What is known goes on, what is new waits.
    let more = Workload { aggregate_prefix: "more-", ..of(2, &["user"]) };
    history.merge(more.emit(&mut client).await);
    bed.delivered(&history).await;
    history.merge(of(3, &["order", "invoice"]).emit(&mut client).await);
    held_back(&pipeline, &format!("{}.order", bed.name)).await;
    let after = Workload { aggregate_prefix: "after-", ..of(4, &["order", "user"]) };
    history.merge(after.emit(&mut client).await);

    registry.start_again().await.expect("it is back");
    bed.delivered(&history).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");

    check(&bed, &history, &registry).await;
}

#[actix::test]
async fn exactly_once_waits_for_a_registry_that_is_away_and_sends_each_fact_once() {
    let registry = SchemaRegistry::start().await.expect("the registry starts");
    let mut bed = Bed::shared("registry_once").await;
    configure(&mut bed.config, &registry);
    bed.config.delivery.mode = DeliveryMode::ExactlyOnce;
    bed.config.kafka.format = Format::ConfluentProtobuf;
    bed.config.schema_registry.timeout = Duration::from_secs(2);
    let mut client = bed.client().await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let of = |seed, kind: &str| Workload {
        seed,
        aggregate_types: vec![kind.to_owned()],
        ..Workload::new(&bed.name, 300)
    };
    let mut history = of(1, "user").emit(&mut client).await;
    bed.delivered(&history).await;

    registry.kill().await;
    history.merge(of(2, "order").emit(&mut client).await);
    held_back(&pipeline, &format!("{}.order", bed.name)).await;
    registry.start_again().await.expect("it is back");
    bed.delivered(&history).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    check(&bed, &history, &registry).await;
}

/// Until the topic was tried again and again, and says why.
async fn held_back(pipeline: &PipelineHandle, topic: &str) {
    let waits = async {
        loop {
            let status = pipeline.status();
            if let Some(topic) = status.topics.get(topic).filter(|topic| topic.restarts > 1) {
                return topic.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let topic = tokio::time::timeout(LIMIT, waits).await.expect("it is tried again");
    let error = topic.last_error.expect("an error");
    assert!(error.contains("the schema registry does not answer"), "{error}");
    assert_eq!(topic.events, 0);
}

/// Holds what arrives, decoded, against what was sent.
async fn check(bed: &Bed<'_>, history: &History, registry: &SchemaRegistry) {
    let decoder = ProtoRawDecoder::new(reading(registry));
    let mut checker = Checker::new(history, &bed.name, Some(PARTITIONS));
    checker.confirmed(bed.slot().await.0);
    for topic in bed.topics(history) {
        for mut record in read_topic(&bed.kafka.admin_bootstrap(), &topic).await.expect("a topic") {
            let (name, bytes) = decoded(&decoder, &record).await;
            assert_eq!(name, "factlib.v1.OutboxEvent");
            record.value = Some(bytes);
            checker.record(&record);
        }
    }
    let report = checker.report();
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[actix::test]
async fn what_has_no_schema_is_parked_and_comes_back_when_it_has_one() {
    let registry = SchemaRegistry::start().await.expect("the registry starts");
    let mut bed = Bed::shared("no_schema").await;
    configure(&mut bed.config, &registry);
    bed.config.route =
        vec![route("avro", Format::ConfluentPayload), route("envelope", Format::ConfluentProtobuf)];
    let topic = format!("{}.avro", bed.name);
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let facts = ["avro", "envelope"].map(|what| Fact::new("thing", "7", what).payload("*"));
    emit(&bed, &facts).await;
    records(&bed, &format!("{}.envelope", bed.name), 1).await;
    let letters = records(&bed, &bed.config.dead_letter_topic(), 1).await;
    let error = header(&letters[0], "dead_letter_error");
    assert!(error.contains(&format!("no schema of subject {topic}-value")), "{error}");
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");

    let id = register(&registry, &format!("{topic}-value"), SchemaType::Avro, AVRO).await;
    let log = Logger::root(Discard, o!());
    let parked = DeadLetterTopic::open(&bed.config, &log).await.expect("Kafka is there");
    let mut parked = parked.expect("the topic is there");
    let letter = parked.letters(LetterFilter::default()).next().await.expect("it can be read");
    let letter = letter.expect("a letter");
    let mut ledger = Ledger::open(&bed.config, &log).await.expect("a ledger");
    let mut redriver = Redriver::builder(&bed.config, &log).build().expect("a redriver");
    let resent = redriver.resent(&letter, &ledger).await.expect("a record");
    redriver.send(&letter, &resent, &mut ledger).await.expect("sent");
    let sent = records(&bed, &topic, 1).await;
    assert_eq!(unframed(&sent[0]), (id, &b"*"[..]));
}

#[actix::test]
async fn by_tls_it_is_believed_by_its_authority_and_name_alone() {
    let authority = Authority::new("factlib tests").expect("an authority");
    let signed = authority.server(&["localhost"]).expect("a certificate");
    let registry = SchemaRegistry::start_tls(&signed).await.expect("the registry starts");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, pem: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).expect("written");
        Some(path)
    };
    let mut bed = Bed::shared("registry_tls").await;
    bed.config.schema_registry.url = vec![registry.tls_url("localhost").expect("with TLS")];
    bed.config.schema_registry.tls_ca = file("ca.crt", authority.certificate());
    bed.config.kafka.format = Format::ConfluentJson;
    bed.config.pipeline.drain_timeout = Duration::from_secs(1);
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    emit(&bed, &[Fact::new("thing", "7", "thing.made")]).await;
    let topic = format!("{}.thing", bed.name);
    unframed(&records(&bed, &topic, 1).await[0]);
    pipeline.shutdown().await.expect("a clean stop");
    let log = Logger::root(Discard, o!());
    let found = async |config: &Config| {
        let report = doctor::examine(config, &log).await.expect("a report");
        let line = report.checks.into_iter().find(|check| check.server == "schema registry");
        line.expect("a line")
    };
    let well = found(&bed.config).await;
    assert_eq!(well.outcome, CheckOutcome::Ok, "{well:?}");
    assert!(well.found.starts_with("1 at https://localhost:"), "{well:?}");

    let other = Authority::new("somebody else").expect("an authority");
    let mut untrusted = bed.config.clone();
    untrusted.schema_registry.tls_ca = file("other.crt", other.certificate());
    let mut elsewhere = bed.config.clone();
    elsewhere.schema_registry.url = vec![registry.tls_url("127.0.0.1").expect("with TLS")];
    let causes = ["no trusted authority has signed it", "it is for localhost, not for 127.0.0.1"];
    for (config, cause) in [untrusted, elsewhere].into_iter().zip(causes) {
        let line = found(&config).await;
        assert_eq!(line.outcome, CheckOutcome::Error, "{line:?}");
        for part in ["is not trusted", cause] {
            assert!(line.found.contains(part), "{line:?}");
        }
        assert!(line.remedy.expect("a remedy").contains("schema_registry.tls_ca"));
        bed.config = config;
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        emit(&bed, &[Fact::new("thing", "7", "thing.made")]).await;
        // Topics with schemas wait, until somebody corrects it.
        let waits = async {
            let is_named = |status: &PipelineStatus| {
                let topic = status.topics.get(&topic).and_then(|topic| topic.last_error.as_ref());
                topic.is_some_and(|error| error.contains("is not trusted"))
            };
            while !is_named(&pipeline.status()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, waits).await.expect("the topic says why it waits");
        let error = pipeline.shutdown().await.expect_err("the event is not delivered");
        assert_eq!(error.kind(), ErrorKind::DrainTimeout, "{error}");
    }
}
