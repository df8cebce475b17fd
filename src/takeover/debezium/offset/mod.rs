//! Reads how far a connector got: the offset that Kafka Connect or Debezium Server keeps for it.
//!
//! | file | idea |
//! | --- | --- |
//! | `java_map` | the file of offsets, a serialised Java map |
//! | `topic` | the topic of offsets, compacted by connector |

mod java_map;
mod topic;

use std::{fmt, fs, path::Path};

use serde::Deserialize;
use serde_json::Value;

pub use self::topic::read_topic;
use crate::{Error, ErrorKind, Lsn, Result};

/// The connector whose offset is wanted.
#[allow(clippy::exhaustive_structs)] // The key of an offset has these two parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorName {
    /// Name of the connector; none matches any, as a Debezium Server has one.
    pub connector: Option<String>,
    /// `topic.prefix`.
    pub server: String,
}

/// How far a connector got.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ConnectorOffset {
    /// Position of the last change that was sent.
    pub lsn: Option<Lsn>,
    /// Position of the last transaction whose end it has seen.
    pub lsn_commit: Option<Lsn>,
    /// True while its first snapshot is not complete: rows of it may be missing in the topics.
    pub in_snapshot: bool,
}

impl fmt::Display for ConnectorOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.lsn, self.lsn_commit) {
            (Some(lsn), Some(commit)) => write!(f, "{lsn}, last commit {commit}"),
            (Some(lsn), None) => write!(f, "{lsn}"),
            (None, _) => write!(f, "without a position"),
        }?;
        if self.in_snapshot { write!(f, ", in its snapshot") } else { Ok(()) }
    }
}

/// The value of an offset, as Debezium's `PostgresOffsetContext` writes it.
#[derive(Deserialize)]
struct RawOffset {
    lsn: Option<u64>,
    lsn_commit: Option<u64>,
    /// A kind of snapshot, or true; absent in the stream.
    snapshot: Option<Value>,
    snapshot_completed: Option<bool>,
    last_snapshot_record: Option<bool>,
}

impl ConnectorOffset {
    /// Parses the JSON value of an offset.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it is none of Debezium's PostgreSQL connector.
    pub fn parse(value: &[u8]) -> Result<Self> {
        let raw: RawOffset = serde_json::from_slice(value).map_err(|error| {
            let what = "the offset is none of Debezium's PostgreSQL connector";
            Error::new(ErrorKind::Config, what).caused_by(error)
        })?;
        let snapshot = match raw.snapshot {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::String(kind)) => !kind.eq_ignore_ascii_case("false"),
            Some(_) => true,
        };
        let completed = raw.snapshot_completed.or(raw.last_snapshot_record) == Some(true);
        let of = |lsn: Option<u64>| lsn.map(Lsn::new);
        Ok(ConnectorOffset {
            lsn: of(raw.lsn),
            lsn_commit: of(raw.lsn_commit),
            in_snapshot: snapshot && !completed,
        })
    }
}

impl ConnectorOffset {
    /// # Errors
    /// [`ErrorKind::PositionLost`] if the first snapshot is not complete.
    pub fn refuse_snapshot(&self) -> Result<()> {
        if !self.in_snapshot {
            return Ok(());
        }
        let what = "the connector's first snapshot is not complete, as its offset says: rows of it may \
                    be missing in the topics";
        Err(Error::new(ErrorKind::PositionLost, what).remedy("let Debezium complete it first"))
    }
}

impl ConnectorName {
    /// True if this is the key of the connector's offset: `["connector",{"server":"prefix"}]`.
    fn is_key(&self, key: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Partition {
            server: String,
        }
        let key: Option<(String, Partition)> = serde_json::from_slice(key).ok();
        key.is_some_and(|(connector, partition)| {
            partition.server == self.server
                && self.connector.as_ref().is_none_or(|wanted| *wanted == connector)
        })
    }
}

/// Reads the offset from the file of a Debezium Server or a standalone Kafka Connect; none if it has
/// none of this connector, or does not exist.
///
/// # Errors
/// [`ErrorKind::Config`] if the file can't be read.
pub fn read_file(path: &Path, name: &ConnectorName) -> Result<Option<ConnectorOffset>> {
    let failed = || {
        let what = format!("cannot read the offsets in {}", path.display());
        Error::new(ErrorKind::Config, what)
    };
    let bytes = match fs::read(path) {
        Ok(bytes) if bytes.is_empty() => return Ok(None),
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed().caused_by(error)),
    };
    let entries = java_map::parse(&bytes).map_err(|what| {
        let remedy = "it has to be the file of offset.storage.file.filename";
        failed().remedy(remedy).caused_by(what)
    })?;
    let value =
        entries.into_iter().find_map(|(key, value)| if name.is_key(&key) { value } else { None });
    value.map(|value| ConnectorOffset::parse(&value)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_tells_how_far_the_stream_or_the_snapshot_got() {
        let offset = |text: &str| ConnectorOffset::parse(text.as_bytes()).expect("an offset");
        let stream = offset(
            r#"{"lsn_proc":23876544,"messageType":"INSERT","lsn_commit":23876000,"lsn":23876544,
                "txId":745,"ts_usec":1700000000000000}"#,
        );
        assert_eq!(stream.to_string(), "0/16C53C0, last commit 0/16C51A0");
        assert!(!stream.in_snapshot);
        let begun = offset(r#"{"snapshot":"INITIAL","snapshot_completed":false,"lsn":256}"#);
        assert_eq!(begun.to_string(), "0/100, in its snapshot");
        let error = begun.refuse_snapshot().expect_err("a refusal").to_string();
        assert!(
            error.starts_with("the connector's first snapshot is not complete, as "),
            "{error}"
        );
        assert!(!offset(r#"{"snapshot":"INITIAL","snapshot_completed":true,"lsn":1}"#).in_snapshot);
        assert!(offset(r#"{"last_snapshot_record":false,"snapshot":true,"lsn":1}"#).in_snapshot);
        let error = ConnectorOffset::parse(b"[1]").expect_err("none");
        let text = error.to_string();
        assert!(
            text.starts_with("the offset is none of Debezium's PostgreSQL connector"),
            "{text}"
        );
    }

    #[test]
    fn a_key_names_the_connector_and_its_prefix() {
        let name = |connector: Option<&str>| ConnectorName {
            connector: connector.map(str::to_owned),
            server: "shop".into(),
        };
        let key = br#"["outbox",{"server":"shop"}]"#;
        assert!(name(Some("outbox")).is_key(key) && name(None).is_key(key));
        assert!(!name(Some("other")).is_key(key));
        assert!(!name(None).is_key(br#"["outbox",{"server":"shops"}]"#));
        assert!(!name(None).is_key(br#"{"server":"shop"}"#));
    }

    #[test]
    fn a_file_that_is_no_map_is_refused_and_a_missing_one_has_no_offset() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("offsets.dat");
        let name = ConnectorName { connector: None, server: "shop".into() };
        assert_eq!(read_file(&path, &name).expect("no file"), None);
        fs::write(&path, "{}").expect("written");
        let error = read_file(&path, &name).expect_err("no map").to_string();
        assert!(error.starts_with("cannot read the offsets in "), "{error}");
    }
}
