//! diesel-async, for PostgreSQL.

use diesel::{
    QueryResult,
    pg::Pg,
    query_builder::{AstPass, QueryFragment, QueryId},
    result::DatabaseErrorKind,
    sql_types::{Array, BigInt, Binary, Text},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, TransactionManager};

use crate::{
    Error, ErrorKind, Result,
    error::ServerError,
    statement::{Parameter, Statement},
};

#[cfg_attr(docsrs, doc(cfg(feature = "diesel-async")))]
impl crate::Transaction for &mut AsyncPgConnection {
    async fn run(self, statement: Statement) -> Result<()> {
        if !in_transaction(self) {
            let what = "cannot emit: the connection is in no transaction";
            return Err(Error::new(ErrorKind::InvalidFact, what).remedy(
                "emit inside of `connection.transaction(…)`, with the connection it gives",
            ));
        }
        Emit(statement).execute(self).await.map(drop).map_err(failed)
    }
}

/// A statement that is prepared once a connection: `sql_query` prepares anew each time,
/// which is a round trip more.
struct Emit(Statement);

impl QueryId for Emit {
    type QueryId = ();
    // The text tells one from the other.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl QueryFragment<Pg> for Emit {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(&self.0.sql);
        for parameter in &self.0.parameters {
            // The text has its placeholders.
            match parameter {
                Parameter::Text(text) => out.push_bind_param_value_only::<Text, _>(text),
                Parameter::Bytes(bytes) => out.push_bind_param_value_only::<Binary, _>(bytes),
                Parameter::Texts(texts) => out.push_bind_param_value_only::<Array<Text>, _>(texts),
                Parameter::ByteStrings(strings) => {
                    out.push_bind_param_value_only::<Array<Binary>, _>(strings)
                }
                Parameter::Integers(integers) => {
                    out.push_bind_param_value_only::<Array<BigInt>, _>(integers)
                }
            }?;
        }
        Ok(())
    }
}

fn in_transaction(connection: &mut AsyncPgConnection) -> bool {
    type Manager = <AsyncPgConnection as AsyncConnection>::TransactionManager;
    let status = Manager::transaction_manager_status_mut(connection);
    status.transaction_depth().is_ok_and(|depth| depth.is_some())
}

fn failed(error: diesel::result::Error) -> Error {
    if let diesel::result::Error::DatabaseError(DatabaseErrorKind::Unknown, server) = &error
        && let Some(code) = sqlstate(server.message())
    {
        let message = server.message().to_owned();
        let server = ServerError { code: code.into(), message, ..Default::default() };
        return server.into_error("cannot emit");
    }
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

/// The SQLSTATE of what has a remedy. Diesel keeps it to itself, so the text has to tell.
fn sqlstate(message: &str) -> Option<&'static str> {
    let is_missing = message.ends_with(" does not exist");
    match message.split(' ').next()? {
        "relation" if is_missing => Some("42P01"),
        "column" if is_missing => Some("42703"),
        "permission" if message.starts_with("permission denied for ") => Some("42501"),
        _ => None,
    }
}
