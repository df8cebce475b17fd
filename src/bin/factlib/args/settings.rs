//! Flags that override settings, and the help that lists them.

use std::path::PathBuf;

use clap::{Arg, Args, Command};
use factlib::{Error, ErrorKind, Result, binary::Loader};

const SETTINGS_HEADING: &str = "Settings";

/// Flags that override settings; every subcommand takes them.
#[derive(Args, Default)]
#[command(next_help_heading = SETTINGS_HEADING)]
pub struct SettingArgs {
    /// Configuration file [default: $FACTLIB_CONFIG, or factlib.toml]
    #[arg(long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// A pipeline of the folder fleet.pipelines
    #[arg(long, global = true, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// Override a setting; may be repeated
    #[arg(long = "set", global = true, value_name = "SETTING=VALUE")]
    pub overrides: Vec<String>,
    /// postgres.url; others on this machine see it: set passwords in the environment
    #[arg(long, visible_alias = "postgres", global = true, value_name = "URL")]
    pub postgres_url: Option<String>,
    /// postgres.slot
    #[arg(long, global = true, value_name = "NAME")]
    pub slot: Option<String>,
    /// postgres.publication
    #[arg(long, global = true, value_name = "NAME")]
    pub publication: Option<String>,
    /// postgres.message_prefix
    #[arg(long, global = true, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// kafka.brokers, separated by commas
    #[arg(long, visible_alias = "kafka", global = true, value_name = "HOST:PORT,…")]
    pub brokers: Option<String>,
    /// kafka.topic_prefix
    #[arg(long, global = true, value_name = "PREFIX")]
    pub topic_prefix: Option<String>,
    /// log.level: error, warn, info, debug or trace
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// log.format: auto, json or terminal
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl SettingArgs {
    /// The loader of this process's configuration, with these flags.
    pub fn loader(&self) -> Result<Loader> {
        self.add_to(Loader::process()?)
    }

    /// Adds these flags to a loader.
    pub fn add_to(&self, mut loader: Loader) -> Result<Loader> {
        if let Some(path) = &self.config {
            loader = loader.file(path);
        }
        self.add_overrides(loader)
    }

    /// Adds these flags to a loader, but for the configuration file.
    pub fn add_overrides(&self, mut loader: Loader) -> Result<Loader> {
        for text in &self.overrides {
            let Some((setting, value)) = text.split_once('=') else {
                let failure = format!("flag --set {text}: expected section.key=value");
                return Err(Error::new(ErrorKind::Config, failure));
            };
            loader = loader.flag(format!("--set {setting}"), setting.trim(), value);
        }
        let flags = [
            ("--postgres-url", "postgres.url", &self.postgres_url),
            ("--slot", "postgres.slot", &self.slot),
            ("--publication", "postgres.publication", &self.publication),
            ("--prefix", "postgres.message_prefix", &self.prefix),
            ("--brokers", "kafka.brokers", &self.brokers),
            ("--topic-prefix", "kafka.topic_prefix", &self.topic_prefix),
            ("--log-level", "log.level", &self.log_level),
            ("--log-format", "log.format", &self.log_format),
        ];
        for (flag, setting, value) in flags {
            if let Some(value) = value {
                loader = loader.flag(flag, setting, value);
            }
        }
        Ok(loader)
    }
}

impl std::fmt::Debug for SettingArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Every other flag may hold a password.
        f.debug_struct("SettingArgs").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Shortens the help: it hides the flags of single settings, which the text after it names. The
/// commands that are about servers show those of the servers.
pub fn with_short_help(mut command: Command) -> Command {
    // Copies the global flags into the subcommands.
    command.build();
    // `factlib help` works without a line of its own.
    let hide = |command: Command| match command.get_name() {
        "help" => command.hide(true),
        _ => command,
    };
    hide_settings(command.mut_subcommands(hide))
}

fn hide_settings(command: Command) -> Command {
    let shown: &[&str] = match command.get_name() {
        "completions" | "help" | "man" => &[],
        "demo" => &["overrides", "postgres_url", "brokers"],
        "init" => &["postgres_url", "brokers"],
        _ => &["config", "overrides"],
    };
    let hide = |arg: Arg| {
        let is_setting = arg.get_help_heading() == Some(SETTINGS_HEADING);
        match (is_setting, shown.contains(&arg.get_id().as_str())) {
            (true, false) => arg.hide(true),
            // Two or three need no heading.
            (true, true) => arg.help_heading(None),
            (false, _) => arg,
        }
    };
    command.mut_args(hide).mut_subcommands(hide_settings)
}
