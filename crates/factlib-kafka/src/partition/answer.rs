//! A broker's answer to a batch, and the result of a batch.

/// A broker's answer to one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The batch is appended and replicated, now or by an earlier attempt.
    Acknowledged,
    /// The batch is not appended, but the same bytes may be accepted later: the leader moved,
    /// replicas are missing, or the broker is busy.
    NotNow,
    /// The result is unknown: the request timed out, on the broker or in the client.
    Unknown,
    /// Nothing was appended, because of the records with these indexes in the batch. If the list
    /// is empty, any record may be at fault.
    Refused(Vec<u32>),
    /// Nothing was appended, and nothing behind the record `at` may be sent.
    Stopped {
        /// Indexes of the other records at fault that stand before `at`.
        refused: Vec<u32>,
        /// Index of the record at fault that stops the queue.
        at: u32,
    },
    /// Nothing was appended: the batch exceeds the topic's limit.
    TooLarge,
    /// The sequence number does not follow the broker's last one (`OUT_OF_ORDER_SEQUENCE_NUMBER`),
    /// or the broker does not know the producer (`UNKNOWN_PRODUCER_ID`).
    SequenceLost,
}

impl Answer {
    /// Turns the refusal of a batch of `records` records into a stop at the first record at fault
    /// for which `stops` returns true. Other answers stay as they are, and so does a refusal that
    /// does not say which of several records is at fault.
    pub fn stopping(self, records: u32, mut stops: impl FnMut(u32) -> bool) -> Self {
        let mut at_fault = match &self {
            Answer::Refused(named) => in_rising_order(named, records),
            Answer::TooLarge => Vec::new(),
            _ => return self,
        };
        if at_fault.is_empty() && records == 1 {
            at_fault.push(0);
        }
        let Some(place) = at_fault.iter().position(|record| stops(*record)) else { return self };
        let at = at_fault[place];
        at_fault.truncate(place);
        Answer::Stopped { refused: at_fault, at }
    }
}

/// Final result of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<B> {
    /// Kafka has acknowledged the batch.
    Acknowledged(B),
    /// Kafka has refused this single record for good.
    Refused(B),
    /// This single record exceeds the topic's limit.
    TooLarge(B),
    /// The batch stands behind a record that stopped the queue. The queue does not send it, or
    /// does not send it again: brokers may have it only if the result of an attempt is unknown.
    NotSent(B),
}

/// Returns the indexes below `count`, in rising order, each once.
pub(super) fn in_rising_order(indexes: &[u32], count: u32) -> Vec<u32> {
    let mut known: Vec<_> = indexes.iter().copied().filter(|index| *index < count).collect();
    known.sort_unstable();
    known.dedup();
    known
}
