//! Maps the connection to PostgreSQL, the slot, the publication and the tables.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Equivalence, Mapper, draft::setting};
use crate::takeover::debezium::{Runtime, connector::is_reference};

/// Characters of a URL's parts that are not replaced.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// TLS options, and the parameters of a connection string for them.
const TLS: [(&str, &str); 4] = [
    ("database.sslmode", "sslmode"),
    ("database.sslrootcert", "sslrootcert"),
    ("database.sslcert", "sslcert"),
    ("database.sslkey", "sslkey"),
];

impl Mapper<'_> {
    pub(super) fn source(&mut self) {
        self.connection();
        self.slot_and_publication();
        self.tables();
        self.snapshot();
    }

    fn connection(&mut self) {
        let database = self.connector.database();
        let known = |text: Option<String>| text.filter(|text| !is_reference(text));
        let encode = |text: &str| utf8_percent_encode(text, PLAIN).to_string();
        let user = known(database.user).map(|user| format!("{}@", encode(&user)));
        let mut url = format!(
            "postgresql://{}{}:{}/{}",
            user.unwrap_or_default(),
            known(database.host).unwrap_or_else(|| "localhost".into()),
            database.port,
            encode(known(database.name).as_deref().unwrap_or("postgres"))
        );
        let mut separator = '?';
        for (key, parameter) in TLS {
            let Some(value) = self.connector.get(key) else { continue };
            url += &format!("{separator}{parameter}={}", encode(value));
            separator = '&';
            self.say(key, Equivalence::Maps, format!("{parameter} in postgres.url"));
        }
        self.draft.postgres.push(setting("url", url));
        for key in ["database.hostname", "database.user", "database.dbname"] {
            self.say(key, Equivalence::Maps, "postgres.url");
        }
        let port = self.connector.get("database.port");
        match port.is_none_or(|port| is_reference(port) || port.parse::<u16>().is_ok()) {
            true => self.say("database.port", Equivalence::Maps, "postgres.url"),
            false => self.say("database.port", Equivalence::Missing, "it is not a port"),
        }
        let password = self.connector.get("database.password").map(str::to_owned);
        if let Some(password) = password {
            let hint = "FACTLIB_POSTGRES__PASSWORD, or postgres.password_file";
            self.draft.postgres.push(format!("# The password comes from {hint}."));
            let (equivalence, note) = match is_reference(&password) {
                true => (Equivalence::Differs, format!("not resolved here: set {hint}")),
                false => (Equivalence::Maps, format!("not copied: set {hint}")),
            };
            self.say("database.password", equivalence, note);
            if !is_reference(&password) {
                self.secrets.push(("postgres.password", password.into()));
            }
        }
        self.say(
            "database.sslpassword",
            Equivalence::Missing,
            "decrypt the key of database.sslkey",
        );
        self.say("database.sslfactory", Equivalence::Missing, "use sslmode in postgres.url");
        let statements = "ALTER ROLE … SET does the same for the relay's user";
        self.say("database.initial.statements", Equivalence::Missing, statements);
    }

    fn slot_and_publication(&mut self) {
        let slot = self.connector.slot_name().to_owned();
        self.draft.postgres.push(setting("slot", slot.as_str()));
        match self.connector.get("slot.name") {
            Some(_) => self.say("slot.name", Equivalence::Maps, "postgres.slot"),
            None => self.say_default("slot.name", &slot, Equivalence::Maps, "postgres.slot"),
        }
        let publication = self.connector.publication_name().to_owned();
        self.draft.postgres.push(setting("publication", publication.as_str()));
        let note = "postgres.publication";
        match self.connector.get("publication.name") {
            Some(_) => self.say("publication.name", Equivalence::Maps, note),
            None => self.say_default("publication.name", &publication, Equivalence::Maps, note),
        }
        match self.connector.plugin_name() {
            "pgoutput" => self.say("plugin.name", Equivalence::Maps, "factlib reads pgoutput"),
            other => {
                let (other, is_set) =
                    (other.to_owned(), self.connector.get("plugin.name").is_some());
                let note = "factlib reads pgoutput: let Debezium read a new slot with plugin.name=pgoutput first, or give up the slot";
                match is_set {
                    true => self.say("plugin.name", Equivalence::Missing, note),
                    false => self.say_default("plugin.name", &other, Equivalence::Missing, note),
                }
            }
        }
        let mode = self.connector.get("publication.autocreate.mode").map(str::to_owned);
        match mode.as_deref() {
            Some("disabled") => {
                let note =
                    "factlib setup creates what is missing; postgres.create = false never does";
                self.say("publication.autocreate.mode", Equivalence::Differs, note);
            }
            Some("filtered") => {
                self.say("publication.autocreate.mode", Equivalence::Maps, "postgres.create");
            }
            _ => {
                let note = "a publication of all tables stays as it is; a missing one is created for the outbox tables alone";
                self.say("publication.autocreate.mode", Equivalence::Differs, note);
            }
        }
        let is_off = |value: &str| value.trim().eq_ignore_ascii_case("false");
        let drops = match self.connector.get("slot.drop.on.stop").is_some_and(is_off) {
            true => Equivalence::Harmless,
            false => Equivalence::Missing,
        };
        self.say("slot.drop.on.stop", drops, "factlib never drops its slot by itself");
        match self.connector.get("slot.failover").is_some_and(is_off) {
            true => {
                self.draft.postgres.push(setting("failover", false));
                self.say("slot.failover", Equivalence::Maps, "postgres.failover");
            }
            false => {
                let note = "postgres.failover, which is the default";
                self.say("slot.failover", Equivalence::Maps, note);
            }
        }
        self.say(
            "slot.stream.params",
            Equivalence::Missing,
            "factlib sets pgoutput's options itself",
        );
        self.say(
            "status.update.interval.ms",
            Equivalence::Harmless,
            "postgres.status_interval has a default",
        );
        self.say(
            "publish.via.partition.root",
            Equivalence::Maps,
            "a publication that factlib creates publishes via the root",
        );
        if self.connector.runtime() == Runtime::DebeziumServer {
            let key = "debezium.sink.type";
            match self.connector.get(key) {
                Some("kafka") => self.say(key, Equivalence::Maps, "factlib sends to Kafka"),
                _ => self.say(key, Equivalence::Missing, "factlib sends to Kafka only"),
            }
        }
    }

    fn tables(&mut self) {
        let key = match self.connector.get("table.whitelist") {
            Some(_) => "table.whitelist",
            None => "table.include.list",
        };
        let Some(list) = self.connector.get(key).map(str::to_owned) else {
            let note = "Debezium reads every table; factlib reads the tables of [[outbox]]: name yours there";
            self.draft.tables.push("public.outbox".into());
            return self.say_default(key, "all tables", Equivalence::Differs, note);
        };
        let names = list.split(',').map(|name| name.trim().replace("\\.", "."));
        let names: Vec<String> = names.filter(|name| !name.is_empty()).collect();
        let is_literal = |name: &String| {
            let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '-' | '.');
            name.matches('.').count() == 1 && name.chars().all(plain)
        };
        match names.iter().find(|name| !is_literal(name)) {
            None => self.say(key, Equivalence::Maps, "one [[outbox]] for each table"),
            Some(pattern) => {
                let note = format!(
                    "{pattern:?} is a pattern: write an [[outbox]] for each table that it matches"
                );
                self.say(key, Equivalence::Missing, note);
            }
        }
        self.draft.tables.extend(names.into_iter().filter(is_literal));
        if self.draft.tables.is_empty() {
            self.draft.tables.push("public.outbox".into());
        }
    }

    fn snapshot(&mut self) {
        let mode = self.connector.get("snapshot.mode").map(str::to_owned);
        match mode.as_deref() {
            Some("never" | "no_data" | "schema_only" | "custom") => {
                self.say("snapshot.mode", Equivalence::Maps, "factlib reads only the WAL");
            }
            _ => {
                let note =
                    "factlib sends no rows from before the slot; `factlib replay` can send them";
                match mode {
                    Some(_) => self.say("snapshot.mode", Equivalence::Differs, note),
                    None => {
                        self.say_default("snapshot.mode", "initial", Equivalence::Differs, note)
                    }
                }
            }
        }
        for key in ["signal.data.collection", "signal.enabled.channels", "signal.kafka.topic"] {
            self.say(
                key,
                Equivalence::Missing,
                "there are no signals; `factlib replay` sends rows again",
            );
        }
        for (key, default) in [
            ("binary.handling.mode", "bytes"),
            ("decimal.handling.mode", "precise"),
            ("time.precision.mode", "adaptive"),
            ("interval.handling.mode", "numeric"),
            ("hstore.handling.mode", "map"),
            ("schema.name.adjustment.mode", "none"),
            ("field.name.adjustment.mode", "none"),
        ] {
            match self.connector.get(key) {
                Some(mode) if mode == default => {
                    self.say(key, Equivalence::Maps, "as outbox.connect converts columns")
                }
                Some(_) => self.say(
                    key,
                    Equivalence::Missing,
                    format!("outbox.connect converts columns as with {default:?}"),
                ),
                None => {}
            }
        }
        let changed = "factlib sends columns as they are";
        let entries: Vec<String> =
            self.connector.entries().map(|(key, _)| key.to_owned()).collect();
        for key in entries {
            let is_of_columns = [
                "column.mask.",
                "column.truncate.",
                "column.exclude.list",
                "column.include.list",
                "column.blacklist",
                "column.whitelist",
                "converters",
            ];
            if is_of_columns.iter().any(|prefix| key.starts_with(prefix)) {
                self.say(&key, Equivalence::Missing, changed);
            }
        }
    }
}
