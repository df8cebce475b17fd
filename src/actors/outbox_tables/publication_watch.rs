//! PublicationWatch: reports outbox tables that are not published as they are configured.
//!
//! # Life
//! One for the pipeline's life. It asks the catalog every `postgres.publication_check_interval`,
//! and at once when the reader begins or the stream shows that a table has changed. While another
//! instance has the slot, that instance watches.
//!
//! # New tables
//! A table that matches a pattern of `[[outbox]]` is found at the next look. If it is not in the
//! publication, and `postgres.create` and the user's rights allow it, the watch adds it.
//!
//! # Failure
//! It never ends the pipeline: a problem with one table does not stop the others. The problem is in
//! the log, the status, the metrics and the health until it is over. Then the log names the range
//! of rows that were not published. A server that does not answer is asked again the next time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use slog::{Logger, debug, error, info, warn};

use crate::{
    Error, ErrorKind, Result,
    config::{Config, OutboxTable, TableName},
    messages::{CheckPublication, Stop},
    outbox::{
        Catalog, Finding, Moment, UnpublishedRange, UnpublishedRanges, format_time,
        publication::{HAS_ROWS, is_settled},
    },
    postgres::{Reconnecting, StatementError},
    startup::publication_spec,
    status::{PipelineState, PublicationProblem, Status, UnpublishedRows},
};

/// Time without an answer after which a warning says that nothing is known.
const BLIND_LIMIT: Duration = Duration::from_secs(60);

const CANNOT_READ: &str = "cannot read the publication from the catalog";

/// The actor around [`UnpublishedRanges`].
pub(crate) struct PublicationWatch {
    config: Arc<Config>,
    configured: Vec<OutboxTable>,
    /// The tables of the last look; none before the first one.
    tables: Option<BTreeSet<String>>,
    /// Tables that could not be added to the publication, with the error.
    refused: BTreeMap<TableName, String>,
    server: Arc<Reconnecting>,
    unpublished: UnpublishedRanges,
    /// Findings of the last look.
    found: Vec<Finding>,
    /// The time since which no look has succeeded while rows are read; true once that is logged.
    blind_since: Option<(Instant, bool)>,
    asking: bool,
    /// A look was requested while one was under way.
    again: bool,
    status: Arc<Status>,
    log: Logger,
}

impl PublicationWatch {
    pub fn new(
        config: Arc<Config>,
        server: Reconnecting,
        status: Arc<Status>,
        log: Logger,
    ) -> Self {
        let configured = config.outbox_tables();
        let named = configured.iter().filter(|table| !table.is_pattern());
        status.watch_tables(named.map(|table| table.table.clone()));
        PublicationWatch {
            config,
            configured,
            tables: None,
            refused: BTreeMap::new(),
            server: Arc::new(server),
            unpublished: UnpublishedRanges::default(),
            found: Vec::new(),
            blind_since: None,
            asking: false,
            again: false,
            status,
            log,
        }
    }

    fn check(&mut self, ctx: &mut Context<Self>) {
        match self.status.snapshot().state {
            PipelineState::Starting | PipelineState::Stopped => return,
            PipelineState::StandingBy { .. } => {
                // What happens until this one reads again, the other one sees.
                self.unpublished = UnpublishedRanges::default();
                self.tables = None;
                self.found.clear();
                return self.status.publication_problems(Vec::new());
            }
            _ => {}
        }
        if self.asking {
            self.again = true;
            return;
        }
        self.asking = true;
        let (server, config) = (Arc::clone(&self.server), Arc::clone(&self.config));
        let tables = self.configured.clone();
        let asking = async move {
            let publication = &config.postgres.publication;
            // Logical messages need no table in it, and what is said of tables takes long to ask.
            if tables.is_empty() && is_there(&server, publication).await? {
                return Ok(None);
            }
            ask(&server, publication, &tables).await.map(Some)
        };
        ctx.spawn(asking.into_actor(self).map(|answer, this, ctx| match answer {
            Ok(None) => {
                this.blind_since = None;
                this.report(Vec::new(), Vec::new());
                this.looked(ctx);
            }
            Ok(Some((before, catalog))) => {
                this.blind_since = None;
                this.judge(before, &catalog, ctx);
            }
            Err(error) => {
                this.failed(&error);
                this.looked(ctx);
            }
        }));
    }

    /// Ends a look.
    fn looked(&mut self, ctx: &mut Context<Self>) {
        self.asking = false;
        if std::mem::take(&mut self.again) {
            self.check(ctx);
        }
    }

    /// Judges what a look has seen, and adds new tables to the publication.
    fn judge(&mut self, before: Moment, catalog: &Catalog, ctx: &mut Context<Self>) {
        let tables = catalog.tables(&self.configured);
        self.tables_are(tables.iter().map(|(table, _)| table.table.clone()).collect());
        let spec = publication_spec(&self.config, &self.configured);
        let mut found = spec.check(catalog);
        let gaps = self.unpublished.observe(&tables, before, catalog, &found);
        let additions = match self.config.postgres.create {
            true => spec.additions(catalog),
            false => Vec::new(),
        };
        if additions.is_empty() && !gaps.iter().any(|gap| gap.is_first) {
            self.refused.clear();
            self.report(found, gaps);
            return self.looked(ctx);
        }
        let server = Arc::clone(&self.server);
        let adding = async move {
            let mut added = Vec::new();
            for (table, sql) in additions {
                let done = match server.run(&sql, &[]).await {
                    // Asked at once: what comes from now on is published.
                    Ok(_) => Ok(has_rows(&server, &table).await),
                    Err(error) => Err(error),
                };
                added.push((table, done));
            }
            (with_rows(&server, gaps).await, added)
        };
        ctx.spawn(adding.into_actor(self).map(|(gaps, added), this, ctx| {
            let added = this.added(added);
            // The next look, which follows at once, will say what is left of it.
            let is_added = |finding: &Finding| {
                finding.table.as_ref().is_some_and(|table| added.contains(table))
            };
            found.retain(|finding| !is_added(finding));
            this.again |= !added.is_empty();
            this.report(found, gaps);
            this.looked(ctx);
        }));
    }

    /// Notes which tables there are.
    fn tables_are(&mut self, tables: BTreeSet<String>) {
        if let Some(before) = self.tables.as_ref().filter(|before| **before != tables) {
            for table in tables.difference(before) {
                info!(self.log, "an outbox table is new"; "table" => table);
            }
            for table in before.difference(&tables) {
                info!(self.log, "an outbox table is gone"; "table" => table);
            }
        }
        if self.tables.as_ref() != Some(&tables) {
            self.status.watch_tables(tables.iter().cloned());
            self.tables = Some(tables);
        }
    }

    /// Returns the tables that are in the publication now, or are gone.
    fn added(&mut self, added: Vec<(TableName, Result<bool, StatementError>)>) -> Vec<String> {
        let before = std::mem::take(&mut self.refused);
        let mut done = Vec::new();
        for (table, added) in added {
            match added {
                Ok(had_rows) => {
                    info!(self.log, "an outbox table was added to the publication";
                        "table" => %table);
                    if !had_rows {
                        self.unpublished.added_empty(&table.to_string());
                    }
                    done.push(table.to_string());
                }
                Err(error) if is_settled(error.code()) => done.push(table.to_string()),
                Err(error) => {
                    let text = error.to_string();
                    if before.get(&table) != Some(&text) {
                        warn!(self.log, "an outbox table can't be added to the publication, trying again";
                            "table" => %table, "error" => &text);
                    }
                    self.refused.insert(table, text);
                }
            }
        }
        done
    }

    /// While PostgreSQL is away, the reader says so; a server that sends rows and does not answer
    /// here is worth a line.
    fn failed(&mut self, error: &Error) {
        debug!(self.log, "cannot check the publication"; "error" => %error);
        self.status.actor_complains("publication_watch", error.to_string());
        if self.status.snapshot().state != PipelineState::Running {
            self.blind_since = None;
            return;
        }
        let blind = self.blind_since.get_or_insert((Instant::now(), false));
        if blind.0.elapsed() > BLIND_LIMIT && !std::mem::replace(&mut blind.1, true) {
            warn!(self.log, "cannot check whether all outbox tables are still published"; "error" => %error);
        }
    }

    fn report(&mut self, found: Vec<Finding>, gaps: Vec<UnpublishedRange>) {
        let problems = found.iter().map(|finding| self.problem(finding)).collect::<Vec<_>>();
        // First: who reads the log may look at the status.
        self.status.publication_problems(problems.clone());
        for gap in &gaps {
            self.status.unpublished(rows(gap));
        }
        for (finding, problem) in found.iter().zip(&problems) {
            if !self.found.contains(finding) {
                self.log_problem(problem);
            }
        }
        for finding in self.found.iter().filter(|finding| !found.contains(finding)) {
            info!(self.log, "a problem with the publication is over"; "was" => &finding.problem);
        }
        for gap in &gaps {
            let UnpublishedRows { table, reason, from_lsn, to_lsn, replay, .. } = rows(gap);
            let since = gap.from.map(|from| format_time(from.at_us / 1_000_000));
            warn!(self.log, "rows of an outbox table were not published, or not all of them";
                "table" => table, "reason" => reason,
                "from_lsn" => from_lsn.map(|lsn| lsn.to_string()), "to_lsn" => %to_lsn,
                "since" => since, "until" => format_time(gap.to.at_us / 1_000_000),
                "remedy" => replay);
        }
        self.found = found;
    }

    fn problem(&self, finding: &Finding) -> PublicationProblem {
        let since = finding.table.as_ref().filter(|_| finding.loses_rows);
        let since = since.and_then(|table| self.unpublished.lost_since(table));
        PublicationProblem {
            table: finding.table.clone(),
            is_error: finding.is_error(),
            problem: finding.problem.clone(),
            remedy: finding.remedy.clone(),
            since_lsn: since.map(|since| since.lsn),
            since: since.map(|since| seconds(since.at_us)),
        }
    }

    fn log_problem(&self, problem: &PublicationProblem) {
        let PublicationProblem { is_error, problem, remedy, since_lsn, .. } = problem;
        let since_lsn = since_lsn.map(|lsn| lsn.to_string());
        match is_error {
            true => error!(self.log, "an outbox table is not relayed as it is configured";
                "found" => problem, "remedy" => remedy, "since_lsn" => since_lsn),
            false => warn!(self.log, "the publication may need attention";
                "found" => problem, "remedy" => remedy),
        }
    }
}

/// True if the publication exists.
async fn is_there(server: &Reconnecting, publication: &str) -> Result<bool> {
    let query = "SELECT FROM pg_publication WHERE pubname = $1";
    let rows = server.run(query, &[&publication]).await.map_err(unread)?;
    Ok(!rows.is_empty())
}

/// Reads the catalog, and the moment before that.
async fn ask(
    server: &Reconnecting,
    publication: &str,
    tables: &[OutboxTable],
) -> Result<(Moment, Catalog)> {
    let rows = server.run(Moment::QUERY, &[]).await.map_err(unread)?;
    let before = rows.first().map(Moment::of).transpose()?;
    let tables = Catalog::parameters(tables);
    let rows = server.run(Catalog::QUERY, &tables.with(&publication)).await;
    let rows = rows.map_err(unread)?;
    let catalog = rows.first().map(Catalog::of).transpose()?;
    before.zip(catalog).ok_or_else(|| Error::new(ErrorKind::Protocol, CANNOT_READ))
}

fn unread(error: StatementError) -> Error {
    Error::new(ErrorKind::PostgresUnavailable, CANNOT_READ).caused_by(error)
}

/// Leaves out the ranges of tables that had no row before they were published.
async fn with_rows(server: &Reconnecting, gaps: Vec<UnpublishedRange>) -> Vec<UnpublishedRange> {
    let mut kept = Vec::new();
    for gap in gaps {
        if !gap.is_first || has_rows(server, &gap.table.qualified()).await {
            kept.push(gap);
        }
    }
    kept
}

/// True if a table ever had a row, or if that can't be known.
async fn has_rows(server: &Reconnecting, TableName { schema, name }: &TableName) -> bool {
    let rows = server.run(HAS_ROWS, &[schema, name]).await;
    rows.ok().and_then(|rows| rows.first()?.try_get(0).ok()).unwrap_or(true)
}

fn rows(gap: &UnpublishedRange) -> UnpublishedRows {
    UnpublishedRows {
        table: gap.table.table.clone(),
        reason: gap.reason.clone(),
        from_lsn: gap.from.map(|from| from.lsn),
        to_lsn: gap.to.lsn,
        since: gap.from.map(|from| seconds(from.at_us)),
        until: seconds(gap.to.at_us),
        replay: gap.replay_command(),
    }
}

fn seconds(us: i64) -> u64 {
    u64::try_from(us / 1_000_000).unwrap_or_default()
}

impl Actor for PublicationWatch {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(self.config.postgres.publication_check_interval, Self::check);
    }
}

impl Handler<CheckPublication> for PublicationWatch {
    type Result = ();

    fn handle(&mut self, _: CheckPublication, ctx: &mut Self::Context) {
        self.check(ctx);
    }
}

impl Handler<Stop> for PublicationWatch {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
