//! An operator at work: what they type, with the real binary beside real servers, and the pages
//! that they, their probes and their Prometheus look at.

#[path = "../support/mod.rs"]
mod support;

mod about;
mod audit;
mod cli;
mod dashboard;
mod dead_letter;
mod demo;
mod desk;
mod doctor;
mod documented_commands;
mod first_run;
mod health;
mod held_traces;
mod init;
mod monitoring;
mod page;
mod receipt_texts;
mod receipts;
mod refusals;
mod replay;
mod screen;
mod slot;
mod status;
mod tail;
#[cfg(feature = "otlp")]
mod traces;
