//! tokio-postgres: with the types given, a statement is parsed, bound and run in one
//! round trip, and nothing is left prepared on a connection that a pooler may share.

use tokio_postgres::{
    Client, Transaction,
    types::{ToSql, Type},
};

use super::statement::{Parameter, Statement};
use crate::{Result, postgres::postgres_error};

impl super::Transaction for &Transaction<'_> {
    async fn run(self, Statement { sql, parameters }: Statement) -> Result<()> {
        let sent = self.query_typed(&sql, &typed(&parameters)).await;
        sent.map(drop).map_err(|error| postgres_error("cannot emit", error))
    }
}

impl super::Transaction for &mut Transaction<'_> {
    async fn run(self, statement: Statement) -> Result<()> {
        (&*self).run(statement).await
    }
}

/// Runs a statement as a transaction of its own.
pub(super) async fn alone(client: &Client, statement: &Statement) -> Result<()> {
    let sent = client.query_typed(&statement.sql, &typed(&statement.parameters)).await;
    sent.map(drop).map_err(|error| postgres_error("cannot publish", error))
}

fn typed(parameters: &[Parameter]) -> Vec<(&(dyn ToSql + Sync), Type)> {
    parameters.iter().map(typed_one).collect()
}

fn typed_one(parameter: &Parameter) -> (&(dyn ToSql + Sync), Type) {
    match parameter {
        Parameter::Text(text) => (text, Type::TEXT),
        Parameter::Bytes(bytes) => (bytes, Type::BYTEA),
        Parameter::Texts(texts) => (texts, Type::TEXT_ARRAY),
        Parameter::ByteStrings(strings) => (strings, Type::BYTEA_ARRAY),
        Parameter::Integers(integers) => (integers, Type::INT8_ARRAY),
    }
}
