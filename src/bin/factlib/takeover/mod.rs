//! `factlib takeover`: takes over from another relay.

mod args;
mod handover;
mod shadow;
mod text;

use std::{
    fs::OpenOptions,
    io::{ErrorKind as IoKind, Write},
    path::Path,
    process::ExitCode,
};

use factlib::{
    Error, ErrorKind, Result,
    binary::Loader,
    config::Config,
    takeover::debezium::{ConfigMapping, ConnectorConfig, Equivalence},
};

use secrecy::ExposeSecret;

pub use self::args::TakeoverArgs;
use self::args::{DebeziumArgs, TakeoverCommand};
use crate::{args::SettingArgs, output};

pub fn run(args: &TakeoverArgs, settings: &SettingArgs) -> Result<ExitCode> {
    match &args.command {
        TakeoverCommand::Debezium(args) => debezium(args, settings),
    }
}

fn debezium(args: &DebeziumArgs, settings: &SettingArgs) -> Result<ExitCode> {
    let connector = connector(args)?;
    let mapping = ConfigMapping::of(&connector);
    let reads = args.handover.is_asked() || args.shadow;
    if reads && args.factlib.is_none() && !mapping.is_complete() {
        return Err(incomplete(&mapping));
    }
    if args.handover.is_asked() {
        let config = config(args, settings, &mapping)?;
        return handover::run(&args.handover, &connector, &config, args.json);
    }
    if args.shadow {
        return shadow::run(args, &config(args, settings, &mapping)?);
    }
    match args.json {
        true => output::print(&output::json(&mapping)?)?,
        false => output::print(&text::mapping(&mapping))?,
    }
    if let Some(path) = &args.write {
        write(path, &mapping.toml, args.force)?;
        if !args.json {
            output::print(&format!("\nwrote {}\n", path.display()))?;
        }
    }
    let incomplete = ErrorKind::Config.exit_code();
    Ok(if mapping.is_complete() { ExitCode::SUCCESS } else { ExitCode::from(incomplete) })
}

/// The error for a configuration that can't stand in for Debezium's as it is.
fn incomplete(mapping: &ConfigMapping) -> Error {
    let open = [Equivalence::Missing, Equivalence::Unknown];
    let open = open.into_iter().flat_map(|open| mapping.treated(open));
    let keys: Vec<_> = open.map(|setting| setting.key.as_str()).collect();
    let what = format!("no equivalent is known for {} of Debezium", keys.join(", "));
    Error::new(ErrorKind::Config, what)
        .remedy("make a configuration with --write, complete it, and name it with --factlib")
}

/// Reads Debezium's configuration.
fn connector(args: &DebeziumArgs) -> Result<ConnectorConfig> {
    let connector = ConnectorConfig::read(&args.config)?;
    match &args.worker {
        Some(worker) => connector.with_worker(worker),
        None => Ok(connector),
    }
}

/// Loads factlib's configuration: the given one, or that of the mapping. The environment and flags
/// override it.
fn config(args: &DebeziumArgs, settings: &SettingArgs, mapping: &ConfigMapping) -> Result<Config> {
    let mut loader = Loader::process()?;
    loader = match &args.factlib {
        Some(path) => loader.file(path),
        None => {
            for (setting, secret) in &mapping.secrets {
                loader = loader.flag("Debezium's configuration", *setting, secret.expose_secret());
            }
            loader.text("the mapping of Debezium's configuration", mapping.toml.as_str())
        }
    };
    Ok(settings.add_overrides(loader)?.load()?.config)
}

/// Writes a configuration file, but not over another one.
fn write(path: &Path, text: &str, force: bool) -> Result<()> {
    let mut options = OpenOptions::new();
    let options = match force {
        true => options.write(true).create(true).truncate(true),
        false => options.write(true).create_new(true),
    };
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        IoKind::AlreadyExists => {
            let what = format!("{} exists already", path.display());
            Error::new(ErrorKind::Config, what).remedy("--force replaces it")
        }
        _ => {
            let what = format!("cannot write {}", path.display());
            Error::new(ErrorKind::Config, what).caused_by(error)
        }
    })
}
