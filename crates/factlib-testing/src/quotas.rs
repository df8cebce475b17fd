//! Limits the rate of producers, as an operator does with quotas.

use kafka_protocol::{
    messages::{
        AlterClientQuotasRequest,
        alter_client_quotas_request::{EntityData, EntryData, OpData},
    },
    protocol::StrBytes,
};

use crate::{
    Result,
    admin_request::{check, send},
};

const WHAT: &str = "cannot change a quota in Kafka";

/// Limits what clients with this id write to each broker, in bytes a second; `None` lifts the limit.
/// Brokers throttle a client that exceeds it.
///
/// # Errors
/// The brokers can't be reached, or refuse.
pub async fn limit_rate(bootstrap: &str, client_id: &str, bytes: Option<u32>) -> Result<()> {
    let entity = EntityData::default()
        .with_entity_type(StrBytes::from_static_str("client-id"))
        .with_entity_name(Some(StrBytes::from_string(client_id.to_owned())));
    let limit = OpData::default()
        .with_key(StrBytes::from_static_str("producer_byte_rate"))
        .with_value(bytes.unwrap_or_default().into())
        .with_remove(bytes.is_none());
    let entry = EntryData::default().with_entity(vec![entity]).with_ops(vec![limit]);
    let request = AlterClientQuotasRequest::default().with_entries(vec![entry]);
    let response = send(bootstrap, &request, 1, WHAT).await?;
    check(response.entries.iter().map(|entry| entry.error_code), WHAT)
}
