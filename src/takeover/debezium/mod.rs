//! Takes over from Debezium, in Kafka Connect or in Debezium Server.
//!
//! | file | idea |
//! | --- | --- |
//! | `config_file` | pure: reads a connector's keys and values from the text of its file |
//! | `shadow` | compares factlib's records with those of Debezium while it runs |
//! | `server_names` | pure: names of Debezium Server's settings, as Kafka Connect has them |
//! | `connector` | the configuration of a connector, with typed access |
//! | [`offset`] | how far a connector got |
//! | `mapping` | pure: maps each of its settings to factlib's |

mod config_file;
mod connector;
mod mapping;
pub mod offset;
mod server_names;
mod shadow;

pub use self::{
    connector::{ConnectorConfig, Database, Entry, OffsetStorage, Runtime},
    mapping::{ConfigMapping, Equivalence, MappedSetting},
    shadow::{Difference, DifferenceKind, KnownDifference, Shadow, ShadowOptions, ShadowReport},
};
