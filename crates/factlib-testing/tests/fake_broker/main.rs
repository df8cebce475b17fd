//! Runs the clients of `factlib-kafka` against the fake cluster.

mod admin;
mod faults;
mod sending;
mod transactions;
