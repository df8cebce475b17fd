//! Writes the configuration file of `factlib init`: the settings that matter, with comments.

use std::fmt::Write;

use super::questions::Answers;

/// Port of the status page, health and metrics.
const HTTP_PORT: u16 = 9100;

impl Answers {
    /// The text of the file; it has no secret.
    pub fn file(&self) -> String {
        let mut file = String::from(
            "# factlib relays events that are committed in PostgreSQL to Kafka.\n\
             # All settings: factlib config --example. The environment overrides this file\n\
             # (FACTLIB_KAFKA__BROKERS sets kafka.brokers), and flags override both.\n",
        );
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        // Writing to a String never fails.
        let _ = write!(
            file,
            "\n[postgres]\n\
             url = {}\n\
             # The password comes from FACTLIB_POSTGRES__PASSWORD, ~/.pgpass, or a file:\n\
             # password_file = \"/run/secrets/postgres-password\"\n\
             # One slot per relay. The server keeps WAL until the relay has delivered it.\n\
             slot = {}\n\
             publication = {}\n",
            quoted(&self.url),
            quoted(&self.slot),
            quoted(&self.publication),
        );
        file += match &self.table {
            None => "# Events are the logical messages with this prefix.\nsource = \"messages\"\n",
            Some(_) => "# Events are the rows of the [[outbox]] below.\nsource = \"tables\"\n",
        };
        let _ = writeln!(file, "message_prefix = {}", quoted(&self.prefix));
        let brokers: Vec<_> = self.brokers.iter().map(|broker| quoted(broker)).collect();
        let _ = writeln!(file, "\n[kafka]\nbrokers = [{}]", brokers.join(", "));
        file += "# Topics are {topic_prefix}.{aggregate_type}; the message prefix if not set.\n";
        match &self.topic_prefix {
            Some(prefix) => drop(writeln!(file, "topic_prefix = {}", quoted(prefix))),
            None => file += "# topic_prefix = \"shop\"\n",
        }
        file += "# For brokers with TLS, and with a login:\n\
             # tls = true\n\
             # tls_ca = \"/etc/ssl/kafka-ca.pem\"\n\
             # sasl_mechanism = \"SCRAM-SHA-512\"\n\
             # username = \"factlib\"\n\
             # password_file = \"/run/secrets/kafka-password\"  # or FACTLIB_KAFKA__PASSWORD\n";
        let _ = write!(
            file,
            "\n[delivery]\n\
             # at-least-once, or exactly-once for consumers with isolation.level=read_committed\n\
             mode = {}\n\
             \n[http]\n\
             # Status page, health and metrics: http://127.0.0.1:{HTTP_PORT}/\n\
             metrics_port = {HTTP_PORT}\n\
             health_port = {HTTP_PORT}\n",
            quoted(self.mode.name()),
        );
        if let Some(table) = &self.table {
            let _ = write!(
                file,
                "\n[[outbox]]\n\
                 table = {}\n\
                 # preset = \"debezium\"  # for tables and records of its outbox event router\n",
                quoted(table),
            );
        }
        file
    }
}

#[cfg(test)]
mod tests {
    use factlib::{binary::Loader, config::DeliveryMode};
    use secrecy::ExposeSecret;

    use super::{super::args::Mode, *};

    fn answers() -> Answers {
        Answers {
            url: "postgresql://relay@db/shop".into(),
            password: Some("secret".to_owned().into()),
            brokers: vec!["k1:9092".into(), "k2:9092".into()],
            table: None,
            mode: Mode::ExactlyOnce,
            slot: "orders".into(),
            publication: "orders".into(),
            prefix: "shop".into(),
            topic_prefix: Some("a.b".into()),
        }
    }

    fn load(text: &str) -> factlib::config::Config {
        load_with(text, [])
    }

    fn load_with<const N: usize>(
        text: &str,
        env: [(String, String); N],
    ) -> factlib::config::Config {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("factlib.toml");
        std::fs::write(&path, text).expect("written");
        Loader::new(folder.path()).env(env).load().expect("a valid file").config
    }

    #[test]
    fn the_file_sets_what_was_answered_and_holds_no_password() {
        let text = answers().file();
        assert!(!text.contains("secret\""), "{text}");
        let config = load(&text);
        assert_eq!(config.postgres.url.expose_secret(), "postgresql://relay@db/shop");
        assert_eq!((&*config.postgres.slot, config.topic_prefix()), ("orders", "a.b"));
        assert_eq!(config.kafka.brokers, ["k1:9092", "k2:9092"]);
        assert_eq!(config.delivery.mode, DeliveryMode::ExactlyOnce);
        assert!(config.outbox_tables().is_empty());
    }

    #[test]
    fn a_table_is_an_outbox() {
        let answers = Answers { table: Some("sales.events".into()), ..answers() };
        assert_eq!(load(&answers.file()).outbox_tables()[0].table, "sales.events");
    }

    /// What is commented out can be used as it stands.
    #[test]
    fn the_commented_settings_are_known() {
        for table in [None, Some("outbox".to_owned())] {
            let text = Answers { table, topic_prefix: None, ..answers() }.file();
            let used: String = text
                .lines()
                .filter(|line| !line.contains("password_file"))
                .map(|line| match line.strip_prefix("# ") {
                    Some(setting) if setting.contains(" = ") => format!("{setting}\n"),
                    _ => format!("{line}\n"),
                })
                .collect();
            load_with(&used, [("FACTLIB_KAFKA__PASSWORD".into(), "p".into())]);
        }
    }
}
