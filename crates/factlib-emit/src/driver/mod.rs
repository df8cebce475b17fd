//! The drivers, one a file: each runs a statement in a transaction of its own type.

#[cfg(feature = "deadpool")]
mod deadpool;
#[cfg(feature = "diesel-async")]
mod diesel_async;
#[cfg(feature = "sqlx")]
mod sqlx;
#[cfg(feature = "tokio-postgres")]
pub(crate) mod tokio_postgres;
