//! FindCoordinator: asks which broker coordinates a group or a transactional id.

use kafka_protocol::{
    messages::{FindCoordinatorRequest, FindCoordinatorResponse},
    protocol::StrBytes,
};

use crate::error::{Result, check};

/// What a broker coordinates.
#[derive(Clone, Copy)]
pub(crate) enum CoordinatorKey<'a> {
    Group(&'a str),
    TransactionalId(&'a str),
}

impl CoordinatorKey<'_> {
    /// Newest version that takes a single key.
    pub const VERSION: i16 = 3;

    pub fn request(self) -> FindCoordinatorRequest {
        let (key_type, key) = match self {
            CoordinatorKey::Group(name) => (0, name),
            CoordinatorKey::TransactionalId(id) => (1, id),
        };
        let key = StrBytes::from_string(key.to_owned());
        FindCoordinatorRequest::default().with_key(key).with_key_type(key_type)
    }

    /// Reads host and port from the response.
    pub fn address(self, response: &FindCoordinatorResponse) -> Result<(String, u16)> {
        check(response.error_code, response.error_message.as_deref(), || match self {
            CoordinatorKey::Group(name) => {
                format!("cannot find the coordinator of the group {name}")
            }
            CoordinatorKey::TransactionalId(_) => {
                "cannot find the coordinator of transactions".into()
            }
        })?;
        Ok((response.host.to_string(), response.port as u16))
    }
}
