//! Checks that a row which moves to another partition can be recognized: its DELETE has to be
//! published and to name the row by its id (see [`partition_moves`](super::partition_moves)).

use super::{
    catalog::{CatalogPublication, CatalogTable},
    mapping::Mapping,
};
use crate::config::OutboxTable;

/// Finds a column of the partition key that an UPDATE may change, because it is not part of the event.
pub(super) fn moving_column<'a>(table: &OutboxTable, known: &'a CatalogTable) -> Option<&'a str> {
    let columns = known.base_columns();
    let mapping = Mapping::resolve(table, &columns).ok()?;
    let is_mapped = |key: &str| mapping.column_names(&columns).any(|column| column == key);
    known.partition_key.iter().map(String::as_str).find(|key| !is_mapped(key))
}

/// Explains why rows that move would be sent again; the flag is true if publishing DELETE corrects it.
pub(super) fn move_problem(
    table: &OutboxTable,
    known: &CatalogTable,
    publication: &CatalogPublication,
) -> Option<(String, bool)> {
    let moving = moving_column(table, known)?;
    let (name, columns) = (&table.table, known.base_columns());
    let mapping = Mapping::resolve(table, &columns).ok()?;
    let id = columns.get(mapping.id.index).map_or("", |(id, _)| id);
    let names_id =
        known.members.iter().filter(|member| member.is_root).any(|root| {
            root.identity == 'f' || root.key.iter().flatten().any(|column| column == id)
        });
    let lacks = if !names_id {
        format!("the primary key of partitioned outbox table {name} lacks {id}")
    } else if !publication.delete {
        format!("DELETE of partitioned outbox table {name} is not published")
    } else {
        return None;
    };
    let what =
        format!("{lacks}: a row that moves to another partition with {moving} would be sent again");
    Some((what, names_id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{ChangePolicy, OutboxPreset},
        outbox::{catalog::Catalog, publication::PublicationSpec},
    };

    /// A partitioned table by this key, with this primary key.
    fn catalog(partition_key: &[&str], primary_key: &[&str]) -> Catalog {
        let columns = ["id", "aggregate_type", "aggregate_id", "event_type", "payload", "done"];
        let columns = columns.map(|name| {
            serde_json::json!({"name": name, "type_oid": 25, "base_type_oid": 25, "generated": ""})
        });
        let root = serde_json::json!({
            "name": ["public", "o"], "is_root": true, "kind": "p", "persistence": "p", "partition": false,
            "identity": "d", "key": primary_key, "deferrable": false,
        });
        let table = serde_json::json!({
            "n": 1, "name": ["public", "o"], "kind": "p", "columns": columns,
            "members": [root], "published": null, "partitions_published": false, "named": false,
            "published_as": null, "partition_key": partition_key, "mark": "",
        });
        let catalog = serde_json::json!({
            "version": 180_000, "lsn": "0/1", "at_us": 1, "publication": null, "tables": [table],
            "unconfigured": [],
        });
        Catalog::parse(&catalog.to_string()).expect("a catalog")
    }

    #[test]
    fn delete_is_published_if_rows_can_move() {
        let table = OutboxTable::new("o", OutboxPreset::Factlib);
        let tables = [OutboxTable { on_update: ChangePolicy::Ignore, ..table }];
        let published =
            PublicationSpec { publication: "f", tables: &tables, accept_row_filter: false };
        let created = |partition_key: &[&str], primary_key: &[&str]| {
            let (sql, findings) = published.creation(&catalog(partition_key, primary_key));
            (sql.contains("publish = 'insert, delete'"), findings.into_iter().next())
        };
        assert_eq!(created(&["done"], &["id", "done"]), (true, None));
        assert_eq!(created(&["aggregate_id"], &["aggregate_id"]), (false, None));
        let (deletes, finding) = created(&["aggregate_id", "done"], &["aggregate_id", "done"]);
        let finding = finding.expect("a row can't be told by its id");
        assert!(deletes && finding.is_error());
        assert!(
            finding.problem.starts_with("the primary key of partitioned outbox table o lacks id")
        );
    }
}
