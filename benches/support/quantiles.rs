//! Quantiles of durations, and the present time in the unit they are measured in.

use std::time::SystemTime;

use serde::Serialize;

/// Returns the present time in Unix nanoseconds.
pub fn now_ns() -> i64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Quantiles {
    /// Returns the quantiles of durations in nanoseconds; of none, they are NaN.
    pub fn of(mut ns: Vec<i64>) -> Self {
        ns.sort_unstable();
        let at = |quantile: f64| {
            let index = (ns.len() as f64 * quantile) as usize;
            ns.get(index.min(ns.len().saturating_sub(1))).map_or(f64::NAN, |ns| *ns as f64 / 1e6)
        };
        Quantiles { p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
    }
}
