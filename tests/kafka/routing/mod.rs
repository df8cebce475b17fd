//! Routes and formats on real servers: events go where they should, as what they should,
//! each once and in order, and what is refused comes back by the same route.

mod dead_letters;
mod formats;
mod history;
mod policies;
mod replay;
mod tables;

use factlib::config::{Route, RouteMatch};

use crate::support::records::{emit, header, records};

/// Takes an aggregate type; to these topics.
fn route(aggregate_type: &str, topics: &[&str]) -> Route {
    let aggregate_type = Some(aggregate_type.to_owned());
    Route {
        matches: RouteMatch { aggregate_type, ..Default::default() },
        topic: topics.iter().map(|topic| topic.to_string()).collect(),
        ..Default::default()
    }
}
