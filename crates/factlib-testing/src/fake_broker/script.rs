//! Writes the script of faults: [`FakeCluster::on`] begins a [`FaultBuilder`], whose last call says
//! what happens.

use std::{sync::Arc, time::Duration};

use super::{
    Api, Code, FakeCluster, Shared,
    faults::{Effect, Fault, Refusal},
};

impl FakeCluster {
    /// Begins a fault for the next request of this kind.
    ///
    /// Faults are tried in the order in which they were added, and each request is hit by the first
    /// one that fits; a request for several partitions can be hit by one fault for each.
    pub fn on(&self, api: Api) -> FaultBuilder<'_> {
        let fault = Fault {
            number: 0,
            api,
            broker: None,
            topic: None,
            partition: None,
            skipped: 0,
            remaining: 1,
            effect: Effect::HangUp,
        };
        FaultBuilder { cluster: self, fault }
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }
}

/// A fault that is being described; see [`FakeCluster::on`].
#[derive(Debug)]
#[must_use = "the last call says what happens"]
pub struct FaultBuilder<'a> {
    cluster: &'a FakeCluster,
    fault: Fault,
}

/// A fault of the script. Dropping this does not remove the fault.
#[derive(Clone, Debug)]
pub struct ScriptedFault {
    number: u64,
    shared: Arc<Shared>,
}

impl FaultBuilder<'_> {
    /// Limits the fault to one broker.
    pub fn broker(mut self, id: i32) -> Self {
        self.fault.broker = Some(id);
        self
    }

    /// Limits the fault to one topic.
    pub fn topic(mut self, name: &str) -> Self {
        self.fault.topic = Some(name.into());
        self
    }

    /// Limits the fault to one partition.
    pub fn partition(mut self, topic: &str, partition: i32) -> Self {
        self.fault.partition = Some(partition);
        self.topic(topic)
    }

    /// Lets this number of requests pass first.
    pub fn after(mut self, requests: usize) -> Self {
        self.fault.skipped = requests;
        self
    }

    /// Hits this number of requests; without it, one.
    pub fn times(mut self, requests: usize) -> Self {
        self.fault.remaining = requests;
        self
    }

    /// Hits all requests until [`ScriptedFault::lift`].
    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }

    /// Answers with this error code; the request has no effect.
    pub fn answer(self, code: Code) -> ScriptedFault {
        self.end(Effect::Answer(Refusal { code, message: None, records: Vec::new() }))
    }

    /// Answers with this error code and message; the request has no effect.
    pub fn answer_with(self, code: Code, message: &str) -> ScriptedFault {
        let message = Some(message.into());
        self.end(Effect::Answer(Refusal { code, message, records: Vec::new() }))
    }

    /// Refuses a batch because of these records (indexes in the batch), and appends none of it.
    pub fn refuse_records(self, code: Code, message: &str, records: &[i32]) -> ScriptedFault {
        let (message, records) = (Some(message.into()), records.to_vec());
        self.end(Effect::Answer(Refusal { code, message, records }))
    }

    /// Appends the batch, and answers with this error code all the same.
    pub fn append_and_answer(self, code: Code) -> ScriptedFault {
        self.end(Effect::AnswerAfterwards(Refusal { code, message: None, records: Vec::new() }))
    }

    /// Closes the connection; the request has no effect.
    pub fn hang_up(self) -> ScriptedFault {
        self.end(Effect::HangUp)
    }

    /// Handles the request, and closes the connection without an answer.
    pub fn hang_up_after_effect(self) -> ScriptedFault {
        self.end(Effect::HangUpAfterwards)
    }

    /// Waits before the request is handled. Requests behind it on the same connection wait too.
    pub fn delay(self, time: Duration) -> ScriptedFault {
        self.end(Effect::Delay(time))
    }

    /// Handles the request, asks the client to pause for this time (Produce and Fetch), and reads
    /// nothing from the connection meanwhile.
    pub fn throttle(self, time: Duration) -> ScriptedFault {
        self.end(Effect::Throttle(time))
    }

    fn end(self, effect: Effect) -> ScriptedFault {
        let shared = &self.cluster.shared;
        let mut cluster = shared.lock();
        cluster.last_fault += 1;
        let number = cluster.last_fault;
        cluster.faults.push(Fault { number, effect, ..self.fault });
        ScriptedFault { number, shared: Arc::clone(shared) }
    }
}

impl ScriptedFault {
    /// Ends the fault.
    pub fn lift(&self) {
        self.shared.lock().faults.retain(|fault| fault.number != self.number);
    }

    /// Waits until the fault has hit all its requests, or was lifted.
    pub async fn is_over(&self) {
        let mut changed = self.shared.changed.subscribe();
        loop {
            let is_over = {
                let cluster = self.shared.lock();
                let mut faults = cluster.faults.iter();
                faults.all(|fault| fault.number != self.number || fault.remaining == 0)
            };
            // The sender lives as long as this value.
            if is_over || changed.changed().await.is_err() {
                return;
            }
        }
    }
}
