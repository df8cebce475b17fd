//! `factlib setup`: creates ahead of time what `run` and emitting services need in the database.

use actix_rt::System;
use factlib::{Error, Result, config::Config, emit::schema, postgres};
use slog::Logger;

use crate::{args::SetupArgs, output};

pub fn run(args: &SetupArgs, config: &Config, log: &Logger) -> Result<()> {
    let services = service_sql(args)?;
    if args.dry_run {
        return output::print(&with_newline(services + &factlib::setup_sql(config)));
    }
    let report = System::new().block_on(async {
        // First: the publication may have to include this table.
        if !services.is_empty() {
            let client = postgres::connect(&config.postgres, log).await?;
            postgres::sql::run(&client, "cannot create what services need", &services).await?;
        }
        let report = factlib::setup(config, args.accept_position, log).await?;
        Ok::<_, Error>(report.to_string())
    })?;
    let table = args.outbox_table.as_ref().map(|name| format!("\noutbox table: {name}"));
    let functions = args.sql_functions.then_some("\nSQL functions: installed");
    output::print(&with_newline(report + table.as_deref().unwrap_or("") + functions.unwrap_or("")))
}

/// The SQL that creates what emitting services need.
fn service_sql(args: &SetupArgs) -> Result<String> {
    let mut sql = String::new();
    if let Some(name) = &args.outbox_table {
        sql.push_str(&schema::outbox_table(name)?);
    }
    if args.sql_functions {
        sql.push_str(schema::FUNCTIONS);
    }
    Ok(sql)
}

/// Ends the text with exactly one newline.
fn with_newline(text: String) -> String {
    text.trim_end().to_owned() + "\n"
}
