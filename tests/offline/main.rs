//! Tests that start no server: configuration, the bytes on the wire, what is written in this
//! repository about the code, and what the tests on servers rely on.

#[path = "../support/mod.rs"]
mod support;

mod actix_behaviour;
mod command_reference;
mod config;
mod documented;
mod error_table;
mod error_texts;
mod golden;
mod history_checker;
mod packaging;
mod settings_table;
