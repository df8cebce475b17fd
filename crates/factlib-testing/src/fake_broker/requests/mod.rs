//! Decodes requests, lets the script of faults at them, and answers them.

mod configs;
mod fetch;
mod metadata;
mod offsets;
mod produce;
mod topics;
mod transactions;
mod versions;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        AddPartitionsToTxnRequest, ApiVersionsRequest, CreatePartitionsRequest,
        CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest, EndTxnRequest,
        FetchRequest, FindCoordinatorRequest, IncrementalAlterConfigsRequest,
        InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest, RequestHeader,
        ResponseHeader,
    },
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};
use tokio::time::{Duration, Instant, sleep, timeout_at};

use super::{
    Api, Code, Shared,
    cluster::Cluster,
    faults::{Place, Plan, Refusal, take},
    server::Run,
};

/// Reply to a request.
pub(super) enum Reply {
    /// Send these bytes, and then read nothing for a time.
    Bytes(BytesMut, Duration),
    /// The client wants no answer.
    Nothing,
    /// Close the connection.
    HangUp,
}

/// A request that the fake answers.
trait Answerable: Request {
    /// True if the request may add records to a log, or end a transaction.
    const APPENDS: bool = false;

    /// Returns the topics and partitions that the request concerns.
    fn places(&self) -> Vec<Place> {
        Vec::new()
    }

    /// Answers the request, with its effects on the cluster.
    fn answer(&self, cluster: &mut Cluster, call: &Call) -> Answer<Self::Response>;
}

enum Answer<R> {
    Now(R),
    /// There is no answer yet: wait for a change, at most for this time since the request.
    Wait(Duration),
    Never,
}

/// Circumstances of a request.
struct Call {
    broker: i32,
    version: i16,
    plan: Plan,
    /// The time to wait is over.
    is_late: bool,
}

impl Call {
    /// Returns the scripted error code for a request that concerns no topic; 0 for none.
    fn code(&self) -> i16 {
        self.plan.refusal().map_or(0, |refusal| refusal.code.code())
    }

    /// Returns the scripted error for a topic or a partition.
    fn refusal(&self, topic: &str, partition: Option<i32>) -> Option<&Refusal> {
        self.plan.refusal_of(topic, partition)
    }

    /// Fails with the scripted error for a topic or a partition.
    fn check(&self, topic: &str, partition: Option<i32>) -> Result<(), Code> {
        self.refusal(topic, partition).map_or(Ok(()), |refusal| Err(refusal.code))
    }
}

/// Answers a request. A request that the fake does not know ends the connection, as a real broker
/// does.
pub(super) async fn respond(shared: &Shared, run: Run, frame: Bytes) -> Reply {
    if frame.len() < 8 {
        return Reply::HangUp;
    }
    let (key, version) = ((&frame[..2]).get_i16(), (&frame[2..4]).get_i16());
    let Ok(api) = Api::try_from(key) else { return Reply::HangUp };
    let supported = versions::supported(api, &shared.lock().options.newest);
    let Some((min, max)) = supported else { return Reply::HangUp };
    if !(min..=max).contains(&version) {
        return match api {
            Api::ApiVersions => versions::refuse(&frame, &shared.lock().options.newest),
            _ => Reply::HangUp,
        };
    }
    match api {
        Api::AddPartitionsToTxn => {
            exchange::<AddPartitionsToTxnRequest>(shared, run, api, frame).await
        }
        Api::ApiVersions => exchange::<ApiVersionsRequest>(shared, run, api, frame).await,
        Api::CreatePartitions => exchange::<CreatePartitionsRequest>(shared, run, api, frame).await,
        Api::CreateTopics => exchange::<CreateTopicsRequest>(shared, run, api, frame).await,
        Api::DeleteTopics => exchange::<DeleteTopicsRequest>(shared, run, api, frame).await,
        Api::DescribeConfigs => exchange::<DescribeConfigsRequest>(shared, run, api, frame).await,
        Api::EndTxn => exchange::<EndTxnRequest>(shared, run, api, frame).await,
        Api::Fetch => exchange::<FetchRequest>(shared, run, api, frame).await,
        Api::FindCoordinator => exchange::<FindCoordinatorRequest>(shared, run, api, frame).await,
        Api::IncrementalAlterConfigs => {
            exchange::<IncrementalAlterConfigsRequest>(shared, run, api, frame).await
        }
        Api::InitProducerId => exchange::<InitProducerIdRequest>(shared, run, api, frame).await,
        Api::ListOffsets => exchange::<ListOffsetsRequest>(shared, run, api, frame).await,
        Api::Metadata => exchange::<MetadataRequest>(shared, run, api, frame).await,
        Api::Produce => exchange::<ProduceRequest>(shared, run, api, frame).await,
        _ => Reply::HangUp,
    }
}

async fn exchange<R: Answerable>(shared: &Shared, run: Run, api: Api, mut frame: Bytes) -> Reply {
    let version = (&frame[2..4]).get_i16();
    let header = RequestHeader::decode(&mut frame, R::header_version(version));
    let request = R::decode(&mut frame, version);
    let (Ok(header), Ok(request)) = (header, request) else { return Reply::HangUp };
    let Run { broker, number } = run;
    let plan = {
        let mut cluster = shared.lock();
        if !cluster.is_running(broker, number) {
            return Reply::HangUp;
        }
        *cluster.requests.entry(api).or_default() += 1;
        take(&mut cluster.faults, broker, api, &request.places())
    };
    if !plan.is_empty() {
        shared.changed.send_replace(());
    }
    if plan.hangs_up() {
        return Reply::HangUp;
    }
    if !plan.delay().is_zero() {
        sleep(plan.delay()).await;
    }
    let began = Instant::now();
    let mut changed = shared.changed.subscribe();
    let mut call = Call { broker, version, plan, is_late: false };
    let response = loop {
        let answer = {
            let mut cluster = shared.lock();
            if !cluster.is_running(broker, number) {
                return Reply::HangUp;
            }
            request.answer(&mut cluster, &call)
        };
        match answer {
            Answer::Now(response) => break Some(response),
            Answer::Never => break None,
            Answer::Wait(limit) => {
                call.is_late = timeout_at(began + limit, changed.changed()).await.is_err();
            }
        }
    };
    if R::APPENDS {
        shared.changed.send_replace(());
    }
    match response {
        _ if call.plan.hangs_up_after_effect() => Reply::HangUp,
        Some(response) => {
            let throttle = Duration::from_millis(call.plan.throttle_ms() as u64);
            encode(header.correlation_id, &response, version, throttle)
        }
        None => Reply::Nothing,
    }
}

fn encode<R: Encodable + HeaderVersion>(
    correlation_id: i32,
    response: &R,
    version: i16,
    throttle: Duration,
) -> Reply {
    let mut bytes = BytesMut::new();
    let header = ResponseHeader::default().with_correlation_id(correlation_id);
    let encoded = header
        .encode(&mut bytes, R::header_version(version))
        .and_then(|()| response.encode(&mut bytes, version));
    match encoded {
        Ok(()) => Reply::Bytes(bytes, throttle),
        Err(_) => Reply::HangUp,
    }
}

/// Returns the error code of a result; 0 for success.
fn code_of<T>(result: &Result<T, Code>) -> i16 {
    result.as_ref().err().map_or(0, |code| code.code())
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
