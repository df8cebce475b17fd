//! Every format as a consumer gets it, byte by byte.

use factlib::{
    config::{Format, Route, RouteMatch},
    emit::Fact,
    testing::ConsumedRecord,
};
use prost::Message;

use super::{emit, records};
use crate::support::Bed;

const PAYLOAD: &str = r#"{"b":1.10,"a":[true]}"#;

const TRACE: (&str, &str) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");

/// All but the LSN, which nobody knows beforehand.
fn headers(record: &ConsumedRecord) -> Vec<(&str, &str)> {
    let text = |value| std::str::from_utf8(value).expect("text");
    let all = record.headers.iter().map(|(key, value)| (key.as_str(), text(value)));
    all.filter(|(key, _)| *key != "LSN").collect()
}

#[actix::test]
async fn each_format_is_byte_exact_by_a_route_with_captures() {
    let mut bed = Bed::shared("formats").await;
    let by_event_type = |event_type: &str, format| {
        Route::matching(RouteMatch::default().event_type(event_type))
            .to("{prefix}.as.{kind}")
            .header("made-by", "{kind} of {metadata.tenant}")
            .format(format)
    };
    bed.config.route = vec![
        by_event_type("/^as-(?<kind>protobuf)$/", Format::Protobuf),
        by_event_type("/^as-(?<kind>raw)$/", Format::Raw),
        by_event_type("/^as-(?<kind>json)$/", Format::Json),
        by_event_type("/^as-(?<kind>ce)$/", Format::CloudEvents),
        by_event_type("/^as-(?<kind>structured)$/", Format::CloudEventsStructured),
    ];
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let kinds = ["protobuf", "raw", "json", "ce", "structured"];
    let facts = kinds.map(|kind| {
        let fact = Fact::new("thing", "7", format!("as-{kind}")).payload(PAYLOAD);
        fact.metadata("tenant", "acme").trace(TRACE.0, TRACE.1)
    });
    let events = emit(&bed, &facts).await;
    let made_by = kinds.map(|kind| format!("{kind} of acme"));
    let mut sent = Vec::new();
    for kind in kinds {
        sent.extend(records(&bed, &format!("{}.as.{kind}", bed.name), 1).await);
    }
    pipeline.shutdown().await.expect("a clean stop");
    assert!(sent.iter().all(|record| record.key.as_deref() == Some(&b"7"[..])));
    let value = |n: usize| sent[n].value.as_deref().expect("a value");
    let json = |n: usize| -> serde_json::Value { serde_json::from_slice(value(n)).expect("JSON") };
    let id = |n: usize| events[n].id.as_str();
    let usual = |n: usize| {
        let event_type = events[n].event_type.as_str();
        let trace = [("trace_id", TRACE.0), ("span_id", TRACE.1)];
        [vec![("event_id", id(n)), ("event_type", event_type)], trace.to_vec()].concat()
    };

    assert_eq!(value(0), events[0].encode_to_vec());
    assert_eq!(headers(&sent[0]), [usual(0), vec![("made-by", &made_by[0])]].concat());

    assert_eq!(value(1), PAYLOAD.as_bytes());
    let created = events[1].created_at.to_string();
    let more = vec![
        ("aggregate_type", "thing"),
        ("aggregate_id", "7"),
        ("created_at", &created),
        ("metadata.tenant", "acme"),
        ("made-by", &made_by[1]),
    ];
    assert_eq!(headers(&sent[1]), [usual(1), more].concat());

    let created = json(2)["created_at"].as_str().expect("a time").to_owned();
    let expected = format!(
        r#"{{"id":"{}","aggregate_type":"thing","aggregate_id":"7","event_type":"as-json","payload":{PAYLOAD},"created_at":"{created}","metadata":{{"tenant":"acme"}},"trace_id":"{}","span_id":"{}"}}"#,
        id(2),
        TRACE.0,
        TRACE.1,
    );
    assert_eq!(value(2), expected.as_bytes());
    let more = vec![("content-type", "application/json"), ("made-by", &made_by[2])];
    assert_eq!(headers(&sent[2]), [usual(2), more].concat());

    assert_eq!(value(3), PAYLOAD.as_bytes());
    let source = format!("/{}/thing", bed.name);
    let traceparent = format!("00-{}-{}-01", TRACE.0, TRACE.1);
    let time = headers(&sent[3]).into_iter().find(|(key, _)| *key == "ce_time").expect("a time").1;
    let expected = [
        ("ce_specversion", "1.0"),
        ("ce_id", id(3)),
        ("ce_source", &source),
        ("ce_type", "as-ce"),
        ("ce_subject", "7"),
        ("ce_time", time),
        ("content-type", "application/json"),
        ("ce_traceparent", &traceparent),
        ("ce_tenant", "acme"),
        ("made-by", &made_by[3]),
    ];
    assert_eq!(headers(&sent[3]), expected);

    let expected = serde_json::json!({
        "specversion": "1.0",
        "id": id(4),
        "source": source,
        "type": "as-structured",
        "subject": "7",
        "time": json(4)["time"],
        "datacontenttype": "application/json",
        "traceparent": traceparent,
        "tenant": "acme",
        "data": {"b": 1.10, "a": [true]},
    });
    assert_eq!(json(4), expected);
    let content_type = ("content-type", "application/cloudevents+json; charset=UTF-8");
    assert_eq!(headers(&sent[4]), [content_type, ("made-by", &made_by[4])]);
}

#[actix::test]
async fn the_format_of_all_holds_where_a_route_says_nothing_and_a_tombstone_has_no_value() {
    let mut bed = Bed::shared("all_json").await;
    bed.config.kafka.format = Format::Json;
    let gone = RouteMatch::default().event_type("*.gone");
    bed.config.route = vec![Route::matching(gone).tombstone()];
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let facts = ["thing.here", "thing.gone"].map(|what| Fact::new("thing", "7", what));
    let events = emit(&bed, &facts).await;
    let sent = records(&bed, &format!("{}.thing", bed.name), 2).await;
    pipeline.shutdown().await.expect("a clean stop");
    let value: serde_json::Value =
        serde_json::from_slice(sent[0].value.as_deref().expect("a value")).expect("JSON");
    assert_eq!(value["id"], events[0].id.as_str());
    assert_eq!((&sent[1].value, sent[1].key.as_deref()), (&None, Some(&b"7"[..])));
}
