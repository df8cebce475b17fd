//! Reports the pipelines of a fleet for `factlib fleet status`: who runs each, and how far behind it is.
//!
//! The group's coordinator says who runs what, and each PostgreSQL server how its slots are. A server
//! that can't be asked is a remark at its pipelines.

mod slots;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use slog::Logger;

use self::slots::{SlotState, slots};
use super::group::{InstanceAssignment, InstanceMetadata, decode};
use crate::{
    Result,
    config::Config,
    kafka::groups::{GroupReader, MemberDescription},
};

/// A fleet at one moment.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct FleetReport {
    /// `fleet.group`.
    pub group: Option<String>,
    /// State of the group as Kafka names it, such as `Stable`.
    pub state: Option<String>,
    /// Instances of the group.
    pub instances: Vec<InstanceReport>,
    /// Pipelines by name.
    pub pipelines: Vec<PipelineReport>,
}

/// An instance of a group.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct InstanceReport {
    /// Name.
    pub instance: String,
    /// Address that the broker sees.
    pub host: String,
    /// Number of pipelines that it runs.
    pub pipelines: usize,
    /// `fleet.max_pipelines`, if there is a limit.
    pub max_pipelines: Option<usize>,
}

/// A pipeline of a fleet.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct PipelineReport {
    /// Name.
    pub name: String,
    /// Instance that runs it.
    pub instance: Option<String>,
    /// Unix time (seconds) since which that instance runs it.
    pub since: Option<u64>,
    /// True if its slot is being read.
    pub active: Option<bool>,
    /// WAL after the slot's confirmed position, in bytes.
    pub lag_bytes: Option<u64>,
    /// The reason why nobody runs it, or why its slot is not known.
    pub problem: Option<String>,
}

impl FleetReport {
    /// Pipelines that nobody runs. Without a group, those whose slot nobody reads.
    pub fn unowned(&self) -> usize {
        let is_unowned = |one: &&PipelineReport| match self.group {
            Some(_) => one.instance.is_none(),
            None => one.active != Some(true),
        };
        self.pipelines.iter().filter(is_unowned).count()
    }
}

/// Asks the group and the servers. `pipelines` are those of this machine's configuration, each with the
/// mistake in it, if there is one.
///
/// # Errors
/// Kafka can't be asked for the group.
pub async fn report(
    config: &Config,
    pipelines: BTreeMap<String, Result<Config>>,
    log: &Logger,
) -> Result<FleetReport> {
    let mut report = FleetReport::default();
    let mut names: BTreeSet<String> = pipelines.keys().cloned().collect();
    let mut members = Vec::new();
    if let Some(group) = &config.fleet.group {
        let described = GroupReader::new(&config.kafka.settings())?.read(group).await?;
        report.group = Some(group.clone());
        report.state = Some(described.state);
        members = described.members.iter().map(Instance::read).collect();
    }
    for member in &members {
        names.extend(member.tells.known.iter().cloned());
        names.extend(member.runs.pipelines.keys().cloned());
        report.instances.push(member.report());
    }
    report.instances.sort_by(|a, b| a.instance.cmp(&b.instance));
    let slots = slots(&pipelines, log).await;
    let is_shared = report.group.is_some();
    report.pipelines = names
        .into_iter()
        .map(|name| {
            let slot = slots.get(&name);
            let mut one = PipelineReport { name, ..PipelineReport::default() };
            if is_shared {
                one.owned(&members);
            }
            one.read_by(slot);
            one
        })
        .collect();
    Ok(report)
}

/// An instance as its messages describe it.
struct Instance {
    host: String,
    tells: InstanceMetadata,
    runs: InstanceAssignment,
}

impl Instance {
    fn read(member: &MemberDescription) -> Self {
        let mut tells = decode::<InstanceMetadata>(&member.metadata).unwrap_or_default();
        if tells.instance.is_empty() {
            tells.instance.clone_from(&member.id);
        }
        let runs = decode(&member.assignment).unwrap_or_default();
        Instance { host: member.host.trim_start_matches('/').to_owned(), tells, runs }
    }

    fn report(&self) -> InstanceReport {
        InstanceReport {
            instance: self.tells.instance.clone(),
            host: self.host.clone(),
            pipelines: self.runs.pipelines.len(),
            max_pipelines: self.tells.max,
        }
    }
}

impl PipelineReport {
    /// Finds the instance that runs it, or the reason why there is none.
    fn owned(&mut self, members: &[Instance]) {
        let owner = members.iter().find(|one| one.runs.pipelines.contains_key(&self.name));
        if let Some(owner) = owner {
            self.instance = Some(owner.tells.instance.clone());
            self.since = owner.runs.pipelines.get(&self.name).copied();
            return;
        }
        let stops = |one: &&Instance| {
            one.tells.ending.contains(&self.name) || one.tells.held.contains_key(&self.name)
        };
        let knows = |one: &Instance| one.tells.known.contains(&self.name);
        self.problem = Some(if let Some(from) = members.iter().find(stops) {
            format!("{} is stopping it", from.tells.instance)
        } else if members.is_empty() {
            "no instance is in the group".into()
        } else if !members.iter().any(knows) {
            "no instance of the group has it in its configuration".into()
        } else if members.iter().any(|one| one.runs.unassigned.contains(&self.name)) {
            "each instance that knows it runs its fleet.max_pipelines".into()
        } else {
            "the group is assigning it".into()
        });
    }

    fn read_by(&mut self, slot: Option<&Result<SlotState, String>>) {
        match slot {
            Some(Ok(slot)) => (self.active, self.lag_bytes) = (Some(slot.active), slot.lag_bytes),
            Some(Err(problem)) => {
                let before = self.problem.take().map(|other| other + "; ").unwrap_or_default();
                self.problem = Some(before + problem);
            }
            // Only other instances know it.
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str, known: &[&str], runs: &[&str]) -> Instance {
        let owned = |name: &&str| (*name).to_owned();
        let mut tells = InstanceMetadata { instance: name.into(), ..InstanceMetadata::default() };
        tells.known = known.iter().map(owned).collect();
        let runs = InstanceAssignment {
            pipelines: runs.iter().map(|name| (owned(name), 7)).collect(),
            unassigned: ["full".to_owned()].into(),
            ..InstanceAssignment::default()
        };
        Instance { host: "10.0.0.1".into(), tells, runs }
    }

    #[test]
    fn a_pipeline_that_nobody_runs_says_why() {
        let mut members = vec![
            instance("a", &["runs", "moves", "full", "new"], &["runs"]),
            instance("b", &["runs", "moves", "full"], &[]),
        ];
        members[0].tells.ending.insert("moves".into());
        for (name, instance, problem) in [
            ("runs", Some("a"), None),
            ("moves", None, Some("a is stopping it")),
            ("full", None, Some("each instance that knows it runs its fleet.max_pipelines")),
            ("new", None, Some("the group is assigning it")),
            ("gone", None, Some("no instance of the group has it in its configuration")),
        ] {
            let mut one = PipelineReport { name: name.into(), ..PipelineReport::default() };
            one.owned(&members);
            assert_eq!((one.instance.as_deref(), one.problem.as_deref()), (instance, problem));
            assert_eq!(one.since, instance.map(|_| 7));
        }
        let mut one = PipelineReport { name: "runs".into(), ..PipelineReport::default() };
        one.owned(&[]);
        assert_eq!(one.problem.as_deref(), Some("no instance is in the group"));
        one.read_by(Some(&Err("no answer".into())));
        assert_eq!(one.problem.as_deref(), Some("no instance is in the group; no answer"));
    }
}
