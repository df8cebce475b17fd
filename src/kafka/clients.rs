//! The Kafka clients of a pipeline, and the assignment of topics to them.
//!
//! A connection carries one request at a time (see [`super::client`]), and a request has records of
//! one partition. So over a network, partitions that share a connection wait for each other; each
//! client has its own connection to each broker. A topic keeps its client, and so its order.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use super::producer::KafkaProducer;
use crate::Result;

pub(crate) struct Clients {
    connections: usize,
    made: Mutex<Made>,
}

struct Made {
    /// By number, and by the size of their batches; one that topics limit is rare.
    producers: BTreeMap<(usize, usize), KafkaProducer>,
    /// Each of its batches is one record; rarely needed.
    one_by_one: Option<KafkaProducer>,
    numbers: HashMap<Arc<str>, usize>,
}

/// The client that is there from the start, and batches of the usual size.
const FIRST: (usize, usize) = (0, usize::MAX);

impl Clients {
    /// Topics share as many clients as `connections`, of which `first` is one.
    pub fn new(first: KafkaProducer, connections: usize) -> Self {
        let producers = [(FIRST, first)].into();
        let made = Made { producers, one_by_one: None, numbers: HashMap::new() };
        Clients { connections, made: Mutex::new(made) }
    }

    /// Puts others in the place of clients that gave up. What these still have ends then.
    pub fn renew(&self) -> Result<()> {
        self.with(|made| {
            let all: Vec<_> = made.producers.keys().copied().collect();
            all.into_iter().try_for_each(|which| made.get(which).map(|_| ()))
        })
    }

    /// The one that sends records whose errors have to be theirs alone.
    pub fn one_by_one(&self) -> Result<KafkaProducer> {
        self.with(|made| {
            let producer = match made.one_by_one.take() {
                Some(producer) => producer.renewed()?.unwrap_or(producer),
                None => made.get(FIRST)?.one_by_one()?,
            };
            Ok(made.one_by_one.insert(producer).clone())
        })
    }

    /// The one that asks questions.
    pub fn first(&self) -> Result<KafkaProducer> {
        self.with(|made| made.get(FIRST))
    }

    /// The topic's, for batches of at most `bytes`.
    pub fn of(&self, topic: &Arc<str>, bytes: usize) -> Result<KafkaProducer> {
        self.with(|made| {
            let next = made.numbers.len() % self.connections;
            let number = *made.numbers.entry(Arc::clone(topic)).or_insert(next);
            let usual = made.get(FIRST)?.batch_size();
            made.get((number, if bytes < usual { bytes } else { usize::MAX }))
        })
    }

    fn with<T>(&self, what: impl FnOnce(&mut Made) -> T) -> T {
        what(&mut self.made.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Made {
    /// The client with that key; a new one if there is none or librdkafka has shut it down.
    fn get(&mut self, which: (usize, usize)) -> Result<KafkaProducer> {
        let producer = match self.producers.get(&which) {
            Some(producer) => producer.clone(),
            None => {
                let first = self.producers.get(&FIRST).expect("made in new, never removed");
                first.another((which.1 < usize::MAX).then_some(which.1))?
            }
        };
        let producer = producer.renewed()?.unwrap_or(producer);
        self.producers.insert(which, producer.clone());
        Ok(producer)
    }
}

#[cfg(test)]
mod tests {
    use slog::{Discard, Logger, o};

    use super::*;
    use crate::{config::KafkaConfig, kafka::unobserved};

    #[test]
    fn topics_are_spread_over_connections_and_keep_theirs() {
        let log = Logger::root(Discard, o!());
        let config = KafkaConfig::default();
        let first = KafkaProducer::new(&config.settings(), 1, unobserved(), log).expect("a client");
        let clients = Clients::new(first, 2);
        let topic = |name: &str| -> Arc<str> { name.into() };
        let client = |name: &str, bytes| {
            let producer = clients.of(&topic(name), bytes).expect("a client");
            (producer.client().native_ptr() as usize, producer.batch_size())
        };
        let [a, b, c] = ["a", "b", "c"].map(|name| client(name, usize::MAX));
        assert_eq!(a.0, clients.first().expect("a client").client().native_ptr() as usize);
        assert_ne!(a, b);
        assert_eq!(a, c, "the third shares the first's");
        assert_eq!(client("b", usize::MAX), b);
        let small = client("b", 1_000);
        assert!(small.1 == 1_000 && small.0 != b.0);
        assert_eq!(client("d", 1_000), small, "of the same connection and size");
        assert_eq!(client("b", usize::MAX), b);
    }
}
