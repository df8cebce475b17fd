//! deadpool-postgres: its transaction is tokio-postgres's, in a wrapper.

use deadpool_postgres::Transaction;

use super::statement::Statement;
use crate::Result;

impl super::Transaction for &Transaction<'_> {
    async fn run(self, statement: Statement) -> Result<()> {
        let inner: &tokio_postgres::Transaction<'_> = self;
        inner.run(statement).await
    }
}

impl super::Transaction for &mut Transaction<'_> {
    async fn run(self, statement: Statement) -> Result<()> {
        (&*self).run(statement).await
    }
}
