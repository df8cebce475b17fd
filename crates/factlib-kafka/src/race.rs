//! Runs several attempts with staggered starts and returns the first success.

use std::{future::Future, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::sleep;

/// Tries the candidates in order. The next attempt starts when one fails or `head_start` passes.
///
/// # Errors
/// Returns the first error, or none if there were no candidates.
pub(crate) async fn first_ok<C, T, E, F: Future<Output = Result<T, E>>>(
    candidates: impl IntoIterator<Item = C>,
    head_start: Duration,
    attempt: impl Fn(C) -> F,
) -> Result<T, Option<E>> {
    let mut left = candidates.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failed = None;
    loop {
        let next = left.next();
        let has_more = next.is_some();
        attempts.extend(next.map(&attempt));
        tokio::select! {
            ended = attempts.next() => match ended {
                Some(Ok(done)) => return Ok(done),
                Some(Err(error)) => {
                    failed.get_or_insert(error);
                }
                None => return Err(failed),
            },
            () = sleep(head_start), if has_more => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn after(ms: u64, result: Result<u64, u64>) -> Result<u64, u64> {
        sleep(Duration::from_millis(ms)).await;
        result
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_one_begins_when_one_fails_or_its_head_start_is_over() {
        let started = tokio::time::Instant::now();
        let attempts = [(0, Err(1)), (10_000, Ok(2)), (5, Ok(3))];
        let first = first_ok(attempts, Duration::from_millis(100), |(ms, end)| after(ms, end));
        assert_eq!(first.await, Ok(3));
        assert_eq!(started.elapsed().as_millis(), 105);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_error_is_told_and_none_without_candidates() {
        let all = |attempts: Vec<(u64, Result<u64, u64>)>| {
            first_ok(attempts, Duration::from_millis(100), |(ms, end)| after(ms, end))
        };
        assert_eq!(all(vec![(0, Err(1)), (0, Err(2))]).await, Err(Some(1)));
        assert_eq!(all(Vec::new()).await, Err(None));
    }
}
