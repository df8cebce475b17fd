//! `factlib setup`: what `run` needs in the database, ahead of time, and what services do.

use actix_rt::System;
use factlib::{Error, Result, config::Config, emit::schema, postgres};
use slog::Logger;

use crate::{args::SetupArgs, output};

pub fn run(args: &SetupArgs, config: &Config, log: &Logger) -> Result<()> {
    let services = for_services(args)?;
    if args.dry_run {
        return output::print(&ended(services + &factlib::setup_sql(config)));
    }
    let report = System::new().block_on(async {
        // First: the table may be one that the publication is to have.
        if !services.is_empty() {
            let client = postgres::connect(&config.postgres, log).await?;
            postgres::sql::run(&client, "cannot create what services need", &services).await?;
        }
        let report = factlib::setup(config, args.accept_position, log).await?;
        Ok::<_, Error>(report.to_string())
    })?;
    let table = args.outbox_table.as_ref().map(|name| format!("\noutbox table: {name}"));
    let functions = args.sql_functions.then_some("\nSQL functions: installed");
    output::print(&ended(report + table.as_deref().unwrap_or("") + functions.unwrap_or("")))
}

/// The SQL for whoever emits.
fn for_services(args: &SetupArgs) -> Result<String> {
    let mut sql = String::new();
    if let Some(name) = &args.outbox_table {
        sql.push_str(&schema::outbox_table(name)?);
    }
    if args.sql_functions {
        sql.push_str(schema::FUNCTIONS);
    }
    Ok(sql)
}

/// The text with one line end behind it.
fn ended(text: String) -> String {
    text.trim_end().to_owned() + "\n"
}
