//! `factlib fleet status`: lists the pipelines of a fleet, who runs each, and its lag.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, UNIX_EPOCH},
};

use actix_rt::System;
use bytesize::ByteSize;
use factlib::{
    Error, ErrorKind, Result,
    binary::{FleetReport, InstanceReport, Loader, PipelineReport, databases, fleet_report},
    config::Config,
};
use slog::Logger;

use crate::{
    output,
    text::{plain, time},
};

/// Exit code if nobody runs some pipeline.
const UNOWNED: u8 = 1;

pub fn run(json: bool, loader: &Loader, config: &Config, log: &Logger) -> Result<ExitCode> {
    if config.fleet.group.is_none() && !config.fleet.is_set() {
        let failure =
            "there is no fleet: none of fleet.group, fleet.pipelines and fleet.databases is set";
        return Err(Error::new(ErrorKind::Config, failure).remedy("see docs/fleet.md"));
    }
    let report = System::new().block_on(async {
        let pipelines = pipelines(loader, config, log).await?;
        fleet_report(config, pipelines, log).await
    })?;
    output::print(&if json { output::json(&report)? } else { text(&report) })?;
    Ok(if report.unowned() == 0 { ExitCode::SUCCESS } else { ExitCode::from(UNOWNED) })
}

/// The pipelines of the configuration. If the databases can't be listed, those of the folder and of
/// the group are left.
async fn pipelines(
    loader: &Loader,
    config: &Config,
    log: &Logger,
) -> Result<BTreeMap<String, Result<Config>>> {
    let found = match config.fleet.databases.is_empty() {
        true => Vec::new(),
        false => databases(config, log).await.unwrap_or_else(|error| {
            output::print_error(&error.to_string());
            Vec::new()
        }),
    };
    let names = loader.pipelines(&config.fleet, &found)?.into_keys();
    let load = |name: String| {
        let loaded = loader.load_pipeline(&config.fleet, &name).map(|loaded| loaded.config);
        (name, loaded)
    };
    Ok(names.map(load).collect())
}

fn text(report: &FleetReport) -> String {
    let mut text = String::new();
    if let Some(group) = &report.group {
        let state = report.state.as_deref().unwrap_or("unknown");
        text += &format!("group {group}: {state}, instances: {}\n\n", report.instances.len());
        if !report.instances.is_empty() {
            let rows = report.instances.iter().map(instance_row);
            text += &output::columns(&["INSTANCE", "HOST", "PIPELINES", "MAX"], rows);
            text += "\n";
        }
    }
    let rows = report.pipelines.iter().map(pipeline_row);
    text += &output::columns(&["PIPELINE", "INSTANCE", "SINCE", "LAG", "SLOT"], rows);
    let problems = report.pipelines.iter().filter_map(|one| {
        Some(format!("{}: {}\n", plain(&one.name), plain(one.problem.as_ref()?)))
    });
    let problems: String = problems.collect();
    if !problems.is_empty() {
        text += "\n";
        text += &problems;
    }
    let (all, unowned) = (report.pipelines.len(), report.unowned());
    text + &format!("\n{all} pipelines: {} run, {unowned} do not\n", all - unowned)
}

fn instance_row(one: &InstanceReport) -> Vec<String> {
    let max = one.max_pipelines.map_or_else(none, |max| max.to_string());
    vec![plain(&one.instance), plain(&one.host), one.pipelines.to_string(), max]
}

fn pipeline_row(one: &PipelineReport) -> Vec<String> {
    let slot = match one.active {
        Some(true) => "active",
        Some(false) => "inactive",
        None => "unknown",
    };
    vec![
        plain(&one.name),
        one.instance.as_deref().map_or_else(none, plain),
        one.since.map_or_else(none, |since| time(UNIX_EPOCH + Duration::from_secs(since))),
        one.lag_bytes.map_or_else(none, |lag| ByteSize::b(lag).to_string()),
        slot.to_owned(),
    ]
}

fn none() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_who_runs_what_and_why_the_rest_does_not_run() {
        let mut report = FleetReport::default();
        report.group = Some("relays".into());
        report.state = Some("Stable".into());
        let mut instance = InstanceReport::default();
        (instance.instance, instance.host) = ("relay-0".into(), "10.0.0.11".into());
        (instance.pipelines, instance.max_pipelines) = (1, Some(1));
        report.instances.push(instance);
        let mut acme = PipelineReport::default();
        (acme.name, acme.instance) = ("acme".into(), Some("relay-0".into()));
        (acme.since, acme.active, acme.lag_bytes) = (Some(1_795_779_603), Some(true), Some(1229));
        let mut globex = PipelineReport::default();
        (globex.name, globex.active) = ("globex".into(), Some(false));
        globex.problem = Some("no room\n".into());
        report.pipelines.extend([acme, globex]);
        let expected = "\
group relays: Stable, instances: 1

INSTANCE  HOST       PIPELINES  MAX
relay-0   10.0.0.11  1          1

PIPELINE  INSTANCE  SINCE                 LAG      SLOT
acme      relay-0   2026-11-27T11:40:03Z  1.2 KiB  active
globex    -         -                     -        inactive

globex: no room\\n

2 pipelines: 1 run, 1 do not
";
        assert_eq!(text(&report), expected);
        // Without a group, who reads the slot runs the pipeline.
        report.group = None;
        assert_eq!(report.unowned(), 1);
        report.pipelines[1].active = Some(true);
        assert_eq!(report.unowned(), 0);
    }
}
