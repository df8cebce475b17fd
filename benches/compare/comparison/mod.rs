//! Measures every relay in turn: a backlog, a steady load at three distances, and faults.
//!
//! In: the [`Scale`]. Out: a [`Report`], which renders the tables of docs/comparison.md. Phase by
//! phase all relays have their turn, so that each phase finds the machine in the same state. A relay
//! that fails in a phase is a row that says so, and the others go on. After each step the tables so
//! far are saved, for a run that is interrupted.

pub mod backlog;
pub mod checker;
pub mod distance;
pub mod document;
pub mod drain;
pub mod emit;
pub mod event;
pub mod faults;
pub mod follow;
pub mod installed;
pub mod java;
pub mod machine;
pub mod peer;
pub mod relay;
pub mod report;
pub mod scale;
pub mod servers;
pub mod table;

use self::{backlog::Written, faults::Fault, peer::Installation, report::Row};
pub use self::{report::Report, scale::Scale};
use crate::support::{Result, servers::Servers};

/// Runs all phases.
pub async fn run(scale: &Scale) -> Result<Report> {
    let mut servers = servers::start().await?;
    let mut report = Report::new(scale, &servers).await?;
    let mut installations = Vec::new();
    for peer in &scale.peers {
        match Installation::find(*peer) {
            Ok(installation) => {
                report.rows.push(Row::new(*peer, installation.version.clone()));
                installations.push(installation);
            }
            Err(error) => {
                println!("{}: not run: {error}", peer.label());
                report.left_out.push((*peer, error.to_string()));
            }
        }
    }
    let mut runs = 0..;
    drain_all(scale, &servers, &installations, &mut report.rows, &mut runs).await?;
    report.save()?;
    for (at, installation) in installations.iter().enumerate() {
        let run = runs.next().unwrap_or_default();
        let measured = distance::measure(&servers, installation, run, scale.seconds).await;
        report.row(at)?.distances = Some(said(installation, "distance", measured));
        report.save()?;
        servers::clear(&servers).await?;
    }
    for fault in Fault::ALL {
        for (at, installation) in installations.iter().enumerate() {
            let run = runs.next().unwrap_or_default();
            let measured =
                faults::measure(&mut servers, installation, fault, run, scale.seconds).await;
            let loss = said(installation, fault.label(), measured);
            report.row(at)?.losses.push((fault, loss));
            report.save()?;
            servers::clear(&servers).await?;
        }
    }
    Ok(report)
}

/// Has each relay read its backlog: those that read the same source read the same one.
async fn drain_all(
    scale: &Scale,
    servers: &Servers,
    installations: &[Installation],
    rows: &mut [Row],
    runs: &mut impl Iterator<Item = u64>,
) -> Result<()> {
    for source in peer::Source::ALL {
        let reads = |installation: &Installation| installation.peer.source() == source;
        if !installations.iter().any(reads) {
            continue;
        }
        let run = runs.next().unwrap_or_default();
        let written: Written = backlog::write(servers, source, run, scale.facts).await?;
        for (installation, row) in installations.iter().zip(&mut *rows) {
            if reads(installation) {
                let measured = drain::measure(servers, installation, &written).await;
                row.drain = Some(said(installation, "drain", measured));
            }
        }
        servers.drop_slot(&written.slot).await?;
        servers::clear(servers).await?;
    }
    Ok(())
}

/// Prints what was measured, and turns an error into its text.
fn said<T: std::fmt::Display>(
    installation: &Installation,
    phase: &str,
    measured: Result<T>,
) -> std::result::Result<T, String> {
    let label = installation.peer.label();
    match measured {
        Ok(figures) => {
            println!("{label}, {phase}: {figures}");
            Ok(figures)
        }
        Err(error) => {
            println!("{label}, {phase}: FAILED: {error}");
            Err(error.to_string())
        }
    }
}
