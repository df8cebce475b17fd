//! The task of a membership: sends the requests of [`Member`], and passes on answers, commands and
//! events.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    Command, GroupEvent, GroupSettings,
    coordinator::Coordinator,
    mailbox::Mailbox,
    member::Member,
    requests::{self, Heartbeat, RoundAnswer, RoundRequest},
};
use crate::{connection::Connection, error::Result};

type InFlight<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// The task and its requests in flight.
pub(super) struct Task {
    group: Arc<GroupSettings>,
    member: Member,
    coordinator: Arc<Coordinator>,
    events: Arc<Mailbox>,
    /// Connection of the present round.
    round_connection: Option<Connection>,
}

impl Task {
    pub fn new(
        group: Arc<GroupSettings>,
        member: Member,
        coordinator: Arc<Coordinator>,
        events: Arc<Mailbox>,
    ) -> Self {
        Task { group, member, coordinator, events, round_connection: None }
    }

    /// Runs until the caller leaves or drops the membership.
    pub async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let _ending = Ending(Arc::clone(&self.events));
        let mut round: InFlight<(RoundAnswer, Option<Connection>)> = None;
        let mut heartbeat: InFlight<Result<()>> = None;
        loop {
            self.member.tick(Instant::now());
            if self.member.take_abandoned_round() {
                (round, self.round_connection) = (None, None);
            }
            if self.member.take_lost_coordinator() {
                heartbeat = None;
                self.coordinator.forget();
            }
            for event in self.member.take_events() {
                self.events.push(event);
            }
            let now = Instant::now();
            if let Some(request) = self.member.next_round(now) {
                round = Some(self.send_round(request));
            }
            if let Some(request) = self.member.next_heartbeat(now) {
                heartbeat = Some(self.send_heartbeat(request));
            }
            let wake_at = self.member.wake_at();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Update(metadata)) => self.member.update(metadata),
                    Some(Command::Rejoin(metadata)) => self.member.rejoin(metadata),
                    Some(Command::Leave(done)) => {
                        drop((round, heartbeat));
                        self.leave().await;
                        let _ = done.send(());
                        return;
                    }
                    None => return,
                },
                (answer, connection) = answered(&mut round) => {
                    round = None;
                    self.round_connection = match &answer {
                        // SyncGroup follows, or JoinGroup with an id.
                        RoundAnswer::Joined(Ok(_)) => connection,
                        _ => None,
                    };
                    match answer {
                        RoundAnswer::Joined(answer) => self.member.joined(Instant::now(), answer),
                        RoundAnswer::Synced(answer) => self.member.synced(Instant::now(), answer),
                    }
                }
                answer = answered(&mut heartbeat) => {
                    heartbeat = None;
                    self.member.heartbeat_answered(Instant::now(), answer);
                }
                () = wake(wake_at) => {}
            }
        }
    }

    fn send_round(
        &mut self,
        request: RoundRequest,
    ) -> Pin<Box<dyn Future<Output = (RoundAnswer, Option<Connection>)> + Send>> {
        let (coordinator, group) = (Arc::clone(&self.coordinator), Arc::clone(&self.group));
        let open = self.round_connection.take();
        Box::pin(async move {
            match coordinator.round_connection(open).await {
                Ok(connection) => {
                    let answer = requests::send_round(&connection, &group, request).await;
                    (answer, Some(connection))
                }
                Err(error) => (request.not_sent(error), None),
            }
        })
    }

    fn send_heartbeat(
        &self,
        request: Heartbeat,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> {
        let (coordinator, group) = (Arc::clone(&self.coordinator), Arc::clone(&self.group));
        Box::pin(async move {
            let connection = coordinator.connection().await?;
            requests::send_heartbeat(&connection, &group, request).await
        })
    }

    /// Leaves the group. If that fails, the group notices by the session time-out.
    async fn leave(&self) {
        let Some(id) = self.member.id() else { return };
        let leaving = async {
            let connection = self.coordinator.connection().await?;
            requests::leave(&connection, &self.group, id).await
        };
        let _ = tokio::time::timeout(super::LEAVE_LIMIT, leaving).await;
    }
}

/// Reports the end of the task, so that no caller waits for a membership that has ended.
struct Ending(Arc<Mailbox>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.push(GroupEvent::Lost { why: "the membership has ended".into() });
    }
}

async fn answered<T>(request: &mut InFlight<T>) -> T {
    match request {
        Some(request) => request.await,
        None => pending().await,
    }
}

async fn wake(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}
