//! Moves the relay from one PostgreSQL server to another without a gap and without a repeat.
//!
//! 1. [`prepare`] creates a slot on the new server, before any service writes there.
//! 2. The services are switched to the new server. Their events wait in its slot.
//! 3. [`finish`] waits until no event is committed on the old server any more, and until the relay has
//!    delivered all that were. From then on, and not before, a relay reads the new server.
//! 4. [`close`] drops the old server's slot.
//!
//! The relay goes on reading the old server until `finish` ends. Because it starts on the new server
//! only then, the events of an aggregate keep their order. Each step can be run again at any time: what
//! is done is in the table `factlib.moves` of both servers (`startup::move_record`).
//!
//! | file | idea |
//! | --- | --- |
//! | `end` | one of the two servers, with a session |
//! | `prepare` | checks both servers, creates the slot on the new one |
//! | `subscriptions` | finds outbox tables that logical replication fills |
//! | `writers` | watches for events and open transactions on the old server |
//! | `finish` | waits for the writers and for the relay, then hands over |
//! | `unread` | counts the events that wait in a slot |
//! | `close` | drops the slot that is no longer needed, after or instead of a move |
//! | `status` | how far a move is, and what to do next |

mod close;
mod end;
mod finish;
mod prepare;
mod status;
mod subscriptions;
mod unread;
mod writers;

use factlib_postgres::ConnectInfo;
use secrecy::{ExposeSecret, SecretString};

pub use self::{
    close::{abort, close},
    finish::finish,
    prepare::prepare,
    status::{MoveStatus, ServerStatus, status},
};
use crate::{Error, ErrorKind, Result, config::Config};

/// Receives each line that says what a step did, found, or waits for.
pub type Tell<'a> = &'a (dyn Fn(&str) + Sync);

/// The configurations of the relay on both servers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Servers {
    /// On the server that it reads before the move.
    pub old: Config,
    /// On the server that it reads after the move.
    pub new: Config,
}

impl Servers {
    /// Creates the pair.
    pub fn new(old: Config, new: Config) -> Self {
        Servers { old, new }
    }
}

/// The same configuration on the server of `url`. A password that `url` has replaces the configured
/// one; without `slot`, the slot's name stays.
///
/// # Errors
/// [`ErrorKind::Config`] for a malformed URL.
pub fn on_server(config: &Config, url: &str, slot: Option<&str>) -> Result<Config> {
    let (_, password) = ConnectInfo::without_password(url)?;
    let mut config = config.clone();
    let settings = &mut config.postgres;
    settings.url = SecretString::from(url);
    settings.url_file = None;
    if password.is_some() {
        (settings.password, settings.password_file) = (None, None);
        settings.password_command = None;
    }
    if let Some(slot) = slot {
        settings.slot = slot.to_owned();
    }
    config.validate()?;
    Ok(config)
}

/// The connection string of a configuration, without its password.
pub fn url_without_password(config: &Config) -> Result<String> {
    Ok(ConnectInfo::without_password(config.postgres.url.expose_secret())?.0)
}

fn refused(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::PostgresRefused, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_server_has_the_same_settings_and_its_own_address() {
        let mut config = Config::default();
        config.postgres.password = Some(SecretString::from("old"));
        config.postgres.message_prefix = "shop".into();
        let other = on_server(&config, "postgresql://relay@db2/shop", None).expect("a URL");
        assert!(other.postgres.password.is_some(), "the password may be the same");
        assert_eq!(other.postgres.message_prefix, "shop");
        let other = on_server(&config, "postgresql://relay:new@db2/shop", Some("s2"));
        let other = other.expect("a URL");
        assert!(other.postgres.password.is_none(), "the URL has its own");
        assert_eq!(other.postgres.slot, "s2");
        let url = url_without_password(&other).expect("a URL");
        assert_eq!(url, "postgresql://relay@db2/shop");
    }
}
