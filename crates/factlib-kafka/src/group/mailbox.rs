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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn assigned(generation: i32) -> GroupEvent {
        GroupEvent::Assigned { generation, member: "m".into(), assignment: Default::default() }
    }

    fn lost() -> GroupEvent {
        GroupEvent::Lost { why: "a test".into() }
    }

    /// The unread events: the generation of an assignment, or a word.
    fn read(events: impl IntoIterator<Item = GroupEvent>) -> Vec<String> {
        let mailbox = Mailbox::default();
        events.into_iter().for_each(|event| mailbox.push(event));
        let unread = std::iter::from_fn(|| mailbox.next().now_or_never());
        let word = |event| match event {
            GroupEvent::Assigned { generation, .. } => generation.to_string(),
            GroupEvent::Lost { .. } => "lost".into(),
            GroupEvent::Trouble { .. } => "trouble".into(),
            GroupEvent::Recovered => "recovered".into(),
        };
        unread.map(word).collect()
    }

    #[test]
    fn an_assignment_that_is_void_is_not_read() {
        assert_eq!(read([assigned(1), assigned(2)]), ["2"]);
        assert_eq!(read([assigned(1), lost()]), ["lost"]);
        assert_eq!(
            read([lost(), assigned(1), GroupEvent::Recovered, lost()]),
            ["recovered", "lost"]
        );
    }

    #[test]
    fn a_loss_is_read_before_the_assignment_that_follows_it() {
        assert_eq!(read([lost(), assigned(2), assigned(3)]), ["lost", "3"]);
    }

    #[test]
    fn trouble_without_end_drops_no_assignment_and_fills_no_memory() {
        let trouble = std::iter::repeat_n(GroupEvent::Recovered, MAX_UNREAD * 2);
        let unread = read([lost(), assigned(1)].into_iter().chain(trouble));
        assert_eq!(unread.len(), MAX_UNREAD);
        assert_eq!(unread[..2], ["lost", "1"]);
    }
}
