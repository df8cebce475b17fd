//! Shares the pipelines among the instances of a fleet, by a Kafka consumer group.
//!
//! Each instance tells the group which pipelines it knows and which it runs. Kafka elects one of
//! them, which assigns each pipeline to one instance by name; Kafka itself reads neither. So no
//! topic stands for the pipelines: shares of a topic with a partition for each would be balanced
//! only by chance, and could not keep a limit for each instance.
//!
//! Two instances never read a pipeline at the same time: its slot has one reader. A pipeline that moves
//! is prepared by its new instance, which stands by for the slot, before the old one stops it.
//!
//! | file | idea |
//! | --- | --- |
//! | `assignment` | assigns the pipelines, on the leader of the group |
//! | `holdings` | what this instance runs, prepares and stops |
//! | `messages` | what the instances tell each other |
//! | `preparations` | pipelines that are prepared while others still run them |
//! | `sharing` | the task that follows the group's assignments |

mod assignment;
mod holdings;
mod messages;
mod preparations;
mod sharing;

#[cfg(feature = "cli")]
pub(super) use self::messages::{InstanceAssignment, InstanceMetadata, decode};
pub(super) use self::sharing::Sharing;
