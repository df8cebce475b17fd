//! `factlib move`: moves the relay to another PostgreSQL server, step by step.

mod args;

use std::time::Duration;

use actix_rt::System;
use bytesize::ByteSize;
use factlib::{
    Error, ErrorKind, Result,
    config::Config,
    server_move::{self, MoveStatus, ServerStatus, Servers},
};
use slog::Logger;

pub use self::args::MoveArgs;
use self::args::{MoveCommand, OtherServer};
use crate::{ask, output, signals::Signals};

pub fn run(args: &MoveArgs, config: &Config, log: &Logger) -> Result<()> {
    System::new().block_on(async {
        let mut signals = Signals::new()?;
        tokio::select! {
            done = step(&args.command, config, log) => done,
            signal = signals.next() => {
                let what = format!("{signal}: the command ended; run it again to go on");
                Err(Error::new(ErrorKind::PostgresUnavailable, what))
            }
        }
    })
}

async fn step(command: &MoveCommand, config: &Config, log: &Logger) -> Result<()> {
    // A closed pipe must not end a step.
    let tell: server_move::Tell<'_> = &|line: &str| _ = output::print(&format!("{line}\n"));
    match command {
        MoveCommand::Prepare { other, dry_run } => {
            let servers = servers(other, config)?;
            server_move::prepare(&servers, *dry_run, tell, log).await?;
            if *dry_run {
                return output::print("nothing was changed\n");
            }
            output::print(&format!(
                "next: switch the services that emit events to the new server; all of them, in any \
                 order.\nthen: factlib move finish {}\n",
                repeated(other, &servers)?
            ))
        }
        MoveCommand::Finish { other, quiet, timeout } => {
            let servers = servers(other, config)?;
            let finishing = server_move::finish(&servers, Duration::from_secs(*quiet), tell, log);
            match timeout {
                None => finishing.await?,
                Some(seconds) => within(*seconds, finishing).await?,
            };
            output::print(&after_finish(other, &servers)?)
        }
        MoveCommand::Status { other, json } => {
            let status = server_move::status(&servers(other, config)?, log).await?;
            output::print(&if *json { output::json(&status)? } else { text(&status) })
        }
        MoveCommand::Abort { other, yes } => {
            let accept = |loss: &str| *yes || ask::confirm(loss);
            server_move::abort(&servers(other, config)?, accept, tell, log).await
        }
        MoveCommand::Close { other, yes } => {
            let accept = |loss: &str| *yes || ask::confirm(loss);
            server_move::close(&servers(other, config)?, accept, tell, log).await
        }
    }
}

/// The configurations of both servers.
fn servers(other: &OtherServer, config: &Config) -> Result<Servers> {
    let at = |url: &str| server_move::on_server(config, url, other.other_slot.as_deref());
    match (&other.to, &other.from) {
        (Some(url), _) => Ok(Servers::new(config.clone(), at(url)?)),
        (None, Some(url)) => Ok(Servers::new(at(url)?, config.clone())),
        (None, None) => Err(Error::new(ErrorKind::Config, "no other server: --to or --from")),
    }
}

async fn within<T>(seconds: u64, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(Duration::from_secs(seconds), work).await.unwrap_or_else(|_| {
        let what = format!("the move is not finished within {seconds} s");
        Err(Error::new(ErrorKind::PostgresUnavailable, what).remedy("run it again to go on"))
    })
}

/// The flags of the next step, without a password.
fn repeated(other: &OtherServer, servers: &Servers) -> Result<String> {
    let (flag, config) = match other.to {
        Some(_) => ("--to", &servers.new),
        None => ("--from", &servers.old),
    };
    let slot = other.other_slot.as_ref().map(|slot| format!(" --other-slot {slot}"));
    Ok(format!("{flag} {}{}", url(config)?, slot.unwrap_or_default()))
}

fn url(config: &Config) -> Result<String> {
    server_move::url_without_password(config)
}

fn after_finish(other: &OtherServer, servers: &Servers) -> Result<String> {
    let slot = match servers.old.postgres.slot == servers.new.postgres.slot {
        true => String::new(),
        false => format!("  slot = {:?}\n", servers.new.postgres.slot),
    };
    let old_slot = match other.other_slot {
        Some(_) => format!(" --other-slot {}", servers.old.postgres.slot),
        None => String::new(),
    };
    Ok(format!(
        "next: let the relay read the new server (the password is left out here), and restart it:\n  \
         [postgres]\n  url = {:?}\n{slot}then: factlib move close --from {}{old_slot}\n",
        url(&servers.new)?,
        url(&servers.old)?
    ))
}

fn text(status: &MoveStatus) -> String {
    let server = |server: &ServerStatus| {
        let ServerStatus { address, version, slot, .. } = server;
        let state = match (server.confirmed_lsn, server.active_pid) {
            (None, _) => "does not exist".to_owned(),
            (Some(confirmed), reader) => {
                let behind = ByteSize::b(server.wal_end_lsn.distance_from(confirmed));
                let reader = match reader {
                    Some(pid) => format!("read by pid {pid}"),
                    None => "not read".into(),
                };
                format!("{reader}, {behind} behind the end of the WAL")
            }
        };
        format!("{address}, PostgreSQL {version}, slot {slot}: {state}")
    };
    let marker = status.marker.map_or_else(|| "none yet".into(), |marker| marker.to_string());
    output::table(&[
        ("move", status.stage.to_owned()),
        ("old server", server(&status.old)),
        ("new server", server(&status.new)),
        ("marked at", marker),
        ("next", status.next.clone()),
    ])
}
