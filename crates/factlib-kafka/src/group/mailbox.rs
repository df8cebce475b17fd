//! Events that the caller has not read yet. A newer assignment or loss replaces what it makes void.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;

use super::GroupEvent;

/// Maximum unread events; beyond it, the oldest trouble is dropped.
const MAX_UNREAD: usize = 32;

/// The unread events of a membership.
#[derive(Default)]
pub(super) struct Mailbox {
    unread: Mutex<VecDeque<GroupEvent>>,
    arrived: Notify,
}

impl Mailbox {
    /// Adds an event and drops the unread ones that it makes void.
    pub fn push(&self, event: GroupEvent) {
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        match &event {
            GroupEvent::Assigned { .. } => unread.retain(|old| !is_assigned(old)),
            // A loss replaces the assignment before it and an earlier loss.
            GroupEvent::Lost { .. } => {
                unread.retain(|old| !is_assigned(old) && !matches!(old, GroupEvent::Lost { .. }));
            }
            GroupEvent::Trouble { .. } | GroupEvent::Recovered => {
                let is_trouble =
                    |old: &_| matches!(old, GroupEvent::Trouble { .. } | GroupEvent::Recovered);
                if unread.len() >= MAX_UNREAD
                    && let Some(oldest) = unread.iter().position(is_trouble)
                {
                    unread.remove(oldest);
                }
            }
        }
        unread.push_back(event);
        drop(unread);
        self.arrived.notify_one();
    }

    /// Waits for the oldest unread event. For one reader.
    pub async fn next(&self) -> GroupEvent {
        loop {
            let oldest = self.unread.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match oldest {
                Some(event) => return event,
                // It returns at once if an event arrived since.
                None => self.arrived.notified().await,
            }
        }
    }
}

fn is_assigned(event: &GroupEvent) -> bool {
    matches!(event, GroupEvent::Assigned { .. })
}
