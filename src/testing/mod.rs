//! Throwaway servers and observers for tests of pipelines (feature `test-util`).
//!
//! The servers, the proxy, certificates and collected logs are those of the crate
//! `factlib-testing`, with all its features. To them [`handler_batch`] adds a batch for a handler
//! actor under test, without a pipeline.

mod handler_batch;

pub use factlib_testing::*;

pub use self::handler_batch::{BatchAnswer, handler_batch};
