//! The events: each has a number, and all else follows from it.
//!
//! The id is the run and the number, so a record of any relay tells by its header which event it is.

use factlib::proto::OutboxEvent;
use uuid::Uuid;

use crate::support::topics::Layout;

/// Aggregates of a run, the event `n` belonging to the aggregate `n % AGGREGATES`. Divisible by the
/// number of types and by the number of sessions that emit, so that each aggregate has one session.
pub const AGGREGATES: u64 = 1_200;
/// Size of a payload.
const PAYLOAD_BYTES: usize = 300;

/// Contents of an aggregate's events, which differ in their id alone.
#[derive(Clone, Debug)]
pub struct Template {
    pub aggregate_type: &'static str,
    pub aggregate_id: String,
    pub event_type: String,
    /// JSON, as `jsonb` prints it.
    pub payload: String,
}

/// Returns the contents of all aggregates, in their order.
pub fn templates() -> Vec<Template> {
    (0..AGGREGATES as usize).map(template).collect()
}

fn template(aggregate: usize) -> Template {
    let types = Layout::COMPARED.aggregate_types;
    let aggregate_type = types[aggregate % types.len()];
    Template {
        aggregate_type,
        aggregate_id: format!("{aggregate_type}-{aggregate}"),
        event_type: format!("{aggregate_type}.changed"),
        payload: payload(aggregate),
    }
}

/// References that compress as ids do, and a note that fills the size.
fn payload(aggregate: usize) -> String {
    let references = [(); 5].map(|()| format!("\"{}\"", Uuid::now_v7())).join(", ");
    let with = |note: &str| {
        format!(
            "{{\"note\": \"{note}\", \"quantity\": {aggregate}, \"references\": [{references}]}}"
        )
    };
    let missing = PAYLOAD_BYTES.saturating_sub(with("").len());
    with(&"delivered to the back door, please ring ".repeat(8)[..missing])
}

/// Returns the id of an event.
pub fn id(run: u64, number: u64) -> Uuid {
    Uuid::from_u64_pair(run, number)
}

/// Returns the number of an event of this run from the header that has its id, as text; `None` for
/// any other text.
pub fn number(run: u64, header: &[u8]) -> Option<u64> {
    // A converter may have put it in quotes.
    let text = std::str::from_utf8(header).ok()?.trim_matches('"');
    let (of_run, number) = Uuid::parse_str(text).ok()?.as_u64_pair();
    (of_run == run).then_some(number)
}

impl Template {
    /// Returns an event as a logical message carries it.
    pub fn message(&self, id: Uuid) -> OutboxEvent {
        OutboxEvent {
            id: id.to_string(),
            aggregate_type: self.aggregate_type.to_owned(),
            aggregate_id: self.aggregate_id.clone(),
            event_type: self.event_type.clone(),
            payload: self.payload.clone().into_bytes().into(),
            created_at: crate::support::quantiles::now_ns(),
            ..OutboxEvent::default()
        }
    }
}
