//! Parses librdkafka's statistics, and keeps only what an operator needs.
//!
//! Format: <https://github.com/confluentinc/librdkafka/blob/master/STATISTICS.md>.
//! Topics and partitions, nearly all of the text, are skipped without being parsed.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use super::{BrokerStatus, KafkaStatus};

/// Statistics of one client.
pub(crate) struct Statistics {
    /// The client's name.
    pub name: String,
    pub status: KafkaStatus,
    /// Number of partitions of each topic of which it knows any.
    pub partitions: BTreeMap<String, usize>,
}

/// Parses librdkafka's statistics.
///
/// # Errors
/// A text that is not librdkafka's.
pub(crate) fn parse(statistics: &[u8]) -> Result<Statistics, serde_json::Error> {
    let client: Client = serde_json::from_slice(statistics)?;
    let known = |broker: &Broker| matches!(broker.source.as_str(), "learned" | "configured");
    let brokers = client.brokers.into_values().filter(known);
    let status = KafkaStatus {
        queue_records: client.msg_cnt,
        queue_bytes: client.msg_size,
        brokers: brokers.map(|broker| (broker.name.clone(), broker.status())).collect(),
    };
    let counts = client.topics.into_iter().map(|(name, topic)| (name, topic.partitions.0));
    let partitions = counts.filter(|(_, count)| *count > 0).collect();
    Ok(Statistics { name: client.name, status, partitions })
}

#[derive(Deserialize)]
struct Client {
    name: String,
    #[serde(default)]
    msg_cnt: u64,
    #[serde(default)]
    msg_size: u64,
    #[serde(default)]
    brokers: BTreeMap<String, Broker>,
    #[serde(default)]
    topics: BTreeMap<String, Topic>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Topic {
    partitions: PartitionCount,
}

/// Counts the partitions, and skips what is said of each.
#[derive(Default)]
struct PartitionCount(usize);

/// librdkafka's name for the queue of records that have no partition yet.
const UNASSIGNED: &str = "-1";

impl<'de> Deserialize<'de> for PartitionCount {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(PartitionCount::default())
    }
}

impl<'de> Visitor<'de> for PartitionCount {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("partitions by number")
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<Self, M::Error> {
        while let Some((number, _)) = map.next_entry::<&str, IgnoredAny>()? {
            self.0 += usize::from(number != UNASSIGNED);
        }
        Ok(self)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Broker {
    name: String,
    source: String,
    state: String,
    outbuf_cnt: i64,
    waitresp_cnt: i64,
    rtt: Window,
    txerrs: u64,
    txretries: u64,
    req_timeouts: u64,
    txbytes: u64,
}

/// In microseconds, of the time since the last statistics.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Window {
    cnt: i64,
    avg: u32,
    p99: u32,
}

impl Broker {
    fn status(self) -> BrokerStatus {
        let Window { cnt, avg, p99 } = self.rtt;
        let seconds = |us: u32| (cnt > 0).then(|| f64::from(us) / 1e6);
        BrokerStatus {
            connected: matches!(self.state.as_str(), "UP" | "UPDATE"),
            // Less than none for a moment, as counted by several threads.
            waiting_requests: self.outbuf_cnt.try_into().unwrap_or(0),
            requests_in_flight: self.waitresp_cnt.try_into().unwrap_or(0),
            rtt_seconds: seconds(avg),
            rtt_p99_seconds: seconds(p99),
            send_errors: self.txerrs,
            send_retries: self.txretries,
            request_timeouts: self.req_timeouts,
            sent_bytes: self.txbytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_those_that_it_learned_or_was_told_of() {
        let text = br#"{"name":"factlib#producer-1","msg_cnt":7,"msg_size":900,"topics":{
              "t":{"topic":"t","partitions":{"0":{"txmsgs":1},"-1":{},"1":{"a":[{}]}}},
              "new":{"partitions":{"-1":{}}}},
            "brokers":{
              "a:9092/1":{"name":"a:9092/1","source":"learned","state":"UP","outbuf_cnt":-1,
                "waitresp_cnt":2,"txerrs":3,"rtt":{"cnt":5,"avg":1500,"p99":9000,"min":4}},
              "b:9092/bootstrap":{"name":"b:9092/bootstrap","source":"configured","state":"DOWN",
                "rtt":{"cnt":0,"avg":0,"p99":0}},
              ":0/internal":{"name":":0/internal","source":"internal","state":"INIT"}}}"#;
        let Statistics { name, status, partitions } = parse(text).expect("it is librdkafka's");
        assert_eq!(partitions, [("t".to_owned(), 2)].into());
        assert_eq!(
            (&*name, status.queue_records, status.queue_bytes),
            ("factlib#producer-1", 7, 900)
        );
        let names: Vec<_> = status.brokers.keys().map(String::as_str).collect();
        assert_eq!(names, ["a:9092/1", "b:9092/bootstrap"]);
        let (a, b) = (&status.brokers["a:9092/1"], &status.brokers["b:9092/bootstrap"]);
        assert!(a.connected && a.waiting_requests == 0 && a.requests_in_flight == 2);
        assert_eq!(
            (a.rtt_seconds, a.rtt_p99_seconds, a.send_errors),
            (Some(0.0015), Some(0.009), 3)
        );
        assert!(!b.connected && b.rtt_seconds.is_none());
        assert!(parse(b"[]").is_err());
    }
}
