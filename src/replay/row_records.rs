//! Makes the records of a row, as the relay does.

use std::sync::Arc;

use crate::{
    Event, Result,
    config::Config,
    record::Record,
    routing::{Decision, OutgoingEvent, Routes},
    schema_registry::Registry,
};

/// Routes and formats of a configuration.
pub(crate) struct RowRecords {
    routes: Arc<Routes>,
    registry: Registry,
}

impl RowRecords {
    /// Reads the routes of a configuration.
    ///
    /// # Errors
    /// A route or the schema registry's settings are invalid.
    pub fn new(config: &Config) -> Result<Self> {
        let routes = Routes::new(config).map_err(|mistake| mistake.error(None))?;
        Ok(RowRecords { routes: Arc::new(routes), registry: Registry::new(config)? })
    }

    /// Routes an event. A row that is no event is refused.
    pub fn decide(&self, event: &Event) -> Decision {
        match event.refusal() {
            Some(refusal) => Decision::Refused(refusal.error.clone()),
            None => self.routes.decide(event).1,
        }
    }

    /// Makes the record of a routed event.
    ///
    /// # Errors
    /// The event can't be a record, or the schema registry can't be reached.
    pub async fn record(&self, topic: &str, outgoing: &OutgoingEvent) -> Result<Record> {
        let schema_ref = outgoing.schema_ref(topic).ok().flatten();
        let prefixes = self.registry.prefixes(topic, schema_ref).await?;
        outgoing.record(topic, &prefixes)
    }
}
