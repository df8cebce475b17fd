use std::sync::Arc;

use super::routes::{Choice, Routes};
use crate::{Event, Result, format::MadeRecord, schema_registry::Need};

/// How the record of an event is made, where it is not the usual one.
///
/// It goes with the event, and the record is made of both when it is sent: what waits is the
/// event alone, which the byte window counts.
pub(crate) struct Way {
    routes: Arc<Routes>,
    choice: Choice,
}

impl Way {
    pub(super) fn new(routes: &Arc<Routes>, choice: Choice) -> Self {
        Way { routes: Arc::clone(routes), choice }
    }

    pub(super) fn choice(&self) -> &Choice {
        &self.choice
    }

    /// The schema that the value of that record is written by in a topic, if it is by one.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn need(&self, event: &Event, topic: &str) -> Result<Option<Need>> {
        self.routes.need(&self.choice, event, topic)
    }

    /// The record of an event that goes this way, without what its schema puts before the value.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`](crate::ErrorKind::RecordRefused): why there can be none.
    pub fn record(&self, event: &Event) -> Result<MadeRecord> {
        self.routes.record(&self.choice, event)
    }
}
