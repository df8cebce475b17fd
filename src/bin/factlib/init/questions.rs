//! Collects the answers of `factlib init`, from flags, at the terminal, or as defaults.

use clap::ValueEnum;
use factlib::{
    Error, ErrorKind, Result,
    binary::Loader,
    config::{ARCHIVE_TABLE, Config},
};
use factlib_postgres::ConnectInfo;
use secrecy::{ExposeSecret, SecretString};

use super::args::{InitArgs, Mode, SourceKind};
use crate::{args::SettingArgs, ask};

/// Everything that the file needs.
pub struct Answers {
    /// Connection string without a password.
    pub url: String,
    pub password: Option<SecretString>,
    pub brokers: Vec<String>,
    /// The outbox table; none for logical messages.
    pub table: Option<String>,
    pub mode: Mode,
    pub slot: String,
    pub publication: String,
    pub prefix: String,
    pub topic_prefix: Option<String>,
}

impl Answers {
    /// Takes flags, and asks for the rest at the terminal.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: an answer is invalid, or is missing and nobody can be asked.
    pub fn collect(args: &InitArgs, settings: &SettingArgs) -> Result<Self> {
        let defaults = Config::default();
        let asker =
            Asker { is_attended: !args.yes && ask::is_attended(), takes_defaults: args.yes };
        let url = asker.required(
            &settings.postgres_url,
            "--postgres",
            "PostgreSQL, as a URL",
            defaults.postgres.url.expose_secret(),
        )?;
        let (url, password) = ConnectInfo::without_password(&url)?;
        let brokers = asker.required(
            &settings.brokers,
            "--kafka",
            "Kafka brokers, HOST:PORT,…",
            &defaults.kafka.brokers.join(","),
        )?;
        let named = args.table.as_ref().map(|_| SourceKind::Table);
        let source = asker.choice(
            args.source.or(named),
            "events come as messages, or as rows of a table",
            SourceKind::Messages,
        )?;
        let table = match source {
            SourceKind::Messages => None,
            SourceKind::Table => {
                Some(asker.optional(&args.table, "outbox table", ARCHIVE_TABLE)?)
            }
        };
        let mode = asker.choice(args.mode, "delivery", Mode::AtLeastOnce)?;
        let or = |given: &Option<String>, default: &str| given.clone().unwrap_or(default.into());
        Ok(Answers {
            url,
            password,
            brokers: brokers.split(',').map(|broker| broker.trim().to_owned()).collect(),
            table,
            mode,
            slot: or(&settings.slot, &defaults.postgres.slot),
            publication: or(&settings.publication, &defaults.postgres.publication),
            prefix: or(&settings.prefix, &defaults.postgres.message_prefix),
            topic_prefix: settings.topic_prefix.clone(),
        })
    }

    /// Checks the answers as a start would, before anything is written.
    pub fn check(&self) -> Result<()> {
        let mut loader = Loader::new("/nonexistent")
            .flag("--postgres", "postgres.url", &self.url)
            .flag("--kafka", "kafka.brokers", self.brokers.join(","))
            .flag("--slot", "postgres.slot", &self.slot)
            .flag("--publication", "postgres.publication", &self.publication)
            .flag("--prefix", "postgres.message_prefix", &self.prefix)
            .flag("--mode", "delivery.mode", self.mode.name());
        if let Some(prefix) = &self.topic_prefix {
            loader = loader.flag("--topic-prefix", "kafka.topic_prefix", prefix);
        }
        loader.load()?;
        if let Some(table) = &self.table {
            factlib::emit::schema::outbox_table(table)?;
        }
        Ok(())
    }
}

/// The way to an answer that no flag gives.
struct Asker {
    is_attended: bool,
    takes_defaults: bool,
}

impl Asker {
    /// An answer that has no sensible default unless the user says so.
    fn required(
        &self,
        flag: &Option<String>,
        name: &str,
        question: &str,
        default: &str,
    ) -> Result<String> {
        if flag.is_none() && !self.is_attended && !self.takes_defaults {
            return Err(Error::new(ErrorKind::Config, format!("{name} is missing"))
                .remedy("give it, or run this on a terminal, which asks"));
        }
        self.optional(flag, question, default)
    }

    fn optional(&self, flag: &Option<String>, question: &str, default: &str) -> Result<String> {
        match flag {
            Some(given) => Ok(given.clone()),
            None if self.is_attended => ask::value(question, default).ok_or_else(ended),
            None => Ok(default.to_owned()),
        }
    }

    /// One of the values of a flag; asks again until it is one.
    fn choice<T: ValueEnum>(&self, flag: Option<T>, question: &str, default: T) -> Result<T> {
        let name = |choice: &T| choice.to_possible_value().map(|value| value.get_name().to_owned());
        let names: Vec<_> = T::value_variants().iter().filter_map(name).collect();
        if flag.is_some() || !self.is_attended {
            return Ok(flag.unwrap_or(default));
        }
        let question = format!("{question}: {}", names.join(" or "));
        loop {
            let answer = ask::value(&question, &name(&default).unwrap_or_default());
            if let Ok(choice) = T::from_str(&answer.ok_or_else(ended)?, true) {
                return Ok(choice);
            }
        }
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Config, "the input ended before all questions were answered")
}
