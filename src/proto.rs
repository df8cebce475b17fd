//! The event on the wire, generated from `proto/factlib/v1/outbox.proto`.

include!(concat!(env!("OUT_DIR"), "/factlib.v1.rs"));
