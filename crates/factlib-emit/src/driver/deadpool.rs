//! deadpool-postgres: its transaction wraps that of tokio-postgres.

use deadpool_postgres::Transaction;

use crate::{Result, statement::Statement};

#[cfg_attr(docsrs, doc(cfg(feature = "deadpool")))]
impl crate::Transaction for &Transaction<'_> {
    async fn run(self, statement: Statement) -> Result<()> {
        let inner: &tokio_postgres::Transaction<'_> = self;
        inner.run(statement).await
    }
}

#[cfg_attr(docsrs, doc(cfg(feature = "deadpool")))]
impl crate::Transaction for &mut Transaction<'_> {
    async fn run(self, statement: Statement) -> Result<()> {
        (&*self).run(statement).await
    }
}
