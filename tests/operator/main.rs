//! What an operator types, with the real binary beside real servers.

mod about;
mod desk;
mod slot;
mod status;
mod tail;
