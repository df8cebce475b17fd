//! What an operator types, with the real binary beside real servers.

mod about;
mod desk;
mod readme;
mod slot;
mod status;
mod tail;
#[path = "../support/terminal.rs"]
mod terminal;
