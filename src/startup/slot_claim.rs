//! Prevents two pipelines of a process from reading the same slot: the second would stand by for the
//! first for ever. (Replicas in other processes are meant to stand by.)

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::{Error, ErrorKind, Result};

/// A server, as named by the connection string, and a slot.
type Key = (String, String);

/// The claimed slots, each with the number of its claim.
static CLAIMED: Mutex<Option<HashMap<Key, u64>>> = Mutex::new(None);
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The claim of a slot, until it is released or its last clone is dropped.
#[derive(Clone, Default)]
pub(crate) struct SlotClaim(Option<Arc<Claim>>);

struct Claim {
    key: Key,
    number: u64,
}

impl SlotClaim {
    /// # Errors
    /// [`ErrorKind::Config`] if another pipeline of this process has it.
    pub fn new(server: String, slot: &str) -> Result<Self> {
        let (key, number) = ((server, slot.to_owned()), NEXT.fetch_add(1, Relaxed));
        let mut claimed = claimed();
        let claims = claimed.get_or_insert_default();
        if claims.contains_key(&key) {
            let what =
                format!("slot {slot} of {} is read by a pipeline of this process already", key.0);
            let remedy = "give each pipeline a slot of its own, or shut the other one down first; \
                          a replica that stands by is another process";
            return Err(Error::new(ErrorKind::Config, what).remedy(remedy));
        }
        claims.insert(key.clone(), number);
        Ok(SlotClaim(Some(Arc::new(Claim { key, number }))))
    }

    /// Releases the slot. A later claim of the same slot stays.
    pub fn release(&self) {
        if let Some(claim) = &self.0 {
            claim.release();
        }
    }
}

impl Claim {
    fn release(&self) {
        if let Some(claims) = &mut *claimed()
            && claims.get(&self.key) == Some(&self.number)
        {
            claims.remove(&self.key);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release();
    }
}

fn claimed() -> MutexGuard<'static, Option<HashMap<Key, u64>>> {
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_claimed_once_until_it_is_released() {
        let claim = || SlotClaim::new("claims:5432".into(), "slot");
        let first = claim().expect("free");
        let error = claim().err().expect("taken");
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = "slot slot of claims:5432 is read by a pipeline of this process already";
        assert!(error.to_string().starts_with(text), "{error}");
        SlotClaim::new("claims:5433".into(), "slot").expect("another server");
        first.release();
        let second = claim().expect("free again");
        drop(first);
        assert!(claim().is_err(), "the first claim's end is no end of the second");
        drop(second);
        claim().expect("free again");
    }
}
