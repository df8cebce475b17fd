//! Implements [`Transaction`](crate::Transaction) for sqlx's PostgreSQL transactions.

use sqlx::{AssertSqlSafe, Postgres, Transaction};

use crate::{
    Error, ErrorKind, Result,
    error::ServerError,
    statement::{Parameter, Statement},
};

#[cfg_attr(docsrs, doc(cfg(feature = "sqlx")))]
impl crate::Transaction for &mut Transaction<'_, Postgres> {
    async fn run(self, Statement { sql, parameters }: Statement) -> Result<()> {
        // The statement is safe: this crate builds the text and quotes the table name in it.
        let mut query = sqlx::query(AssertSqlSafe(sql.into_owned()));
        for parameter in parameters {
            query = match parameter {
                Parameter::Text(text) => query.bind(text),
                Parameter::Bytes(bytes) => query.bind(bytes),
                Parameter::Texts(texts) => query.bind(texts),
                Parameter::ByteStrings(strings) => query.bind(strings),
                Parameter::Integers(integers) => query.bind(integers),
            };
        }
        query.execute(&mut **self).await.map(drop).map_err(failed)
    }
}

fn failed(error: sqlx::Error) -> Error {
    if let sqlx::Error::Database(database) = &error {
        let server = ServerError {
            code: database.code().unwrap_or_default().into(),
            message: database.message().into(),
            ..Default::default()
        };
        return server.into_error("cannot emit");
    }
    Error::new(ErrorKind::PostgresUnavailable, "cannot emit").caused_by(error)
}
