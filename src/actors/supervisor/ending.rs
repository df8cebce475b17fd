//! Ends a pipeline: drained, at once, or with an error.

use actix::{ActorContext, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};

use super::{
    Supervisor,
    draining::{SETTLE_TIMEOUT, drain},
};
use crate::{
    Error, Result,
    faults::FaultSite,
    messages::{Shutdown, Stop},
    status::PipelineState,
};

impl Handler<Shutdown> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Shutdown, ctx: &mut Self::Context) {
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        // What can take for ever is given up, and cancelled in the server.
        self.resources.startup.stop.cancel();
        let Some(chain) = &self.chain else {
            // The start that is under way ends it, once that is done.
            if !self.resources.startup.is_creating() {
                self.end(Ok(()), ctx);
            }
            return;
        };
        self.resources.status.set_state(PipelineState::Draining);
        self.resources.faults.reach(FaultSite::Draining);
        let (reader, gate, decoder) =
            (chain.reader.clone(), chain.gate.clone(), chain.decoder.clone());
        let (checkpointer, log) = (self.checkpointer.clone(), self.resources.log.clone());
        let limit = self.resources.config.pipeline.drain_timeout;
        let draining = async move { drain(reader, gate, decoder, checkpointer, limit, &log).await };
        ctx.spawn(draining.into_actor(self).map(|result, this, ctx| this.end(result, ctx)));
    }
}

impl Handler<Stop> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        self.end(Ok(()), ctx);
    }
}

impl Supervisor {
    /// Ends with an error, after what the last reader had read, within reason.
    pub(super) fn give_up(&mut self, error: Error, ctx: &mut Context<Self>) {
        let Some(chain) = &mut self.chain else { return self.end(Err(error), ctx) };
        let (gate, decoder) = (chain.gate.take(), chain.decoder.clone());
        let checkpointer = self.checkpointer.clone();
        let log = self.resources.log.clone();
        let finishing = async move {
            // Too late only means that more is sent again.
            let _ = drain(None, gate, decoder, checkpointer, SETTLE_TIMEOUT, &log).await;
        };
        ctx.spawn(finishing.into_actor(self).map(|(), this, ctx| this.end(Err(error), ctx)));
    }

    /// Ends, unless draining does so once what is in flight has been delivered.
    pub(super) fn end_if_empty(&mut self, ctx: &mut Context<Self>) {
        if self.chain.is_none() {
            self.end(Ok(()), ctx);
        }
    }

    pub(super) fn end(&mut self, result: Result<()>, ctx: &mut Context<Self>) {
        if let Some(chain) = self.chain.take() {
            chain.stop();
        }
        // It would try for ever to save what it could not save until now.
        self.checkpointer.do_send(Stop);
        self.wal_watch.do_send(Stop);
        self.publication_watch.do_send(Stop);
        if let Some(sweeper) = &self.row_sweeper {
            sweeper.do_send(Stop);
        }
        if let Err(error) = &result {
            self.resources.status.stops_with(error);
        }
        // Before whoever waits for the outcome asks, or starts another pipeline.
        self.resources.status.stopped();
        self.resources.claim.release();
        // What was under way may end after the end; the first word counts.
        self.outcome.send_if_modified(|outcome| {
            let open = outcome.is_none();
            if open {
                *outcome = Some(result);
            }
            open
        });
        ctx.stop();
    }
}

/// However it ends, also by a panic: nobody may take its last state for the present one, and
/// another pipeline may have its slot.
impl Drop for Supervisor {
    fn drop(&mut self) {
        self.resources.status.stopped();
        self.resources.claim.release();
    }
}
