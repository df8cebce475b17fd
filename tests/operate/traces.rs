//! Traces of the relay, as a collector receives them by OTLP.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{
    App, HttpResponse, HttpServer,
    dev::ServerHandle,
    web::{Bytes, Data, post},
};
use factlib::emit::{Emitter, Fact};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message;
use tokio::time::{Instant, sleep};

use crate::support::{Bed, bed::LIMIT, relay::Launch};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// What a collector would keep.
#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    service: String,
}

/// A collector, in this process.
struct Collector {
    received: Arc<Mutex<Received>>,
    endpoint: String,
    server: ServerHandle,
}

impl Collector {
    fn start() -> Self {
        let received = Arc::<Mutex<Received>>::default();
        let data = Data::from(Arc::clone(&received));
        let app = move || App::new().app_data(data.clone()).route("/v1/traces", post().to(take));
        let server = HttpServer::new(app).workers(1).disable_signals();
        let server = server.bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", server.addrs()[0]);
        let server = server.run();
        let handle = server.handle();
        actix_rt::spawn(server);
        Collector { received, endpoint, server: handle }
    }

    /// The spans whose name begins so, once there are so many.
    async fn spans(&self, name: &str, count: usize) -> Vec<Span> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let all = self.received.lock().expect("no panic").spans.clone();
            let named: Vec<_> =
                all.iter().filter(|span| span.name.starts_with(name)).cloned().collect();
            if named.len() >= count {
                return named;
            }
            assert!(Instant::now() < deadline, "{name}: {all:#?}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn take(received: Data<Mutex<Received>>, body: Bytes) -> HttpResponse {
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
    let mut received = received.lock().expect("no panic");
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.expect("a resource");
        received.service = attributes(&resource.attributes)["service.name"].clone();
        let scopes = of_resource.scope_spans.into_iter();
        received.spans.extend(scopes.flat_map(|scope| scope.spans));
    }
    HttpResponse::Ok().finish()
}

/// Attributes as text.
fn attributes(all: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    };
    all.iter().filter_map(|one| Some((one.key.clone(), text(one)?))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[actix_rt::test]
async fn a_part_is_a_span_with_links_and_a_sampled_event_one_in_its_emitters_trace() {
    let bed = Bed::shared("traces").await;
    let collector = Collector::start();
    let launch = Launch::new(&bed, Arc::default())
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)
        .variable("OTEL_BSP_SCHEDULE_DELAY", "100")
        // Compressed, a large record might be small enough.
        .set("kafka.compression", "none");
    let relay = launch.start().await;
    let mut client = bed.client().await;
    let transaction = client.transaction().await.expect("a transaction");
    let emitter = Emitter::new(bed.name.as_str());
    let order = |id: &str| Fact::new("order", id, "order.placed");
    let facts = [
        order("1").traceparent(format!("00-{TRACE}-{PARENT}-01")),
        order("2").traceparent(format!("00-{}-{PARENT}-00", TRACE.replace('4', "5"))),
        order("3"),
        order("4").traceparent(format!("00-{TRACE}-{PARENT}-01")),
    ];
    emitter.emit_all(&transaction, &facts).await.expect("emitted");
    // The time until the commit is not the relay's.
    transaction.commit().await.expect("committed");

    let parts = collector.spans("send ", 1).await;
    let part = &parts[0];
    assert_eq!((parts.len(), part.name.as_str()), (1, &*format!("send {}.order", bed.name)));
    assert_eq!((part.kind(), part.parent_span_id.len()), (SpanKind::Producer, 0));
    let of_part = attributes(&part.attributes);
    assert_eq!(of_part["messaging.system"], "kafka");
    assert_eq!(of_part["messaging.batch.message_count"], "4");
    assert_eq!(of_part["factlib.slot"], bed.name);
    let mut links: Vec<_> = part.links.iter().map(|link| hex(&link.trace_id)).collect();
    links.sort();
    assert_eq!(links, [TRACE.to_owned(), TRACE.replace('4', "5")], "each emitter's span once");

    let events = collector.spans("relay ", 2).await;
    assert_eq!(events.len(), 2, "none for an emitter that is not sampled: {events:#?}");
    for (event, id) in events.iter().zip(["1", "4"]) {
        assert_eq!(
            (hex(&event.trace_id), hex(&event.parent_span_id)),
            (TRACE.into(), PARENT.into())
        );
        let of_event = attributes(&event.attributes);
        assert_eq!(of_event["factlib.aggregate_id"], id);
        assert_eq!(of_event["messaging.destination.name"], format!("{}.order", bed.name));
        assert_eq!(event.links[0].span_id, part.span_id);
        assert!(event.start_time_unix_nano <= part.start_time_unix_nano);
        assert!(event.end_time_unix_nano >= part.start_time_unix_nano);
        assert_ne!(event.status.clone().unwrap_or_default().code(), StatusCode::Error);
    }
    assert_eq!(collector.received.lock().expect("no panic").service, "factlib");

    // A part that is refused says why.
    let letter =
        order("5").traceparent(format!("00-{TRACE}-{PARENT}-01")).payload("x".repeat(5_000));
    bed.set_limit(&format!("{}.order", bed.name), "1000").await;
    let transaction = client.transaction().await.expect("a transaction");
    emitter.emit_all(&transaction, &[letter]).await.expect("emitted");
    transaction.commit().await.expect("committed");
    let events = collector.spans("relay ", 3).await;
    let status = events[2].status.clone().expect("a status");
    assert_eq!(status.code(), StatusCode::Error);
    assert!(status.message.contains("MESSAGE_TOO_LARGE"), "{}", status.message);
    relay.stop().await;
    collector.server.stop(false).await;
}

#[actix_rt::test]
async fn a_protocol_that_is_not_built_in_is_refused_with_the_remedy() {
    let bed = Bed::shared("traces_grpc").await;
    let launch = Launch::new(&bed, Arc::default())
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317")
        .variable("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let program = launch.program(&["run"]);
    let status = program.ended(LIMIT).await.expect("it ends");
    assert_eq!(status.code(), Some(2), "{}", program.output());
    assert!(
        program.output().contains("OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"),
        "{}",
        program.output()
    );
}
