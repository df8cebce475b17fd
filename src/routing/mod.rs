//! Where an event goes and what it becomes there: `[[route]]`, the first that matches.
//!
//! | file | idea |
//! | --- | --- |
//! | `pattern` | pure: one condition: a text, a glob or a regular expression |
//! | `template` | pure: texts over an event's fields |
//! | `route` | one `[[route]]`, checked |
//! | `routes` | pure: all of them: which takes an event, and the records it becomes |
//! | `plan` | how an event's record is made, when it is sent |
//! | `settings` | what is said in a configuration |
//! | `names` | topics' names: legal, and not too many |
//! | `own_topics` | the relay's own topics, to which no event may go |
//! | `cached_routes` | the router's side: decisions that hold for a type are made once |
//! | [`explain()`] | the same, for people |
//!
//! # Cost
//! Without a route and with the format `protobuf`, an event's topic is one look into a map.
//! With routes that look at the types alone it is one as well: the decision is kept for the
//! pair of types. A route that matches on an id or on metadata is asked for every event.

mod cached_routes;
mod explain;
mod names;
mod own_topics;
mod pattern;
mod plan;
mod route;
mod routes;
pub(crate) mod settings;
mod template;

pub(crate) use self::{
    cached_routes::{CachedRoutes, Routed},
    own_topics::OwnTopics,
    pattern::{Captures, Pattern},
    plan::{OutgoingEvents, Plans},
    routes::{Decision, Routes},
};
pub use self::{
    explain::{ExplainedRecord, Explanation, RoutingOutcome, explain},
    plan::OutgoingEvent,
    settings::RoutingSettings,
};
