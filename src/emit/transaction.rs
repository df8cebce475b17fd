//! What facts can be emitted in: the transactions of the drivers, and nothing else.

use super::statement::Statement;
use crate::Result;

/// A transaction of one of the drivers; `emit` takes these and no connections.
///
/// | driver | what is given | feature |
/// | --- | --- | --- |
/// | tokio-postgres | `&Transaction` | – |
/// | deadpool-postgres | `&Transaction` | `deadpool` |
/// | sqlx | `&mut Transaction<Postgres>` | `sqlx` |
/// | diesel-async | `&mut AsyncPgConnection`, inside `connection.transaction(…)` | `diesel-async` |
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
    message = "a fact is emitted in a transaction, and `{Self}` is none",
    note = "begin one and give `&transaction` (tokio-postgres, deadpool) or `&mut transaction` (sqlx)"
)]
pub trait Transaction: Send {
    /// Runs a statement in one round trip, and ignores what it returns. Sealed: nobody
    /// else can name the statement.
    #[doc(hidden)]
    fn run(self, statement: Statement) -> impl Future<Output = Result<()>> + Send;
}
