//! Finds the ranges of rows that were committed while their table was not published, from one look
//! at the catalog after another. Pure; the [`PublicationWatch`] drives it.
//!
//! # Why the range holds all of them
//! Each look begins with a [`Moment`], read in a statement of its own before the one that sees
//! the catalog. What a look finds good was good at its snapshot, so the first change after it
//! has its commit record behind that moment. The end of the range is read in the statement that
//! sees the catalog: PostgreSQL makes a change visible only after its commit record is in the
//! WAL, so a change that mended the publication lies before it.
//!
//! The times are for `factlib replay`, which goes by the time in a row: the beginning is that
//! of the oldest transaction that was open, because a row may carry the time at which its
//! transaction began.
//!
//! [`PublicationWatch`]: crate::actors

use std::collections::{HashMap, HashSet};

use tokio_postgres::{Row, types::PgLsn};

use super::{
    catalog::{Catalog, CatalogTable},
    findings::Finding,
};
use crate::{Lsn, Result, config::OutboxTable, postgres::postgres_error};

/// A position in the WAL and a time, in Unix microseconds by the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub lsn: Lsn,
    pub at_us: i64,
}

impl Moment {
    /// Reads the present moment. Seeing when other users' transactions began takes
    /// `pg_read_all_stats`.
    pub const QUERY: &str = "\
        SELECT pg_current_wal_insert_lsn(),
               (extract(epoch FROM least(now(), min(xact_start))) * 1000000)::bigint
        FROM pg_stat_activity
        WHERE datname = current_database() AND backend_type = 'client backend'";

    /// Parses the answer.
    pub fn of(row: &Row) -> Result<Self> {
        let what = "cannot read the current position of the WAL";
        let failed = |error| postgres_error(what, error);
        let lsn: PgLsn = row.try_get(0).map_err(failed)?;
        Ok(Moment { lsn: Lsn::new(lsn.into()), at_us: row.try_get(1).map_err(failed)? })
    }
}

/// A range of the WAL in which rows of a table were committed and not all of them published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnpublishedRange {
    pub table: OutboxTable,
    /// True if no look before saw the table published.
    pub is_first: bool,
    pub reason: String,
    /// None if the table was unpublished at the first look.
    pub from: Option<Moment>,
    pub to: Moment,
}

/// Follows each configured table from look to look.
#[derive(Default)]
pub(crate) struct UnpublishedRanges {
    tables: HashMap<String, TableState>,
    /// Beginning of the last look.
    last: Option<Moment>,
}

#[derive(Default)]
struct TableState {
    /// Beginning of the last look without a loss, and the marks that it saw.
    last_good: Option<(Moment, String)>,
    /// The moment since which rows are lost, if known, and the reason; none while none are lost.
    losing: Option<(Option<Moment>, String)>,
}

impl UnpublishedRanges {
    /// Takes the next look in, which began at `before`. Returns the ranges that have ended.
    pub fn observe(
        &mut self,
        tables: &[(OutboxTable, Option<&CatalogTable>)],
        before: Moment,
        catalog: &Catalog,
        findings: &[Finding],
    ) -> Vec<UnpublishedRange> {
        let to = Moment { lsn: catalog.lsn, at_us: catalog.at_us };
        let mut ended = Vec::new();
        // A table that matched a pattern and was dropped.
        let names: HashSet<_> = tables.iter().map(|(table, _)| &table.table).collect();
        self.tables.retain(|name, _| names.contains(name));
        // A new one was not there at the last look.
        let last = self.last.replace(before);
        for (table, known) in tables {
            let name = &table.table;
            let is_new = !self.tables.contains_key(name);
            let state = self.tables.entry(name.clone()).or_default();
            let mut losses = findings.iter().filter(|finding| finding.loses_rows);
            // A problem of the publication concerns each table.
            let loss = losses.find(|loss| loss.table.as_ref().is_none_or(|table| table == name));
            if let Some(loss) = loss {
                let since = || match &state.last_good {
                    Some((moment, _)) => Some(*moment),
                    None => last.filter(|_| is_new),
                };
                state.losing.get_or_insert_with(|| (since(), loss.problem.clone()));
                continue;
            }
            let marks = (catalog.publication.as_ref(), *known);
            let (Some(publication), Some(there)) = marks else { continue };
            let mark = format!("{} {}", publication.mark, there.mark);
            let range = match (state.losing.take(), &state.last_good) {
                (Some((from, reason)), _) => Some((from, reason)),
                (None, Some((from, old))) if *old != mark => Some((
                    Some(*from),
                    format!("{name} left the publication and came back, or its entry was changed"),
                )),
                (None, None) if is_new && there.added_later => {
                    last.map(|last| (Some(last), earlier_rows(name)))
                }
                _ => None,
            };
            let range = range.map(|(from, reason)| UnpublishedRange {
                table: table.clone(),
                is_first: state.last_good.is_none(),
                reason,
                from,
                to,
            });
            ended.extend(range);
            state.last_good = Some((before, mark));
        }
        ended
    }

    /// Notes that a table had no row yet when it was added to the publication.
    pub fn added_empty(&mut self, table: &str) {
        if let Some(state) = self.tables.get_mut(table) {
            state.losing = None;
        }
    }

    /// The moment since which a table loses rows; none while it loses none, or if the moment is
    /// unknown.
    pub fn lost_since(&self, table: &str) -> Option<Moment> {
        self.tables.get(table)?.losing.as_ref()?.0
    }
}

impl UnpublishedRange {
    /// The command that sends these rows again.
    pub fn replay_command(&self) -> String {
        replay_command(&self.table.table, self.from.map(|from| from.at_us), self.to.at_us)
    }
}

/// The command that sends the rows of a table between two times again.
pub(super) fn replay_command(table: &str, from_us: Option<i64>, to_us: i64) -> String {
    let since = match from_us {
        Some(us) => format_time(us.div_euclid(SECOND_US)),
        // For the operator to fill in.
        None => "TIME".into(),
    };
    let until = format_time(to_us.div_euclid(SECOND_US) + 1);
    let plain = |sign: char| sign.is_ascii_alphanumeric() || "._".contains(sign);
    let table = match table.chars().all(plain) {
        true => table.to_owned(),
        false => format!("'{}'", table.replace('\'', "'\\''")),
    };
    format!("factlib replay --table {table} --since {since} --until {until}")
}

/// The reason of a range that ends with a table's first publication.
pub(super) fn earlier_rows(table: &str) -> String {
    format!("{table} had rows before it was in the publication")
}

const SECOND_US: i64 = 1_000_000;

/// Formats a time as `factlib replay` takes it.
pub(crate) fn format_time(unix_seconds: i64) -> String {
    let seconds = std::time::Duration::from_secs(unix_seconds.max(0).cast_unsigned());
    let at = std::time::UNIX_EPOCH + seconds;
    humantime_serde::re::humantime::format_rfc3339_seconds(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::OutboxPreset, outbox::publication::PublicationSpec};

    fn tables() -> Vec<OutboxTable> {
        vec![OutboxTable::new("o", OutboxPreset::Factlib)]
    }

    /// The catalog at a moment: with the table in the publication, under a mark, or without.
    fn catalog(lsn: u64, mark: Option<&str>) -> Catalog {
        let column = |(name, oid): &(&str, u32)| serde_json::json!({ "name": name, "type_oid": oid, "base_type_oid": oid, "generated": "" });
        let columns = [
            ("id", 25),
            ("aggregate_type", 25),
            ("aggregate_id", 25),
            ("event_type", 25),
            ("payload", 25),
        ];
        let member = serde_json::json!({
            "name": ["public", "o"], "is_root": true, "kind": "r", "persistence": "p",
            "partition": false, "identity": "d", "key": ["id"], "deferrable": false,
        });
        let published = mark.map(|_| serde_json::json!({ "columns": null, "filter": null }));
        let json = serde_json::json!({
            "version": 140_000, "lsn": Lsn::new(lsn).to_string(), "at_us": lsn * 1_000_000,
            "publication": {
                "all_tables": false, "insert": true, "update": true, "delete": false,
                "truncate": false, "via_root": false, "generated": "n", "mark": "7",
            },
            "tables": [{
                "n": 1, "name": ["public", "o"], "kind": "r",
                "columns": columns.iter().map(column).collect::<Vec<_>>(), "members": [member],
                "published": published, "partitions_published": false, "named": true,
                "published_as": null, "partition_key": [], "mark": mark.unwrap_or("9"),
            }],
            "unconfigured": [],
        });
        Catalog::parse(&json.to_string()).expect("a catalog")
    }

    fn look(
        unpublished: &mut UnpublishedRanges,
        lsn: u64,
        mark: Option<&str>,
    ) -> Vec<UnpublishedRange> {
        let (tables, catalog) = (tables(), catalog(lsn, mark));
        let published =
            PublicationSpec { publication: "p", tables: &tables, accept_row_filter: false };
        let findings = published.check(&catalog);
        assert_eq!(findings.is_empty(), mark.is_some(), "{findings:?}");
        let before = Moment { lsn: Lsn::new(lsn - 1), at_us: (lsn as i64 - 1) * 1_000_000 };
        unpublished.observe(&catalog.tables(&tables), before, &catalog, &findings)
    }

    #[test]
    fn a_range_reaches_from_the_last_good_look_to_the_first_one_after_it() {
        let mut unpublished = UnpublishedRanges::default();
        assert!(look(&mut unpublished, 10, Some("a")).is_empty());
        assert!(look(&mut unpublished, 20, Some("a")).is_empty());
        assert_eq!(unpublished.lost_since("o"), None);
        assert!(look(&mut unpublished, 30, None).is_empty());
        assert!(look(&mut unpublished, 40, None).is_empty());
        let since = unpublished.lost_since("o").expect("it is lost");
        assert_eq!(since.lsn, Lsn::new(19));
        let gaps = look(&mut unpublished, 50, Some("b"));
        let [gap] = &gaps[..] else { panic!("{gaps:?}") };
        assert_eq!((gap.from, gap.to.lsn), (Some(since), Lsn::new(50)));
        assert_eq!(gap.reason, "publication p does not have outbox table o");
        let replay = "factlib replay --table o --since 1970-01-01T00:00:19Z \
                      --until 1970-01-01T00:00:51Z";
        assert_eq!(gap.replay_command(), replay);
        assert!(look(&mut unpublished, 60, Some("b")).is_empty());
    }

    #[test]
    fn a_table_that_left_and_came_back_between_two_looks_is_a_range_too() {
        let mut unpublished = UnpublishedRanges::default();
        look(&mut unpublished, 10, Some("a"));
        let gaps = look(&mut unpublished, 20, Some("b"));
        assert_eq!(gaps.len(), 1);
        assert_eq!(gaps[0].from.map(|from| from.lsn), Some(Lsn::new(9)));
        assert_eq!(
            gaps[0].reason,
            "o left the publication and came back, or its entry was changed"
        );
    }

    #[test]
    fn a_new_table_lost_no_row_before_the_look_that_did_not_see_it() {
        let mut unpublished = UnpublishedRanges::default();
        let other = [OutboxTable::new("other", OutboxPreset::Factlib)];
        let before = Moment { lsn: Lsn::new(8), at_us: 8_000_000 };
        let first = catalog(9, None);
        assert!(unpublished.observe(&first.tables(&other), before, &first, &[]).is_empty());
        assert!(look(&mut unpublished, 20, None).is_empty());
        assert_eq!(unpublished.lost_since("o"), Some(before));
        let ranges = look(&mut unpublished, 30, Some("a"));
        let [range] = &ranges[..] else { panic!("{ranges:?}") };
        assert_eq!((range.is_first, range.from), (true, Some(before)));
        // One that was empty when it was added has lost nothing.
        let mut unpublished = UnpublishedRanges::default();
        look(&mut unpublished, 10, None);
        unpublished.added_empty("o");
        assert!(look(&mut unpublished, 20, Some("a")).is_empty());
    }

    #[test]
    fn a_range_that_was_open_at_the_first_look_has_no_beginning() {
        let mut unpublished = UnpublishedRanges::default();
        look(&mut unpublished, 10, None);
        let gaps = look(&mut unpublished, 20, Some("a"));
        assert_eq!(gaps[0].from, None);
        let replay = "factlib replay --table o --since TIME --until 1970-01-01T00:00:21Z";
        assert_eq!(gaps[0].replay_command(), replay);
        let odd = replay_command("a b", None, 0);
        assert!(odd.contains("--table 'a b' "), "{odd}");
    }
}
