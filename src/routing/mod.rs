//! Decides which topics an event goes to and how its records are made, by the first `[[route]]`
//! that matches.
//!
//! | file | idea |
//! | --- | --- |
//! | `pattern` | pure: one condition: an exact text, a glob or a regular expression |
//! | `template` | pure: texts with placeholders for an event's fields |
//! | `route` | one validated `[[route]]` |
//! | `routes` | pure: all routes; picks one for an event and makes its records |
//! | `plan` | the instructions by which an event's record is made when it is sent |
//! | `settings` | the settings, as a configuration has them |
//! | `names` | topic names: checks that they are legal, and limits their number |
//! | `own_topics` | the relay's own topics, which events may not go to |
//! | `cached_routes` | the routes as the router uses them, with one cached decision per type |
//! | [`explain()`] | shows the outcome for an event, without sending it |
//!
//! # Cost
//! Without routes and with the format `protobuf`, finding an event's topic is one map lookup. With
//! routes that match on types alone it is one lookup too: the decision is cached for the pair of
//! aggregate type and event type. Routes that match on an id or on metadata are evaluated for every
//! event.

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
