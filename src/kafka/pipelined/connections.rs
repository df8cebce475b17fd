//! The connections to Kafka that the pipelines of a fleet share.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use factlib_kafka::{ConnectionPool, Connector, Settings, sasl::Login};

use crate::kafka::{KafkaSettings, LoginSettings, TlsSettings};

/// Gives clients with the same login and the same encryption one pool of connections, as long as
/// one of them is there.
#[derive(Clone, Default)]
pub(crate) struct SharedConnections(Arc<Mutex<Vec<Shared>>>);

/// A pool, and the settings of its clients. A connection serves clients with the same `Arc` of
/// connector and login only.
struct Shared {
    login_settings: Option<LoginSettings>,
    tls_settings: Option<TlsSettings>,
    pool: Weak<ConnectionPool>,
    connector: Weak<dyn Connector>,
    login: Option<Weak<dyn Login>>,
}

impl SharedConnections {
    /// Makes a client with these settings share the connections of the earlier ones like it.
    pub fn share(&self, kafka: &KafkaSettings, settings: &mut Settings) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|shared| shared.pool.strong_count() > 0);
        let mut like_it = all.iter().filter(|shared| {
            shared.login_settings == kafka.login && shared.tls_settings == kafka.tls
        });
        if like_it.any(|shared| shared.give_to(settings)) {
            return;
        }
        all.push(Shared {
            login_settings: kafka.login.clone(),
            tls_settings: kafka.tls.clone(),
            pool: Arc::downgrade(&settings.connections),
            connector: Arc::downgrade(&settings.connector),
            login: settings.login.as_ref().map(Arc::downgrade),
        });
    }
}

impl Shared {
    /// Puts the shared parts into the settings; returns false if they are gone.
    fn give_to(&self, settings: &mut Settings) -> bool {
        let login = match &self.login {
            Some(login) => login.upgrade().map(Some),
            None => Some(None),
        };
        match (self.pool.upgrade(), self.connector.upgrade(), login) {
            (Some(pool), Some(connector), Some(login)) => {
                (settings.connections, settings.connector) = (pool, connector);
                settings.login = login;
                true
            }
            _ => false,
        }
    }
}

impl fmt::Debug for SharedConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedConnections").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, kafka::pipelined::client_settings};

    fn settings(shared: &SharedConnections, change: impl FnOnce(&mut Config)) -> Settings {
        let mut config = Config::default();
        config.kafka.connections = Some(shared.clone());
        config.kafka.username = Some("relay".into());
        config.kafka.password = Some("secret".to_owned().into());
        config.kafka.tls = true;
        change(&mut config);
        client_settings(&config.kafka.settings()).expect("settings")
    }

    fn share(a: &Settings, b: &Settings) -> bool {
        let has_same_login = match (&a.login, &b.login) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        Arc::ptr_eq(&a.connections, &b.connections)
            && Arc::ptr_eq(&a.connector, &b.connector)
            && has_same_login
    }

    #[test]
    fn clients_share_where_login_and_encryption_agree() {
        let shared = SharedConnections::default();
        let one = settings(&shared, |_| {});
        let other = settings(&shared, |config| config.kafka.brokers = vec!["other:9092".into()]);
        assert!(share(&one, &other));
        let changes: [fn(&mut Config); 5] = [
            |config| config.kafka.username = Some("somebody".into()),
            |config| config.kafka.password = Some("another".to_owned().into()),
            |config| config.kafka.password_file = Some("/run/secrets/password".into()),
            |config| config.kafka.tls_ca = Some("/etc/ca.pem".into()),
            |config| config.kafka.tls = false,
        ];
        for change in changes {
            assert!(!share(&one, &settings(&shared, change)));
        }
        assert!(share(&one, &settings(&shared, |_| {})));
        assert!(!share(&one, &settings(&SharedConnections::default(), |_| {})));
        let alone = settings(&shared, |config| config.kafka.connections = None);
        assert!(!share(&one, &alone));
    }

    #[test]
    fn what_nobody_uses_is_forgotten() {
        let shared = SharedConnections::default();
        let pool = Arc::downgrade(&settings(&shared, |_| {}).connections);
        assert_eq!(pool.strong_count(), 0);
        let _other = settings(&shared, |config| config.kafka.tls = false);
        assert_eq!(shared.0.lock().expect("no panic").len(), 1);
    }
}
