//! The trait of what facts are emitted in: transactions of the drivers, and nothing else.

use crate::{Result, statement::Statement};

/// A transaction of one of the drivers; `emit` takes these and no connections.
///
/// | driver | what is given | feature |
/// | --- | --- | --- |
/// | tokio-postgres 0.7 | `&Transaction`, `&mut Transaction` | `tokio-postgres` (default) |
/// | deadpool-postgres 0.14 | `&Transaction`, `&mut Transaction` | `deadpool` |
/// | sqlx 0.9 | `&mut Transaction<Postgres>` | `sqlx` |
/// | diesel-async 0.9 | `&mut AsyncPgConnection`, inside `connection.transaction(…)` | `diesel-async` |
///
/// Another version of a driver has types of its own, which are none of these.
///
/// A diesel-async connection has the same type inside and outside a transaction: the call asks it,
/// and fails outside of one. With the other drivers, code that emits on a connection does not
/// compile:
#[cfg_attr(
    feature = "tokio-postgres",
    doc = "```compile_fail,E0277
# async fn example(client: &mut tokio_postgres::Client) -> factlib_emit::Result<()> {
factlib_emit::emit(&*client, factlib_emit::Fact::new(\"user\", \"u1\", \"created\")).await?;
# Ok(()) }
```"
)]
#[cfg_attr(
    feature = "sqlx",
    doc = "```compile_fail,E0277
# async fn example(connection: &mut sqlx::PgConnection) -> factlib_emit::Result<()> {
factlib_emit::emit(connection, factlib_emit::Fact::new(\"user\", \"u1\", \"created\")).await?;
# Ok(()) }
```"
)]
#[cfg_attr(
    feature = "deadpool",
    doc = "```compile_fail,E0277
# async fn example(client: deadpool_postgres::Client) -> factlib_emit::Result<()> {
factlib_emit::emit(&client, factlib_emit::Fact::new(\"user\", \"u1\", \"created\")).await?;
# Ok(()) }
```"
)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no transaction that this factlib can emit facts in",
    label = "give a transaction, not a connection, a client or a pool",
    note = "tokio-postgres 0.7 and deadpool-postgres 0.14: `&transaction`; sqlx 0.9: `&mut transaction`; diesel-async 0.9: `&mut connection`, inside `connection.transaction(…)`",
    note = "but for tokio-postgres, a driver is a feature of factlib that is off unless asked for: `deadpool`, `sqlx`, `diesel-async`",
    note = "another version of a driver has other types: `cargo tree -i sqlx` shows which one factlib has"
)]
pub trait Transaction: Send {
    /// Runs a statement in one round trip, and ignores what it returns. Sealed: nobody
    /// else can name the statement.
    #[doc(hidden)]
    fn run(self, statement: Statement) -> impl Future<Output = Result<()>> + Send;
}
