//! sqlx, for PostgreSQL.

use sqlx::{AssertSqlSafe, Postgres, Transaction};

use super::statement::{Parameter, Statement};
use crate::{Error, ErrorKind, Result, postgres::ServerError};

impl super::Transaction for &mut Transaction<'_, Postgres> {
    async fn run(self, Statement { sql, parameters }: Statement) -> Result<()> {
        // Safe: it is made of our text and a quoted name.
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
