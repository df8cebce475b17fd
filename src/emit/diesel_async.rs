//! diesel-async, for PostgreSQL.

use diesel::{
    pg::Pg,
    result::DatabaseErrorKind,
    sql_query,
    sql_types::{Array, BigInt, Binary, Text},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, TransactionManager};

use super::statement::{Parameter, Statement};
use crate::{Error, ErrorKind, Result};

impl super::Transaction for &mut AsyncPgConnection {
    async fn run(self, Statement { sql, parameters }: Statement) -> Result<()> {
        if !in_transaction(self) {
            let what = "cannot emit: the connection is in no transaction";
            return Err(Error::new(ErrorKind::InvalidFact, what).remedy(
                "emit inside of `connection.transaction(…)`, with the connection it gives",
            ));
        }
        let mut query = sql_query(sql).into_boxed::<Pg>();
        for parameter in parameters {
            query = match parameter {
                Parameter::Text(text) => query.bind::<Text, _>(text),
                Parameter::Bytes(bytes) => query.bind::<Binary, _>(bytes),
                Parameter::Texts(texts) => query.bind::<Array<Text>, _>(texts),
                Parameter::ByteStrings(strings) => query.bind::<Array<Binary>, _>(strings),
                Parameter::Integers(integers) => query.bind::<Array<BigInt>, _>(integers),
            };
        }
        query.execute(self).await.map(drop).map_err(failed)
    }
}

fn in_transaction(connection: &mut AsyncPgConnection) -> bool {
    type Manager = <AsyncPgConnection as AsyncConnection>::TransactionManager;
    let status = Manager::transaction_manager_status_mut(connection);
    status.transaction_depth().is_ok_and(|depth| depth.is_some())
}

/// Diesel keeps the SQLSTATE to itself.
fn failed(error: diesel::result::Error) -> Error {
    let kind = match &error {
        diesel::result::Error::DatabaseError(
            DatabaseErrorKind::ClosedConnection
            | DatabaseErrorKind::UnableToSendCommand
            | DatabaseErrorKind::SerializationFailure,
            _,
        ) => ErrorKind::PostgresUnavailable,
        _ => ErrorKind::PostgresRefused,
    };
    Error::new(kind, "cannot emit").caused_by(error)
}
