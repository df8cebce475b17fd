//! tokio-postgres: with the types given, a statement is parsed, bound and run in one
//! round trip, and nothing stays prepared on a connection that a pooler may share.

use std::{error::Error as _, io};

use tokio_postgres::{
    Client, Transaction,
    types::{ToSql, Type},
};

use crate::{
    Error, ErrorKind, Result,
    error::ServerError,
    statement::{Parameter, Statement},
};

#[cfg_attr(docsrs, doc(cfg(feature = "tokio-postgres")))]
impl crate::Transaction for &Transaction<'_> {
    async fn run(self, Statement { sql, parameters }: Statement) -> Result<()> {
        let sent = self.query_typed(&sql, &typed(&parameters)).await;
        sent.map(drop).map_err(|error| failed("cannot emit", error))
    }
}

#[cfg_attr(docsrs, doc(cfg(feature = "tokio-postgres")))]
impl crate::Transaction for &mut Transaction<'_> {
    async fn run(self, statement: Statement) -> Result<()> {
        (&*self).run(statement).await
    }
}

/// Runs a statement as a transaction of its own.
pub(crate) async fn run_alone(client: &Client, statement: &Statement) -> Result<()> {
    let sent = client.query_typed(&statement.sql, &typed(&statement.parameters)).await;
    sent.map(drop).map_err(|error| failed("cannot publish", error))
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

/// The error of a client; `what` says what fails.
pub(crate) fn failed(what: &str, error: tokio_postgres::Error) -> Error {
    if let Some(server) = error.as_db_error() {
        let server = ServerError {
            code: server.code().code().to_owned(),
            message: server.message().to_owned(),
            detail: server.detail().map(str::to_owned),
            hint: server.hint().map(str::to_owned),
        };
        return server.into_error(what);
    }
    // tokio-postgres keeps its kinds to itself; its texts are all there is.
    let text = error.to_string();
    let is_refused =
        text.starts_with("authentication error") || text.starts_with("invalid configuration");
    let is_io = error.source().is_some_and(|cause| cause.is::<io::Error>());
    let kind = if is_refused {
        ErrorKind::PostgresRefused
    } else if error.is_closed() || text.starts_with("timeout") || is_io {
        ErrorKind::PostgresUnavailable
    } else {
        ErrorKind::Protocol
    };
    Error::new(kind, what).caused_by(error)
}
