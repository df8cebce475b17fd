//! The transaction coordinator: producer ids, epochs, and the partitions of open transactions.
//!
//! Transactions never time out here.

use std::collections::{BTreeSet, HashMap};

use super::Code;

/// All transactional ids.
#[derive(Debug, Default)]
pub(super) struct Coordinator {
    last_producer_id: i64,
    transactions: HashMap<String, Transaction>,
}

#[derive(Debug)]
struct Transaction {
    producer_id: i64,
    epoch: i16,
    partitions: BTreeSet<(String, i32)>,
    is_open: bool,
    /// How the last transaction ended, for an answer that was lost.
    last_end: Option<bool>,
}

/// Producer id and epoch.
pub(super) type Identity = (i64, i16);

/// A transaction that has ended, and whose markers have to be written.
#[derive(Debug)]
pub(super) struct Ended {
    /// Identity of the markers, which keep out older epochs.
    pub marker: Identity,
    pub is_committed: bool,
    pub partitions: Vec<(String, i32)>,
}

impl Coordinator {
    /// Returns a producer id that was never used.
    pub fn new_producer_id(&mut self) -> i64 {
        self.last_producer_id += 1;
        self.last_producer_id
    }

    /// Begins a session of a transactional id: fences earlier ones and aborts their transaction.
    /// `present` is the producer's own identity, if it begins again.
    pub fn begin(
        &mut self,
        id: &str,
        present: Option<Identity>,
    ) -> Result<(Identity, Option<Ended>), Code> {
        let Some(known) = self.transactions.get_mut(id) else {
            let identity = (self.new_producer_id(), 0);
            self.transactions.insert(id.to_owned(), Transaction::new(identity));
            return Ok((identity, None));
        };
        if present.is_some_and(|present| present != (known.producer_id, known.epoch)) {
            return Err(Code::ProducerFenced);
        }
        if known.epoch == i16::MAX - 1 {
            let ended = known.end(false);
            let identity = (self.new_producer_id(), 0);
            self.transactions.insert(id.to_owned(), Transaction::new(identity));
            return Ok((identity, ended));
        }
        known.epoch += 1;
        let ended = known.end(false);
        known.last_end = None;
        Ok(((known.producer_id, known.epoch), ended))
    }

    /// Adds a partition to the open transaction, or opens one with it.
    pub fn add(&mut self, id: &str, identity: Identity, place: (String, i32)) -> Result<(), Code> {
        let transaction = self.checked(id, identity)?;
        transaction.is_open = true;
        transaction.partitions.insert(place);
        Ok(())
    }

    /// Returns an error unless the partition is part of the open transaction.
    pub fn check(
        &mut self,
        id: &str,
        identity: Identity,
        place: &(String, i32),
    ) -> Result<(), Code> {
        let transaction = self.checked(id, identity)?;
        let is_part = transaction.is_open && transaction.partitions.contains(place);
        is_part.then_some(()).ok_or(Code::InvalidTxnState)
    }

    /// Commits or aborts. With `bumps_epoch` (KIP-890), the producer continues with the returned
    /// identity.
    pub fn end(
        &mut self,
        id: &str,
        identity: Identity,
        is_committed: bool,
        bumps_epoch: bool,
    ) -> Result<(Identity, Option<Ended>), Code> {
        let known = self.transactions.get_mut(id).ok_or(Code::InvalidProducerIdMapping)?;
        let is_repeated = bumps_epoch
            && !known.is_open
            && known.last_end == Some(is_committed)
            && identity == (known.producer_id, known.epoch - 1);
        if is_repeated {
            return Ok(((known.producer_id, known.epoch), None));
        }
        let known = self.checked(id, identity)?;
        if !known.is_open && !bumps_epoch && known.last_end == Some(is_committed) {
            return Ok((identity, None));
        }
        // With KIP-890, a producer may abort before the first record has reached a broker.
        if !known.is_open && (is_committed || !bumps_epoch) {
            return Err(Code::InvalidTxnState);
        }
        if bumps_epoch {
            known.epoch += 1;
        }
        let ended = known.end(is_committed);
        known.last_end = Some(is_committed);
        Ok(((known.producer_id, known.epoch), ended))
    }

    fn checked(
        &mut self,
        id: &str,
        (producer_id, epoch): Identity,
    ) -> Result<&mut Transaction, Code> {
        let known = self.transactions.get_mut(id);
        let known = known.filter(|known| known.producer_id == producer_id);
        let known = known.ok_or(Code::InvalidProducerIdMapping)?;
        match known.epoch == epoch {
            true => Ok(known),
            false => Err(Code::InvalidProducerEpoch),
        }
    }
}

impl Transaction {
    fn new((producer_id, epoch): Identity) -> Self {
        let partitions = BTreeSet::new();
        Transaction { producer_id, epoch, partitions, is_open: false, last_end: None }
    }

    fn end(&mut self, is_committed: bool) -> Option<Ended> {
        let is_open = std::mem::take(&mut self.is_open);
        let partitions = std::mem::take(&mut self.partitions).into_iter().collect();
        let marker = (self.producer_id, self.epoch);
        is_open.then_some(Ended { marker, is_committed, partitions })
    }
}
