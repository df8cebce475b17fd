//! What facts can be emitted in: the transactions of the drivers, and nothing else.

use super::statement::Statement;
use crate::Result;

/// A transaction of one of the drivers; `emit` takes these and no connections.
///
/// | driver | what is given | feature |
/// | --- | --- | --- |
/// | tokio-postgres 0.7 | `&Transaction`, `&mut Transaction` | – |
/// | deadpool-postgres 0.14 | `&Transaction`, `&mut Transaction` | `deadpool` |
/// | sqlx 0.9 | `&mut Transaction<Postgres>` | `sqlx` |
/// | diesel-async 0.9 | `&mut AsyncPgConnection`, inside `connection.transaction(…)` | `diesel-async` |
///
/// Another version of a driver has types of its own, which are none of these.
///
/// A diesel-async connection has the same type inside and outside a transaction: it is
/// asked, and outside of one the call fails. With the others it does not compile:
///
/// ```compile_fail,E0277
/// # async fn example(client: &mut tokio_postgres::Client) -> factlib::Result<()> {
/// factlib::emit::emit(&*client, factlib::emit::Fact::new("user", "u1", "created")).await?;
/// # Ok(()) }
/// ```
#[cfg_attr(
    feature = "sqlx",
    doc = "```compile_fail,E0277
# async fn example(connection: &mut sqlx::PgConnection) -> factlib::Result<()> {
factlib::emit::emit(connection, factlib::emit::Fact::new(\"user\", \"u1\", \"created\")).await?;
# Ok(()) }
```"
)]
#[cfg_attr(
    feature = "deadpool",
    doc = "```compile_fail,E0277
# async fn example(client: deadpool_postgres::Client) -> factlib::Result<()> {
factlib::emit::emit(&client, factlib::emit::Fact::new(\"user\", \"u1\", \"created\")).await?;
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
