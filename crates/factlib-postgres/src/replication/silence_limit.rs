//! The time for which a server may be silent before its connection counts as lost.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::Lsn;

/// Maximum number of times that the limit is doubled.
const DOUBLINGS_MAX: u32 = 6;
/// A server that replies within this part of the limit has nothing to do that takes long.
const PROMPT: u32 = 8;
/// Prompt replies in a row that reset the limit. One alone may be luck: a busy server looks up from
/// its work just then.
const PROMPT_REPLIES: u32 = 5;

/// Limit for the server's silence; a connection that exceeds it counts as lost.
///
/// A server process that decodes a large unrelated transaction sends nothing, and answers late or not
/// before it has finished. With a fixed limit, each new connection would start that work again and
/// never finish it. Therefore each connection that is lost for silence doubles the limit, until the
/// server sends what was not received before, or has replied promptly several times.
#[derive(Debug)]
pub struct SilenceLimit {
    limit: Duration,
    losses: AtomicU32,
    prompt_replies: AtomicU32,
    /// Position up to which everything was received before the last loss.
    lost_at: AtomicU64,
}

impl SilenceLimit {
    /// Begins with this limit.
    pub fn new(limit: Duration) -> Self {
        SilenceLimit {
            limit,
            losses: AtomicU32::new(0),
            prompt_replies: AtomicU32::new(0),
            lost_at: AtomicU64::new(0),
        }
    }

    /// The limit for the connection that is open now.
    pub fn limit(&self) -> Duration {
        self.limit * (1 << self.losses.load(Relaxed).min(DOUBLINGS_MAX))
    }

    /// The limit as long as no connection was lost.
    pub(super) fn initial(&self) -> Duration {
        self.limit
    }

    /// Doubles the limit: a connection was lost for silence, after everything up to this position had
    /// been received.
    pub fn lost(&self, received: Lsn) {
        self.losses.fetch_add(1, Relaxed);
        self.prompt_replies.store(0, Relaxed);
        self.lost_at.fetch_max(received.as_u64(), Relaxed);
    }

    /// Notes a reply that came after this time; resets the limit after several prompt ones.
    pub fn answered(&self, after: Duration) {
        if after > self.limit / PROMPT {
            self.prompt_replies.store(0, Relaxed);
        } else if self.prompt_replies.fetch_add(1, Relaxed) + 1 >= PROMPT_REPLIES {
            self.losses.store(0, Relaxed);
        }
    }

    /// Resets the limit if more was received than before the last loss.
    pub fn received(&self, position: Lsn) {
        if position.as_u64() > self.lost_at.load(Relaxed) {
            self.losses.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn each_loss_doubles_the_limit_until_a_server_answers_promptly() {
        let silence_limit = SilenceLimit::new(LIMIT);
        silence_limit.lost(Lsn::new(5));
        silence_limit.lost(Lsn::new(5));
        assert_eq!(silence_limit.limit(), 4 * LIMIT);
        for _ in 0..100 {
            silence_limit.lost(Lsn::new(5));
        }
        assert_eq!(silence_limit.limit(), 64 * LIMIT);
        // It looks up from its work only now and then.
        silence_limit.answered(Duration::from_secs(10));
        assert_eq!(silence_limit.limit(), 64 * LIMIT);
        let prompt = Duration::from_millis(10);
        for after in [prompt, prompt, prompt, prompt, LIMIT / 2, prompt, prompt, prompt, prompt] {
            silence_limit.answered(after);
            assert_eq!(silence_limit.limit(), 64 * LIMIT);
        }
        silence_limit.answered(prompt);
        assert_eq!(silence_limit.limit(), LIMIT);
    }

    #[test]
    fn what_comes_again_is_no_progress() {
        let silence_limit = SilenceLimit::new(LIMIT);
        silence_limit.received(Lsn::new(9));
        silence_limit.lost(Lsn::new(9));
        silence_limit.received(Lsn::new(9));
        assert_eq!(silence_limit.limit(), 2 * LIMIT);
        silence_limit.received(Lsn::new(10));
        assert_eq!(silence_limit.limit(), LIMIT);
    }
}
