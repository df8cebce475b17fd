use bytes::Bytes;
use prost::Message;

use super::*;
use crate::{
    ErrorKind, Lsn, Refusal,
    config::{Config, Format, Route, RouteMatch, Unrouted},
    dead_letter,
    event::RowRecord,
    format::Prefixes,
    proto::OutboxEvent,
    record::Record,
};

fn route(aggregate_type: &str, topics: &[&str]) -> Route {
    let aggregate_type = (!aggregate_type.is_empty()).then(|| aggregate_type.to_owned());
    let matches = RouteMatch { aggregate_type, ..Default::default() };
    let topic = topics.iter().map(|topic| topic.to_string()).collect();
    Route { matches, topic, ..Default::default() }
}

fn config(routes: impl IntoIterator<Item = Route>) -> Config {
    let mut config = Config { route: routes.into_iter().collect(), ..Default::default() };
    config.kafka.topic_prefix = Some("shop".into());
    config
}

fn routing(routes: impl IntoIterator<Item = Route>) -> CachedRoutes {
    CachedRoutes::new(&config(routes)).expect("routes that can be used")
}

fn envelope(aggregate_type: &str, event_type: &str) -> OutboxEvent {
    OutboxEvent {
        id: "i".into(),
        aggregate_type: aggregate_type.into(),
        aggregate_id: "7".into(),
        event_type: event_type.into(),
        payload: "{}".into(),
        ..Default::default()
    }
}

fn event(envelope: &OutboxEvent) -> Event {
    Event::parse(envelope.encode_to_vec().into(), Lsn::new(1)).expect("an event")
}

fn sent(placed: Routed) -> Vec<(Arc<str>, OutgoingEvent)> {
    match placed {
        Routed::One(topic, event) => vec![(topic, event)],
        Routed::Several(all) => all,
        Routed::Filtered(_) => Vec::new(),
        Routed::Refused(_, error) | Routed::Stop(error) => panic!("{error}"),
    }
}

/// The record that a route or a format makes of it.
fn made(outgoing: &OutgoingEvent) -> Record {
    assert!(outgoing.plan.is_some(), "it is not the usual one");
    outgoing.record("t", &Prefixes::default()).expect("it can be made")
}

fn topics(routing: &mut CachedRoutes, aggregate_type: &str, event_type: &str) -> Vec<String> {
    let placed = routing.route(event(&envelope(aggregate_type, event_type)));
    sent(placed).into_iter().map(|(topic, _)| topic.to_string()).collect()
}

fn problem(routes: impl IntoIterator<Item = Route>) -> String {
    let mistake = CachedRoutes::new(&config(routes)).err().expect("a mistake");
    mistake.error(None).to_string()
}

#[test]
fn the_first_route_that_matches_counts_and_others_go_where_they_went() {
    let placed = Route {
        matches: RouteMatch { event_type: Some("*.placed".into()), ..Default::default() },
        topic: vec!["placed".into()],
        ..Default::default()
    };
    let mut routing = routing([placed, route("order", &["orders"])]);
    for _ in 0..2 {
        assert_eq!(topics(&mut routing, "order", "order.placed"), ["placed"]);
        assert_eq!(topics(&mut routing, "order", "order.paid"), ["orders"]);
        assert_eq!(topics(&mut routing, "user", "user.created"), ["shop.user"]);
    }
}

#[test]
fn an_event_goes_to_several_topics_once_each_and_bytes_are_shared() {
    let mut routing = routing([route("order", &["a", "{prefix}.b", "a{metadata.more}"])]);
    let mut more = envelope("order", "x");
    more.metadata.insert("more".into(), String::new());
    let all = sent(routing.route(event(&more)));
    let names: Vec<_> = all.iter().map(|(topic, _)| &**topic).collect();
    assert_eq!(names, ["a", "shop.b"], "the third would be the first again");
    assert_eq!(all[0].1.event.raw().as_ptr(), all[1].1.event.raw().as_ptr());
}

#[test]
fn a_decision_for_a_type_is_kept_only_where_it_holds_for_the_type() {
    let by_id = Route {
        matches: RouteMatch { aggregate_id: Some("7".into()), ..Default::default() },
        topic: vec!["sevens".into()],
        ..Default::default()
    };
    let mut routing = routing([by_id]);
    let mut other = envelope("order", "x");
    for _ in 0..2 {
        assert_eq!(topics(&mut routing, "order", "x"), ["sevens"]);
        other.aggregate_id = "8".into();
        assert_eq!(&*sent(routing.route(event(&other)))[0].0, "shop.order");
    }
    let mut by_topic = self::routing([route("", &["{aggregate_type}-{aggregate_id}"])]);
    assert_eq!(topics(&mut by_topic, "order", "x"), ["order-7"]);
    assert_eq!(&*sent(by_topic.route(event(&other)))[0].0, "order-8");
}

#[test]
fn kept_decisions_are_bounded() {
    let by_type = Route { topic: vec!["{event_type}".into()], ..Default::default() };
    let mut config = config([by_type]);
    config.kafka.topics.max = usize::MAX;
    let mut routing = CachedRoutes::new(&config).expect("a route that can be used");
    for n in 0..MAX_CACHED_DECISIONS + 10 {
        assert_eq!(topics(&mut routing, "order", &format!("t{n}")), [format!("t{n}")]);
    }
    assert!(routing.cached <= 10);
}

#[test]
fn metadata_and_named_groups_route() {
    let mut metadata = RouteMatch::default();
    metadata.metadata.insert("tenant".into(), "/^t(?<n>[0-9]+)$/".into());
    let by_tenant =
        Route { matches: metadata, topic: vec!["tenant-{n}".into()], ..Default::default() };
    let mut routing = routing([by_tenant]);
    let mut tenant = envelope("order", "x");
    assert_eq!(&*sent(routing.route(event(&tenant)))[0].0, "shop.order", "it has no tenant");
    for (name, topic) in [("t1", "tenant-1"), ("t22", "tenant-22"), ("u1", "shop.order")] {
        tenant.metadata.insert("tenant".into(), name.into());
        assert_eq!(&*sent(routing.route(event(&tenant)))[0].0, topic);
    }
}

#[test]
fn key_partition_headers_and_tombstones_are_by_template() {
    let route = Route {
        key: Some("{aggregate_type}/{aggregate_id}".into()),
        partition: Some("{metadata.shard}".into()),
        headers: [
            ("event_type", "{event_type}!"),
            ("tenant", "{metadata.tenant}"),
            ("from", "{prefix}"),
        ]
        .map(|(key, text)| (key.into(), text.into()))
        .into(),
        tombstone: true,
        ..Default::default()
    };
    let mut routing = routing([route]);
    let mut sharded = envelope("order", "order.gone");
    sharded.metadata.insert("shard".into(), "3".into());
    let (topic, sent) = sent(routing.route(event(&sharded))).remove(0);
    let made = made(&sent);
    assert_eq!((&*topic, &made.key[..]), ("shop.order", &b"order/7"[..]));
    assert_eq!((made.partition, &made.value), (Some(3), &None));
    let value = |value: &'static Option<Bytes>| value.as_deref().unwrap_or_default();
    let headers = &*made.headers.leak();
    let headers: Vec<_> = headers.iter().map(|(key, v)| (&**key, value(v))).collect();
    let expected: [(&str, &[u8]); 4] =
        [("event_id", b"i"), ("LSN", b"0/1"), ("event_type", b"order.gone!"), ("from", b"shop")];
    assert_eq!(headers, expected, "the header of metadata that it does not have is left out");
    for shard in ["x", "-1", ""] {
        sharded.metadata.insert("shard".into(), shard.into());
        let Routed::Refused(_, error) = routing.route(event(&sharded)) else { panic!("{shard}") };
        assert_eq!(error.kind(), ErrorKind::RecordRefused);
        assert!(error.to_string().contains("is not a number"), "{error}");
    }
}

#[test]
fn what_a_route_needs_and_an_event_lacks_refuses_the_event() {
    let shard_template = || Some("{metadata.shard}".to_owned());
    for (route, what) in [
        (Route { key: shard_template(), ..route("", &[]) }, "key"),
        (Route { partition: shard_template(), ..route("", &[]) }, "partition"),
        (route("", &["{metadata.shard}"]), "topic \"{metadata.shard}\""),
    ] {
        let placed = routing([route]).route(event(&envelope("order", "x")));
        let Routed::Refused(_, error) = placed else { panic!("{what}") };
        let why = format!("{what}: it has no metadata shard");
        assert_eq!(error.to_string(), format!("route[0] can't send the event: {why}"));
    }
}

#[test]
fn a_topic_that_kafka_does_not_allow_refuses_the_event() {
    let mut routing = routing([route("order", &["{event_type}", "ok"])]);
    for event_type in ["a b", "", "..", "shop.dead-letter", &"x".repeat(250)] {
        let placed = routing.route(event(&envelope("order", event_type)));
        let Routed::Refused(_, error) = placed else { panic!("{event_type} is taken") };
        let text = error.to_string();
        assert!(text.contains("route[0]") && text.contains("not allowed"), "{text}");
    }
    assert_eq!(topics(&mut routing, "order", "fine"), ["fine", "ok"]);
}

#[test]
fn topics_of_routes_count_as_well() {
    let mut config = config([route("", &["{event_type}"])]);
    config.kafka.topics.max = 2;
    let mut routing = CachedRoutes::new(&config).expect("a route that can be used");
    assert_eq!(topics(&mut routing, "o", "a"), ["a"]);
    assert_eq!(topics(&mut routing, "o", "b"), ["b"]);
    let Routed::Refused(_, error) = routing.route(event(&envelope("o", "c"))) else {
        panic!("a third topic")
    };
    let text = "c would be one topic more than the 2 allowed (are aggregate types made of ids? \
                kafka.topics.max sets the limit)";
    assert_eq!(error.to_string(), text);
    assert_eq!(topics(&mut routing, "o", "a"), ["a"]);
}

#[test]
fn what_is_dropped_or_unrouted_is_as_configured() {
    let drop = Route { drop: true, ..route("noise.*", &[]) };
    let mut config = config([drop, route("order", &[])]);
    for (unrouted, what) in [
        (Unrouted::Default, "shop.user"),
        (Unrouted::Ignore, "filtered"),
        (Unrouted::DeadLetter, "refused"),
        (Unrouted::Stop, "stop"),
    ] {
        config.kafka.unrouted = unrouted;
        let mut routing = CachedRoutes::new(&config).expect("routes that can be used");
        assert!(topics(&mut routing, "noise.a", "x").is_empty());
        assert_eq!(topics(&mut routing, "order", "x"), ["shop.order"]);
        let placed = match routing.route(event(&envelope("user", "x"))) {
            Routed::One(topic, _) => topic.to_string(),
            Routed::Several(_) => "several".into(),
            Routed::Filtered(_) => "filtered".into(),
            Routed::Refused(_, error) => {
                assert!(error.to_string().contains("no [[route]] takes"), "{error}");
                "refused".into()
            }
            Routed::Stop(error) => {
                assert_eq!(error.advice(), Some("add one, or set kafka.unrouted"));
                "stop".into()
            }
        };
        assert_eq!(placed, what);
    }
}

#[test]
fn what_is_refused_is_parked_as_it_came() {
    let mut routing = routing([Route { format: Some(Format::Json), ..route("order", &[]) }]);
    let event = event(&envelope("order", "x"));
    let (_, sent) = sent(routing.route(event.clone())).remove(0);
    assert_ne!(made(&sent).value.as_ref(), Some(event.raw()));
    let parked = sent.event.refused(Refusal::new(Error::new(ErrorKind::RecordRefused, "no")));
    let parked = dead_letter::record(&parked, parked.refusal().expect("it is refused"));
    assert_eq!(parked.value.as_ref(), Some(event.raw()));
    assert!(parked.headers.iter().any(|(name, _)| name == "dead_letter_error"));
}

/// The row of a table by Debezium's conventions.
fn row() -> Event {
    let row = RowRecord {
        topic_prefix: Some("outbox.event".into()),
        headers: vec![("tenant".into(), Some("acme".into()))],
        payload_is_value: true,
        is_tombstone: false,
        ..RowRecord::default()
    };
    let envelope = envelope("Order", "OrderCreated");
    let raw = Bytes::from_static(b"{}");
    Event::from_row(envelope, raw, row, Lsn::new(1)).expect("a row")
}

#[test]
fn rows_of_tables_keep_prefix_and_payload_unless_their_route_says_otherwise() {
    let one = |routing: &mut CachedRoutes| sent(routing.route(row())).remove(0);
    // Unrouted, whatever the format of envelopes is.
    let mut config = config([route("user", &["users"])]);
    config.kafka.format = Format::Json;
    let mut routing = CachedRoutes::new(&config).expect("a route that can be used");
    let (topic, event) = one(&mut routing);
    assert_eq!((&*topic, event.plan.is_none()), ("outbox.event.Order", true));
    // A topic alone.
    let mut routed = self::routing([route("Order", &["{prefix}.all"])]);
    let (topic, event) = one(&mut routed);
    assert_eq!((&*topic, event.plan.is_none()), ("outbox.event.all", true));
    // A message of the same type has the pipeline's prefix.
    assert_eq!(topics(&mut routed, "Order", "x"), ["shop.all"]);
    // A format.
    let enveloped = Route { format: Some(Format::Protobuf), ..route("Order", &[]) };
    let (_, event) = one(&mut self::routing([enveloped]));
    let value = made(&event).value.expect("a value");
    assert_eq!(OutboxEvent::decode(value).expect("an envelope").payload, "{}");
}

#[test]
fn a_route_that_can_t_be_used_is_named() {
    let with = |change: fn(&mut Route)| {
        let mut route = route("order", &[]);
        change(&mut route);
        route
    };
    for (bad, text) in [
        (with(|r| r.topic = vec!["a b".into()]), "route[0].topic = \"a b\": Kafka allows"),
        (with(|r| r.topic = vec!["..".into()]), "route[0].topic = \"..\": Kafka allows"),
        (with(|r| r.topic = vec!["a/{id}".into()]), "route[0].topic = \"a/{id}\": Kafka allows"),
        (
            with(|r| r.topic = vec!["shop.dead-letter".into()]),
            "route[0].topic = \"shop.dead-letter\": that is the dead-letter topic",
        ),
        (
            with(|r| r.topic = vec!["a".into(), "a".into()]),
            "route[0].topic = \"a\": is there twice",
        ),
        (with(|r| r.topic = vec!["{x}".into()]), "route[0].topic = \"{x}\": has {x}; there are"),
        (with(|r| r.key = Some("{".into())), "route[0].key = \"{\": has an unmatched brace"),
        (with(|r| r.partition = Some("-1".into())), "route[0].partition = \"-1\": expected the"),
        (
            with(|r| _ = r.headers.insert(String::new(), "x".into())),
            "route[0].headers. = \"x\": a header needs a name",
        ),
        (
            with(|r| r.matches.event_type = Some("/(/".into())),
            "route[0].match.event_type = \"/(/\": is not a valid regular expression: unclosed group",
        ),
        (
            with(|r| r.matches.event_type = Some("/(?<id>.)/".into())),
            "route[0].match.event_type = \"/(?<id>.)/\": the group id has the name of a field",
        ),
        (
            with(|r| {
                r.drop = true;
                r.tombstone = true;
            }),
            "route[0].drop = true: a dropped event has no record",
        ),
    ] {
        let problem = problem([bad]);
        assert!(problem.starts_with(text), "{problem}");
    }
}

#[test]
fn a_route_that_is_never_reached_is_named_with_the_one_before_it() {
    let typed = |aggregate_type: &str, event_type: &str| {
        let mut route = route(aggregate_type, &[]);
        route.matches.event_type = Some(event_type.into());
        route
    };
    for (earlier, later) in [
        (route("", &[]), route("order", &[])),
        (route("*", &[]), route("", &[])),
        (route("order", &["a"]), route("order", &["b"])),
        (route("ord*", &[]), route("order", &[])),
        (route("order", &[]), typed("order", "placed")),
        (typed("order", "p*"), typed("order", "placed")),
    ] {
        let text = problem([route("other", &[]), earlier, later]);
        assert_eq!(text, "route[2] = a table: is never reached: route[1] takes all that it would");
    }
    for (earlier, later) in [
        (typed("order", "placed"), route("order", &[])),
        (route("order", &[]), route("ord*", &[])),
        (typed("order", "placed"), typed("order", "paid")),
    ] {
        CachedRoutes::new(&config([earlier, later])).map(drop).expect("both are reached");
    }
}
