//! The time for which a server may be silent before its connection counts as lost.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

/// Doublings of the limit, at most.
const DOUBLINGS_MAX: u32 = 6;

/// Limit for the server's silence; a connection that exceeds it counts as lost.
///
/// On older servers, a process that decodes a large transaction of others sends and answers nothing
/// until it has finished. With a fixed limit, each new connection would start that work again and
/// never finish it. So each connection that is lost for its silence doubles the limit, until a
/// server answers when it is asked.
#[derive(Debug)]
pub struct SilenceLimit {
    limit: Duration,
    losses: AtomicU32,
}

impl SilenceLimit {
    /// A limit that begins with this.
    pub fn new(limit: Duration) -> Self {
        SilenceLimit { limit, losses: AtomicU32::new(0) }
    }

    /// The limit for the connection that is open now.
    pub fn limit(&self) -> Duration {
        self.limit * (1 << self.losses.load(Relaxed).min(DOUBLINGS_MAX))
    }

    /// A connection was lost for its silence.
    pub fn lost(&self) {
        self.losses.fetch_add(1, Relaxed);
    }

    /// The server has answered when it was asked.
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
