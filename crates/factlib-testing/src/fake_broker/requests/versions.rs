//! ApiVersions: the requests that the fake answers, in which versions, and its features.

use std::{collections::HashMap, time::Duration};

use bytes::{Buf, Bytes};
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse,
    api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey},
};

use super::{Answer, Answerable, Api, Call, Cluster, Code, Reply, encode, text};

/// Requests and the newest version of each. Topics are identified by name: newer versions of Produce
/// and Fetch use ids.
const NEWEST: [(Api, i16); 14] = [
    (Api::AddPartitionsToTxn, 3),
    (Api::ApiVersions, 4),
    (Api::CreatePartitions, 3),
    (Api::CreateTopics, 7),
    (Api::DeleteTopics, 5),
    (Api::DescribeConfigs, 4),
    (Api::EndTxn, 5),
    (Api::Fetch, 12),
    (Api::FindCoordinator, 3),
    (Api::IncrementalAlterConfigs, 1),
    (Api::InitProducerId, 5),
    (Api::ListOffsets, 7),
    (Api::Metadata, 12),
    (Api::Produce, 12),
];

/// Newest versions of requests that are limited.
type Limits = HashMap<Api, i16>;

/// Returns the oldest and the newest version of a request.
pub(super) fn supported(api: Api, limits: &Limits) -> Option<(i16, i16)> {
    let (_, newest) = NEWEST.iter().find(|(known, _)| *known == api)?;
    let newest = limits.get(&api).map_or(*newest, |limit| *newest.min(limit));
    let oldest = api.valid_versions().min;
    (oldest <= newest).then_some((oldest, newest))
}

/// Answers a version of ApiVersions that is too new: in version 0, with the versions to take.
pub(super) fn refuse(frame: &Bytes, limits: &Limits) -> Reply {
    let response = versions(limits).with_error_code(Code::UnsupportedVersion.code());
    encode((&frame[4..8]).get_i32(), &response, 0, Duration::ZERO)
}

impl Answerable for ApiVersionsRequest {
    fn answer(&self, cluster: &mut Cluster, call: &Call) -> Answer<ApiVersionsResponse> {
        let level = cluster.options.transaction_version;
        let feature = FinalizedFeatureKey::default()
            .with_name(text("transaction.version"))
            .with_min_version_level(level)
            .with_max_version_level(level);
        let supported = SupportedFeatureKey::default()
            .with_name(text("transaction.version"))
            .with_min_version(0)
            .with_max_version(2);
        Answer::Now(match call.version {
            0..3 => versions(&cluster.options.newest).with_error_code(call.code()),
            _ => versions(&cluster.options.newest)
                .with_error_code(call.code())
                .with_supported_features(vec![supported])
                .with_finalized_features_epoch(0)
                .with_finalized_features(vec![feature]),
        })
    }
}

fn versions(limits: &Limits) -> ApiVersionsResponse {
    let keys = NEWEST.iter().filter_map(|(api, _)| {
        let (oldest, newest) = supported(*api, limits)?;
        let key = ApiVersion::default().with_api_key(*api as i16);
        Some(key.with_min_version(oldest).with_max_version(newest))
    });
    ApiVersionsResponse::default().with_api_keys(keys.collect())
}
