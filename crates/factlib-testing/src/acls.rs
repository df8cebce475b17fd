//! ACLs of Kafka's users.

use kafka_protocol::{
    messages::{
        CreateAclsRequest, DeleteAclsRequest, create_acls_request::AclCreation,
        delete_acls_request::DeleteAclsFilter,
    },
    protocol::StrBytes,
};

use crate::{
    Result,
    admin_request::{check, send},
};

const WHAT: &str = "cannot change ACLs in Kafka";

/// Version of both requests.
const VERSION: i16 = 3;

/// Types of resources.
const TOPIC: i8 = 2;
const TRANSACTIONAL_ID: i8 = 5;

/// Permissions.
const DENY: i8 = 2;
const ALLOW: i8 = 3;

/// The pattern names a prefix.
const PREFIXED: i8 = 4;

/// Any operation.
const ANY: i8 = 1;

/// An operation on a topic that a user is allowed or denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicRight {
    /// Consume records.
    Read = 3,
    /// Produce records.
    Write = 4,
    /// Create the topic.
    Create = 5,
    /// See the topic and its partitions.
    Describe = 8,
    /// Read the topic's settings.
    DescribeConfigs = 10,
}

/// Grants a user rights on all topics with this prefix; `bootstrap` is a listener where ACLs may be
/// changed, such as [`admin_bootstrap`](crate::KafkaServer::admin_bootstrap).
///
/// # Errors
/// The broker can't be reached, or refuses.
pub async fn grant(
    bootstrap: &str,
    user: &str,
    topic_prefix: &str,
    rights: &[TopicRight],
) -> Result<()> {
    create(bootstrap, user, (TOPIC, topic_prefix), rights, ALLOW).await
}

/// Denies a user these rights on all topics with this prefix; that overrides what is granted.
///
/// # Errors
/// As [`grant`].
pub async fn deny(
    bootstrap: &str,
    user: &str,
    topic_prefix: &str,
    rights: &[TopicRight],
) -> Result<()> {
    create(bootstrap, user, (TOPIC, topic_prefix), rights, DENY).await
}

/// Lifts all that [`deny`] denied a user on the topics with this prefix.
///
/// # Errors
/// As [`grant`].
pub async fn lift_denials(bootstrap: &str, user: &str, topic_prefix: &str) -> Result<()> {
    let filter = DeleteAclsFilter::default()
        .with_resource_type_filter(TOPIC)
        .with_resource_name_filter(Some(text(topic_prefix)))
        .with_pattern_type_filter(PREFIXED)
        .with_principal_filter(Some(principal(user)))
        .with_host_filter(None)
        .with_operation(ANY)
        .with_permission_type(DENY);
    let request = DeleteAclsRequest::default().with_filters(vec![filter]);
    let response = send(bootstrap, &request, VERSION, WHAT).await?;
    check(response.filter_results.iter().map(|result| result.error_code), WHAT)
}

/// Grants a user the right to write in transactions whose ids have this prefix.
///
/// # Errors
/// As [`grant`].
pub async fn grant_transactions(bootstrap: &str, user: &str, id_prefix: &str) -> Result<()> {
    let rights = [TopicRight::Describe, TopicRight::Write];
    create(bootstrap, user, (TRANSACTIONAL_ID, id_prefix), &rights, ALLOW).await
}

async fn create(
    bootstrap: &str,
    user: &str,
    (resource, prefix): (i8, &str),
    rights: &[TopicRight],
    permission: i8,
) -> Result<()> {
    let creations = rights.iter().map(|right| {
        AclCreation::default()
            .with_resource_type(resource)
            .with_resource_name(text(prefix))
            .with_resource_pattern_type(PREFIXED)
            .with_principal(principal(user))
            .with_host(text("*"))
            .with_operation(*right as i8)
            .with_permission_type(permission)
    });
    let request = CreateAclsRequest::default().with_creations(creations.collect());
    let response = send(bootstrap, &request, VERSION, WHAT).await?;
    check(response.results.iter().map(|result| result.error_code), WHAT)
}

fn principal(user: &str) -> StrBytes {
    text(&format!("User:{user}"))
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
