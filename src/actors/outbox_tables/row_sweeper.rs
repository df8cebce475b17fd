//! RowSweeper: removes rows that are delivered and old, where `retention.after` is set.
//!
//! # Life
//! One for the pipeline's life. It looks every `retention.interval` while the pipeline
//! runs, one look at a time, on a session of its own.
//!
//! # Failure
//! It ends nothing: what fails is said once, counted, and tried again the next time.

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use slog::{Logger, debug, info, warn};

use crate::{
    messages::Stop,
    outbox::{OldRowRemover, SweepResult},
    status::{PipelineState, Status},
};

/// Named in place of a table where none could be tried.
const SERVER: &str = "all";

/// The actor around [`OldRowRemover`].
pub(crate) struct RowSweeper {
    /// None while a look is under way.
    rows: Option<OldRowRemover>,
    interval: Duration,
    /// The last failure logged, by table.
    logged: HashMap<String, String>,
    status: Arc<Status>,
    log: Logger,
}

impl RowSweeper {
    pub fn new(rows: OldRowRemover, interval: Duration, status: Arc<Status>, log: Logger) -> Self {
        RowSweeper { rows: Some(rows), interval, logged: HashMap::new(), status, log }
    }

    fn sweep(&mut self, ctx: &mut Context<Self>) {
        // Whoever stands by leaves it to the one that reads.
        if self.status.snapshot().state != PipelineState::Running {
            return;
        }
        let Some(mut rows) = self.rows.take() else { return };
        let sweeping = async move {
            let swept = rows.sweep().await;
            (rows, swept)
        };
        ctx.spawn(sweeping.into_actor(self).map(|(rows, swept), this, _| {
            this.rows = Some(rows);
            let swept = swept.unwrap_or_else(|error| SweepResult {
                failed: vec![(SERVER.into(), error)],
                ..SweepResult::default()
            });
            this.status.swept(swept.removed, swept.failed.len() as u64);
            if swept.removed > 0 {
                debug!(this.log, "old rows removed"; "rows" => swept.removed);
            }
            this.log_failures(swept);
        }));
    }

    /// One line for each failure, and no more until it is another one or over.
    fn log_failures(&mut self, swept: SweepResult) {
        let before = self.logged.clone();
        // Of a table that was not tried, nothing new is known.
        self.logged.retain(|table, _| !swept.ran && table != SERVER);
        for (table, error) in swept.failed {
            let text = error.to_string();
            self.status.actor_complains("row_sweeper", format!("{table}: {text}"));
            if before.get(&table) != Some(&text) {
                warn!(self.log, "old rows can't be removed, trying again";
                    "table" => &table, "error" => &text);
            }
            self.logged.insert(table, text);
        }
        if self.logged.is_empty() && !before.is_empty() {
            info!(self.log, "old rows can be removed again");
        }
    }
}

impl Actor for RowSweeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(self.interval, Self::sweep);
    }
}

impl Handler<Stop> for RowSweeper {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
