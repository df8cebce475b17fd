//! Managed services: recognises the one that runs a server, and knows what differs there.
//!
//! What is known of each is data ([`services`]), read in its documentation: the tests run against
//! servers of their own.

mod services;

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Client;

pub(crate) use self::services::SERVICES;
use super::postgres_error;
use crate::Result;

/// A managed service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub name: &'static str,
    /// Endings of its servers' host names.
    hosts: &'static [&'static str],
    /// Beginnings of the names of settings that only its servers have.
    settings: &'static [&'static str],
    /// Roles that only its servers have.
    roles: &'static [&'static str],
    /// Where server settings are changed.
    pub parameters: &'static str,
    /// How logical replication is switched on.
    pub wal_level: &'static str,
    /// Statement that lets a role replicate; `{role}` is its name.
    replication: &'static str,
    /// What drops a slot, or makes it useless.
    pub slots: &'static str,
    /// Login with short-lived tokens: what it needs, and the command that prints one.
    pub tokens: Option<Tokens>,
    /// Its pooler, which does not pass replication on.
    pooler: Option<Pooler>,
    /// Address of the documentation that this was read in.
    pub source: &'static str,
}

/// Login with short-lived tokens instead of a password.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub needs: &'static str,
    /// `postgres.password_command`.
    pub command: &'static str,
}

/// A pooler of a service.
#[derive(Debug, PartialEq, Eq)]
struct Pooler {
    name: &'static str,
    /// Text in the host name of its endpoint.
    host: &'static str,
    /// Port of its endpoint, if the host is the server's.
    port: Option<u16>,
    remedy: &'static str,
}

/// What a service can be recognised by.
#[derive(Debug, Default)]
struct Evidence {
    /// Hosts of the connection string, each with its port.
    hosts: String,
    settings: Vec<String>,
    roles: Vec<String>,
}

impl Service {
    /// Recognises the service by hosts (`db.example:5432,…`), and by settings and roles of the server.
    pub async fn of(client: &Client, hosts: String) -> Result<Option<&'static Self>> {
        let settings: Vec<_> = SERVICES.iter().flat_map(|service| service.settings).collect();
        let roles: Vec<_> = SERVICES.iter().flat_map(|service| service.roles).collect();
        let query = "SELECT
            ARRAY(SELECT name FROM pg_catalog.pg_settings
                  WHERE EXISTS (SELECT FROM unnest($1::text[]) AS b WHERE left(name, length(b)) = b)),
            ARRAY(SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolname = ANY ($2::text[]))";
        let failed = |error| postgres_error("cannot look up the managed service", error);
        let row = client.query_one(query, &[&settings, &roles]).await.map_err(failed)?;
        let read = || Ok((row.try_get(0)?, row.try_get(1)?));
        let (settings, roles) = read().map_err(failed)?;
        Ok(Evidence { hosts, settings, roles }.service())
    }

    /// The statement that lets a role replicate.
    pub fn replication(&self, role: &str) -> String {
        self.replication.replace("{role}", &escape_identifier(role))
    }
}

/// Says how to set a server setting that needs a restart.
pub(crate) fn setting_remedy(service: Option<&Service>, name: &str, value: i32) -> String {
    match service {
        Some(service) => format!("set {name} = {value} in {}", service.parameters),
        None => format!("ALTER SYSTEM SET {name} = {value}; restart PostgreSQL"),
    }
}

/// Says how to reach the server itself if the hosts (`db.example:5432,…`) are those of a service's
/// pooler.
pub(crate) fn pooler_remedy(hosts: &str) -> Option<String> {
    let poolers = SERVICES.iter().filter_map(|service| service.pooler.as_ref());
    let mut poolers = poolers.filter(|pooler| endpoints(hosts).any(|endpoint| pooler.is(endpoint)));
    let Pooler { name, remedy, .. } = poolers.next()?;
    Some(format!("postgres.url names {name}, which does not pass replication on: {remedy}"))
}

/// The hosts and ports of a list such as `a:5432,b:5433`.
fn endpoints(hosts: &str) -> impl Iterator<Item = (&str, Option<u16>)> {
    hosts.split(',').map(|host| match host.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().ok()),
        None => (host, None),
    })
}

impl Pooler {
    fn is(&self, (host, port): (&str, Option<u16>)) -> bool {
        host.to_ascii_lowercase().contains(self.host) && (self.port.is_none() || self.port == port)
    }
}

impl Evidence {
    /// The first service of the table that any evidence speaks for; the server's own is stronger than
    /// a host name, behind which may be a proxy.
    fn service(&self) -> Option<&'static Service> {
        let by_server = SERVICES.iter().find(|service| self.shows(service));
        by_server.or_else(|| SERVICES.iter().find(|service| self.is_host_of(service)))
    }

    fn shows(&self, service: &Service) -> bool {
        let has_setting = |begin: &&str| self.settings.iter().any(|name| name.starts_with(begin));
        let has_role = |role: &&str| self.roles.iter().any(|name| name == role);
        service.settings.iter().any(has_setting) || service.roles.iter().any(has_role)
    }

    fn is_host_of(&self, service: &Service) -> bool {
        endpoints(&self.hosts).any(|(host, _)| {
            let host = host.to_ascii_lowercase();
            service.hosts.iter().any(|end| host.ends_with(end))
        })
    }
}

#[cfg(test)]
mod tests;
