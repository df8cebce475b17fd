//! `factlib takeover debezium --check` and `--take`: goes on where Debezium stopped.

use std::{
    io::{IsTerminal, stderr},
    process::ExitCode,
    time::{Duration, Instant},
};

use actix_rt::System;
use clap::Args;
use factlib::{
    Result,
    config::Config,
    takeover::{
        debezium::{
            ConnectorConfig, OffsetStorage,
            offset::{ConnectorName, ConnectorOffset, read_file, read_topic},
        },
        handover::{HandoverOptions, HandoverProgress, HandoverReport, hand_over},
    },
};
use serde_json::json;
use slog::Logger;

use crate::{log, output, signals::Signals};

#[derive(Debug, Args)]
#[command(next_help_heading = "Taking over")]
pub struct HandoverArgs {
    /// Say what waits in Debezium's slot, and what of it the topics have; change nothing
    #[arg(long, conflicts_with_all = ["take", "write", "shadow"])]
    pub check: bool,
    /// Take over: send what the topics lack, and save the position at which `factlib run` begins
    #[arg(long, requires = "factlib", conflicts_with_all = ["write", "shadow"])]
    pub take: bool,
    /// Topic of Debezium's offsets, if it is another than configured
    #[arg(long, value_name = "TOPIC")]
    pub offset_topic: Option<String>,
    /// Header with the event's id, if it is neither id nor event_id
    #[arg(long, value_name = "NAME")]
    pub id_header: Option<String>,
    /// Tolerated clock difference: topics are read from this long before the first waiting event
    #[arg(long, value_name = "DURATION", default_value = "10min", value_parser = duration)]
    pub clocks_differ: Duration,
    /// Events that can't be sent, to leave out (LSN if without id)
    #[arg(long, value_name = "ID,…", value_delimiter = ',')]
    pub leave_out: Vec<String>,
}

impl HandoverArgs {
    /// True if a takeover is asked for, or the check for one.
    pub fn is_asked(&self) -> bool {
        self.check || self.take
    }
}

pub fn run(
    args: &HandoverArgs,
    connector: &ConnectorConfig,
    config: &Config,
    is_json: bool,
) -> Result<ExitCode> {
    // Dropped last: the guard writes the lines that are still queued.
    let (log, _flush) = log::logger(&config.log);
    let mut options = HandoverOptions::default();
    (options.take, options.clocks_differ) = (args.take, args.clocks_differ);
    (options.id_header, options.left_out) = (args.id_header.clone(), args.leave_out.clone());
    options.other_slot = Some(connector.slot_name().to_owned());
    let mut progress = Progress::default();
    let (offset, report) = System::new().block_on(async {
        let work = async {
            let offset = offset(args, connector, config, &log).await?;
            if let Some(offset) = &offset {
                offset.refuse_snapshot()?;
            }
            let mut tell = |at| progress.show(at);
            Ok((offset, hand_over(config, &options, &log, &mut tell).await?))
        };
        Signals::new()?.or_stop(work).await
    })?;
    progress.clear();
    output::print(&match is_json {
        true => format!("{}\n", json!({"offset": offset, "handover": report})),
        false => format!("{}{report}", offset_text(offset.as_ref(), &report)),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Reads the connector's offset, where its configuration or a flag says where it is.
async fn offset(
    args: &HandoverArgs,
    connector: &ConnectorConfig,
    config: &Config,
    log: &Logger,
) -> Result<Option<ConnectorOffset>> {
    let Some(server) = connector.topic_prefix() else { return Ok(None) };
    let name = Some(connector.connector_name()).filter(|name| !name.is_empty());
    let name = ConnectorName { connector: name.map(str::to_owned), server: server.to_owned() };
    let storage = match &args.offset_topic {
        Some(topic) => OffsetStorage::Topic(topic.clone()),
        None => connector.offset_storage(),
    };
    match storage {
        OffsetStorage::File(path) => read_file(&path, &name),
        OffsetStorage::Topic(topic) => read_topic(config, &topic, &name, log).await,
        _ => Ok(None),
    }
}

fn offset_text(offset: Option<&ConnectorOffset>, report: &HandoverReport) -> String {
    let Some(offset) = offset else {
        return "Debezium's offset: not found; the slot's position counts (--worker or \
                --offset-topic names its place)\n"
            .into();
    };
    let mut text = format!("Debezium's offset: {offset}\n");
    if offset.lsn.is_some_and(|lsn| lsn < report.confirmed) {
        text += "the slot is further than the offset: changes of other tables lie between them, or \
                 somebody moved the slot; `factlib audit` finds what was lost\n";
    }
    text
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime_serde::re::humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// Shows the progress on a terminal, once per second.
#[derive(Default)]
struct Progress {
    shown: Option<Instant>,
}

impl Progress {
    fn show(&mut self, at: HandoverProgress) {
        let is_due = self.shown.is_none_or(|shown| shown.elapsed() >= Duration::from_secs(1));
        if !is_due || !stderr().is_terminal() {
            return;
        }
        self.shown = Some(Instant::now());
        let text = match at {
            HandoverProgress::Waiting(count) => format!("{count} events read from the slot"),
            HandoverProgress::Records(count) => format!("{count} records read from the topics"),
            HandoverProgress::Missing(count) => format!("{count} missing records"),
            _ => return,
        };
        eprint!("\r\x1b[K{text} ");
    }

    fn clear(&self) {
        if self.shown.is_some() {
            // Carriage return, erase to the end of the line.
            eprint!("\r\x1b[K");
        }
    }
}
