//! RefusedTopic: answers for the events of a topic that Kafka does not take.
//!
//! # Life
//! Takes the place of a TopicProducer whose topic Kafka refuses for good. It hands every event back
//! as refused, with the broker's error, so that `dead_letter.policy` decides. For the dead-letter
//! topic itself, it keeps the letters in their table.
//!
//! The first batch after the longest pause between two tries (`pipeline.restart_backoff_max`) asks
//! for the topic again: an operator may have corrected the cause. Once Kafka takes the topic, all
//! batches go on to its TopicProducer.
//!
//! # Backpressure
//! None of its own: a batch that waits for an answer holds its bytes of the window.
//!
//! # Failure
//! If the question itself fails, the lane fails too, and the supervisor opens it again.

use std::{mem, sync::Arc, time::Instant};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture,
};
use slog::Logger;

use super::{OpenedTopic, Topics};
use crate::{
    Error, Result,
    dead_letter::DeadLetterTable,
    messages::{ExitGuard, Refused, TopicBatch},
    receipts::EndedPart,
};

/// The actor; `topics` opens the topic once Kafka takes it.
pub(super) struct RefusedTopic {
    topics: Arc<Topics>,
    topic: Arc<str>,
    state: State,
    /// The table for letters; only for the dead-letter topic.
    table: Option<Arc<DeadLetterTable>>,
    /// The producer's, once there is one.
    exit: Option<ExitGuard>,
    log: Logger,
}

enum State {
    /// The reason, and the time at which to ask for the topic again.
    Refused(Error, Instant),
    /// The topic is being asked for; these batches wait for the answer. The last refusal holds
    /// where there is none.
    Asking(Vec<TopicBatch>, Error),
    Open(Recipient<TopicBatch>),
}

impl RefusedTopic {
    pub fn start(
        topics: Arc<Topics>,
        topic: Arc<str>,
        (error, until): (Error, Instant),
        exit: ExitGuard,
        log: Logger,
    ) -> Recipient<TopicBatch> {
        let table = topics.table_of(&topic);
        let state = State::Refused(error, until);
        RefusedTopic { topics, topic, state, table, exit: Some(exit), log }.start().recipient()
    }

    fn refuse(&self, batch: TopicBatch, error: &Error, ctx: &mut Context<Self>) {
        let Some(table) = self.table.clone() else {
            let all = 0..batch.events.len();
            let refused = all.map(|index| Refused { index, error: error.clone() });
            batch.ack.refuse_records(refused.collect());
            if self.topics.stops_after_refusal() {
                // The parts behind may have events of the same aggregates: the router has to divert
                // them first, and opens the lane again.
                ctx.stop();
            }
            return;
        };
        let events = Arc::clone(&batch.events);
        let keeping = async move { table.keep_each(events.iter()).await };
        // The order of dead letters means nothing.
        ctx.spawn(keeping.into_actor(self).map(|kept, this, _| match kept {
            Ok(()) => this.kept(batch),
            Err(error) => batch.ack.fail_with(error, None),
        }));
    }

    /// Answers for letters that the table has.
    fn kept(&self, batch: TopicBatch) {
        let TopicBatch { topic, events, ack } = batch;
        match self.topics.receipts() {
            Ok(Some(receipts)) => {
                receipts.write(EndedPart::kept(topic, events), move || ack.ack());
            }
            Ok(None) => ack.ack(),
            Err(error) => ack.fail_with(error, None),
        }
    }

    fn ask(&mut self, batch: TopicBatch, ctx: &mut Context<Self>) {
        let State::Refused(error, _) = &self.state else { return };
        self.state = State::Asking(vec![batch], error.clone());
        let (topics, topic, log) =
            (Arc::clone(&self.topics), Arc::clone(&self.topic), self.log.clone());
        let asking = async move { topics.open(&topic, &log).await };
        ctx.spawn(asking.into_actor(self).map(|answer, this, ctx| this.answered(answer, ctx)));
    }

    fn answered(&mut self, answer: Result<OpenedTopic>, ctx: &mut Context<Self>) {
        let State::Asking(waiting, refusal) = &mut self.state else { return };
        let (waiting, refusal) = (mem::take(waiting), refusal.clone());
        match (answer, self.exit.take()) {
            (Ok(OpenedTopic::Producer(producer)), Some(exit)) => {
                let to = producer.start_with(exit);
                waiting.into_iter().for_each(|batch| to.do_send(batch));
                self.state = State::Open(to);
            }
            (Ok(OpenedTopic::Refused(error)), exit) => {
                self.exit = exit;
                let until = self.topics.refused(&self.topic, &error, &self.log);
                waiting.into_iter().for_each(|batch| self.refuse(batch, &error, ctx));
                self.state = State::Refused(error, until);
            }
            // One transaction holds all topics: a question that fails must not undo it.
            (Err(error), exit) if self.topics.in_transactions() && error.is_transient() => {
                self.exit = exit;
                let until = self.topics.refused(&self.topic, &refusal, &self.log);
                waiting.into_iter().for_each(|batch| self.refuse(batch, &refusal, ctx));
                self.state = State::Refused(refusal, until);
            }
            (Err(error), exit) => {
                self.exit = exit;
                waiting.into_iter().for_each(|batch| batch.ack.fail_with(error.clone(), None));
                ctx.stop();
            }
            // It is taken once, for the producer.
            (Ok(OpenedTopic::Producer(_)), None) => ctx.stop(),
        }
    }
}

impl Actor for RefusedTopic {
    type Context = Context<Self>;
}

impl Handler<TopicBatch> for RefusedTopic {
    type Result = ();

    fn handle(&mut self, batch: TopicBatch, ctx: &mut Self::Context) {
        match &mut self.state {
            State::Open(to) => to.do_send(batch),
            State::Asking(waiting, _) => waiting.push(batch),
            State::Refused(error, until) if Instant::now() < *until => {
                let error = error.clone();
                self.refuse(batch, &error, ctx);
            }
            State::Refused(..) => self.ask(batch, ctx),
        }
    }
}
