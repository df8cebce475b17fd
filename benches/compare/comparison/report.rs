//! All figures of a comparison.

use std::{fs, path::Path};

use super::{
    distance::Distances,
    drain::Drain,
    faults::{Fault, Loss},
    machine::Machine,
    peer::Peer,
    scale::Scale,
    table,
};
use crate::support::{Result, servers::Servers};

/// Figures of a phase, or why there are none.
pub type Measured<T> = std::result::Result<T, String>;

/// All figures of one relay. What is `None` was not come to.
#[derive(Debug)]
pub struct Row {
    pub peer: Peer,
    pub version: String,
    pub drain: Option<Measured<Drain>>,
    pub distances: Option<Measured<Distances>>,
    pub losses: Vec<(Fault, Measured<Loss>)>,
}

impl Row {
    pub fn new(peer: Peer, version: String) -> Self {
        Row { peer, version, drain: None, distances: None, losses: Vec::new() }
    }
}

/// All figures of a comparison.
#[derive(Debug)]
pub struct Report {
    pub scale: Scale,
    pub machine: Machine,
    pub rows: Vec<Row>,
    /// Relays that are not on this machine, and why.
    pub left_out: Vec<(Peer, String)>,
}

impl Report {
    pub async fn new(scale: &Scale, servers: &Servers) -> Result<Self> {
        let (rows, left_out) = (Vec::new(), Vec::new());
        let machine = Machine::look(servers).await?;
        Ok(Report { scale: scale.clone(), machine, rows, left_out })
    }

    /// Returns a relay's row.
    pub fn row(&mut self, at: usize) -> Result<&mut Row> {
        self.rows.get_mut(at).ok_or_else(|| "no such row".into())
    }

    /// Writes the tables so far to `bench/compare.md` in the target folder.
    pub fn save(&self) -> Result<()> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join("compare.md"), self.markdown())?)
    }

    /// Returns the tables in Markdown.
    pub fn markdown(&self) -> String {
        table::markdown(self)
    }
}
