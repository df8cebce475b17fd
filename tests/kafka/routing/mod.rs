//! Routes and formats on real servers: events go where they should, as what they should,
//! each once and in order, and what is refused comes back by the same route.

mod dead_letters;
mod formats;
mod history;
mod policies;
mod replay;
mod tables;

use factlib::config::Route;

use crate::support::records::{emit, header, records};

/// Takes an aggregate type; to these topics.
fn route(aggregate_type: &str, topics: &[&str]) -> Route {
    topics.iter().fold(Route::of(aggregate_type), |route, topic| route.to(*topic))
}
