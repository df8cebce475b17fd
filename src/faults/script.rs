//! Parses faults from `FACTLIB_FAULT`; [the parent](super) documents the syntax.

use std::{
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{FaultSite, Faults, VARIABLE};
use crate::{Error, ErrorKind, Result};

const SITES: &[(&str, FaultSite)] = &[
    ("wal_reader", FaultSite::WalReader),
    ("decoder", FaultSite::Decoder),
    ("router", FaultSite::Router),
    ("topic_producer", FaultSite::TopicProducer),
    ("checkpointer", FaultSite::Checkpointer),
    ("after_produce", FaultSite::AfterProduce),
    ("before_position", FaultSite::BeforePosition),
    ("before_commit", FaultSite::BeforeCommit),
    ("after_commit", FaultSite::AfterCommit),
    ("before_save", FaultSite::BeforeSave),
    ("after_save", FaultSite::AfterSave),
    ("draining", FaultSite::Draining),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Abort,
    Panic,
    Hang,
}

/// One `site:action:n`.
#[derive(Debug)]
struct Fault {
    site: FaultSite,
    action: Action,
    /// Number of the visit at which the fault is due, from 1.
    from: u64,
    /// True if every later visit counts as well.
    repeated: bool,
    reached: AtomicU64,
}

impl Faults {
    /// The faults in the variable `FACTLIB_FAULT`; none without it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the variable can't be parsed.
    pub fn from_environment() -> Result<Self> {
        let Ok(text) = std::env::var(VARIABLE) else { return Ok(Faults::default()) };
        let faults = text.split(',').map(str::parse).collect::<Result<Vec<Fault>>>()?;
        Ok(Faults::hook(move |site| faults.iter().for_each(|fault| fault.reach(site))))
    }
}

impl Fault {
    fn reach(&self, site: FaultSite) {
        if !self.is_due(site) {
            return;
        }
        match self.action {
            Action::Abort => std::process::abort(),
            Action::Panic => panic!("{VARIABLE} asks for it at {:?}", self.site),
            Action::Hang => loop {
                std::thread::park();
            },
        }
    }

    fn is_due(&self, site: FaultSite) -> bool {
        if site != self.site {
            return false;
        }
        let visit = self.reached.fetch_add(1, Ordering::Relaxed) + 1;
        visit == self.from || self.repeated && visit > self.from
    }
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            let sites: Vec<_> = SITES.iter().map(|(name, _)| *name).collect();
            let failure = format!("{VARIABLE}: {text} is not site:action:n");
            Error::new(ErrorKind::Config, failure)
                .remedy(format!("sites are {}; actions are abort, panic, hang", sites.join(", ")))
        };
        let mut words = text.trim().split(':');
        let (Some(site), Some(action), Some(times), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(wrong());
        };
        let site = SITES.iter().find(|(name, _)| *name == site).ok_or_else(wrong)?.1;
        let action = match action {
            "abort" => Action::Abort,
            "panic" => Action::Panic,
            "hang" => Action::Hang,
            _ => return Err(wrong()),
        };
        let first = times.strip_suffix('+');
        let from = first.unwrap_or(times).parse().map_err(|error| wrong().caused_by(error))?;
        let repeated = first.is_some();
        Ok(Fault { site, action, from, repeated, reached: AtomicU64::new(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(text: &str, times: u64) -> Vec<u64> {
        let fault: Fault = text.parse().expect("a fault");
        (1..=times).filter(|_| fault.is_due(FaultSite::AfterSave)).collect()
    }

    #[test]
    fn a_fault_is_due_once_or_from_then_on() {
        assert_eq!(due("after_save:abort:3", 6), [3]);
        assert_eq!(due("after_save:panic:4+", 6), [4, 5, 6]);
        assert_eq!(due("draining:hang:1+", 6), [0; 0]);
    }

    #[test]
    fn a_malformed_fault_is_refused() {
        for text in ["", "after_save", "after_save:abort", "nowhere:abort:1", "router:fly:1"] {
            assert_eq!(text.parse::<Fault>().unwrap_err().kind(), ErrorKind::Config, "{text:?}");
        }
        for text in ["router:abort:x", "router:abort:+", "router:abort:1:2"] {
            assert!(text.parse::<Fault>().is_err(), "{text:?}");
        }
    }
}
