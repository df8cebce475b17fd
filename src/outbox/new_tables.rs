//! Looks up tables that match a pattern and that the stream describes before anybody knew them: what
//! the stream does not say of a table, the catalog does.

use crate::{
    Error, ErrorKind, Result, config::OutboxTable, outbox::Catalog, outbox::TableFacts,
    postgres::Reconnecting,
};

/// A session for these lookups, which are rare.
pub(crate) struct NewTables(Reconnecting);

impl NewTables {
    /// Asks this server, which has to be the one that sends the stream.
    pub fn new(server: Reconnecting) -> Self {
        NewTables(server)
    }

    /// Looks these tables up. Of one that was dropped meanwhile, nothing more is known than what the
    /// stream says.
    ///
    /// # Errors
    /// [`ErrorKind::PostgresUnavailable`] if the server does not answer.
    pub async fn facts(&self, tables: &[OutboxTable]) -> Result<TableFacts> {
        let what = "cannot look up a new outbox table in the catalog";
        let parameters = Catalog::parameters(tables);
        let rows = self.0.run(Catalog::QUERY, &parameters.with(&"")).await;
        let rows = rows
            .map_err(|error| Error::new(ErrorKind::PostgresUnavailable, what).caused_by(error))?;
        let row = rows.first().ok_or_else(|| Error::new(ErrorKind::Protocol, what))?;
        Ok(TableFacts::of(&Catalog::of(row)?, tables))
    }
}
