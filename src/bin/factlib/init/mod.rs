//! `factlib init`: asks for the few settings that matter, writes them to a commented configuration
//! file, checks both servers and offers `setup`.

mod args;
mod file;
mod questions;

use std::{fs::OpenOptions, io::Write, path::Path, process::ExitCode};

use factlib::{Error, ErrorKind, Result, binary::Loader};
use secrecy::{ExposeSecret, SecretString};
use slog::{Discard, Logger, o};

pub use self::args::{HELP, InitArgs};
use self::questions::Answers;
use crate::{
    args::{SettingArgs, SetupArgs},
    ask,
    doctor::{self, Health},
    output, setup,
};

pub fn run(args: &InitArgs, settings: &SettingArgs) -> Result<ExitCode> {
    let path = settings.config.as_ref().unwrap_or(&args.output);
    refuse_existing(path, args)?;
    let answers = Answers::collect(args, settings)?;
    answers.check()?;
    write(path, &answers.file())?;
    output::print(&format!("wrote {}\n", path.display()))?;
    if answers.password.is_some() {
        output::print(
            "The password is not in it: set FACTLIB_POSTGRES__PASSWORD, or name a file with it as\n\
             postgres.password_file.\n",
        )?;
    }
    output::print("\n")?;
    let loader = with_password(settings.loader()?.file(path), answers.password.as_ref());
    let config = loader.load()?.config;
    let log = Logger::root(Discard, o!());
    let health = doctor::print_report(&config)?;
    if health != Health::HasErrors && agrees_to_setup(args, &answers) {
        let table = answers.table.clone();
        setup::run(&SetupArgs { outbox_table: table, ..SetupArgs::default() }, &config, &log)?;
        return output::print("\nNext: factlib run\n").map(|()| ExitCode::SUCCESS);
    }
    let table = answers.table.as_ref().map(|table| format!(" --outbox-table={table}"));
    let setup = format!("factlib setup{}", table.unwrap_or_default());
    let (first, code) = match health {
        Health::HasErrors => {
            ("correct the errors, check again with factlib doctor, then ", ExitCode::from(1))
        }
        _ => ("", ExitCode::SUCCESS),
    };
    output::print(&format!("\nNext: {first}{setup}, then factlib run\n"))?;
    Ok(code)
}

fn refuse_existing(path: &Path, args: &InitArgs) -> Result<()> {
    if args.force || !path.exists() {
        return Ok(());
    }
    let failure = format!("{} exists already", path.display());
    Err(Error::new(ErrorKind::Config, failure)
        .remedy("`factlib doctor` checks it; --force replaces it, --output names another"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    let failed = |error| {
        let failure = format!("cannot write {}", path.display());
        Error::new(ErrorKind::Config, failure).caused_by(error)
    };
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)
}

/// Adds the password for this run; the next one finds it where the user puts it.
fn with_password(loader: Loader, password: Option<&SecretString>) -> Loader {
    match password {
        Some(password) => {
            let password = password.expose_secret();
            loader.flag("the connection string", "postgres.password", password)
        }
        None => loader,
    }
}

fn agrees_to_setup(args: &InitArgs, answers: &Answers) -> bool {
    let table = answers.table.as_ref().map(|table| format!(" and table {table}"));
    let table = table.unwrap_or_default();
    args.yes
        || ask::confirm(&format!(
            "\n`factlib setup` creates what is missing of slot {}, publication {}{table}, and\n\
             factlib's own tables. From then on the server keeps WAL for the slot.",
            answers.slot, answers.publication
        ))
}
