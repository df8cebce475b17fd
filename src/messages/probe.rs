//! Test actors that record the messages they receive.

use actix::{Actor, Context, Handler, Message, Recipient};
use tokio::sync::mpsc;

use super::{ActorExited, ActorKind, ExitGuard};

/// Starts an actor and returns the messages it receives.
pub(crate) fn probe<M>() -> (Recipient<M>, mpsc::UnboundedReceiver<M>)
where
    M: Message<Result = ()> + Send + 'static,
{
    let (sender, sent) = mpsc::unbounded_channel();
    (Probe(sender).start().recipient(), sent)
}

/// Creates a guard whose drop nobody observes.
pub(crate) fn exit(actor: ActorKind, generation: u64) -> ExitGuard {
    ExitGuard { actor, generation, to: probe::<ActorExited>().0 }
}

struct Probe<M>(mpsc::UnboundedSender<M>);

impl<M: 'static> Actor for Probe<M> {
    type Context = Context<Self>;
}

impl<M: Message<Result = ()> + 'static> Handler<M> for Probe<M> {
    type Result = ();

    fn handle(&mut self, message: M, _: &mut Self::Context) {
        // A test that has seen enough has dropped the other end.
        let _ = self.0.send(message);
    }
}
