//! The time for which a server may be silent before its connection counts as lost.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

/// Maximum number of times that the limit is doubled.
const DOUBLINGS_MAX: u32 = 6;

/// Limit for the server's silence; a connection that exceeds it counts as lost.
///
/// A process of an older server that decodes a large unrelated transaction sends nothing and answers
/// nothing until it has finished. With a fixed limit, each new connection would start that work again
/// and never finish it. Therefore each connection that is lost for silence doubles the limit, until a
/// server replies when a reply is requested.
#[derive(Debug)]
pub struct SilenceLimit {
    limit: Duration,
    losses: AtomicU32,
}

impl SilenceLimit {
    /// Begins with this limit.
    pub fn new(limit: Duration) -> Self {
        SilenceLimit { limit, losses: AtomicU32::new(0) }
    }

    /// The limit for the connection that is open now.
    pub fn limit(&self) -> Duration {
        self.limit * (1 << self.losses.load(Relaxed).min(DOUBLINGS_MAX))
    }

    /// Doubles the limit: a connection was lost for silence.
    pub fn lost(&self) {
        self.losses.fetch_add(1, Relaxed);
    }

    /// Resets the limit: the server replied when a reply was requested.
    pub fn answered(&self) {
        self.losses.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loss_doubles_the_limit_until_a_server_answers() {
        let silence_limit = SilenceLimit::new(Duration::from_secs(20));
        silence_limit.lost();
        silence_limit.lost();
        assert_eq!(silence_limit.limit(), Duration::from_secs(80));
        for _ in 0..100 {
            silence_limit.lost();
        }
        assert_eq!(silence_limit.limit(), Duration::from_secs(20 * 64));
        silence_limit.answered();
        assert_eq!(silence_limit.limit(), Duration::from_secs(20));
    }
}
