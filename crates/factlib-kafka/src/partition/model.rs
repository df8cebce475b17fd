//! A model of the broker, its log and the network for one partition; the histories run against it.
//!
//! The model checks requests in the order of Apache Kafka's leader: leadership, then the records
//! themselves (`LogValidator`), then the producer's sequence (`ProducerStateManager`).

use std::collections::{HashSet, VecDeque};

use super::{Answer, Batch, Event, MAX_IN_FLIGHT, PartitionQueue, Token};

/// A deliberate mistake that the histories must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    TwoAtTheStart,
    RetryOutOfOrder,
    SequenceAdvancedOnRefusal,
    UnknownIsAcknowledged,
    DuplicateIsFailure,
    SendsBehindAStop,
    DropsBeforeAStop,
}

/// A record, identified by its number; numbers rise in the order of pushing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub number: u32,
    pub is_bad: bool,
    /// True if nothing behind this record may be sent when it is refused: its fault can be
    /// corrected.
    pub stops: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records(pub Vec<Record>);

impl Batch for Records {
    fn records(&self) -> u32 {
        self.0.len() as u32
    }

    fn split_at(mut self, at: u32) -> (Self, Self) {
        let others = self.0.split_off(at as usize);
        assert!(!self.0.is_empty() && !others.is_empty(), "an empty batch");
        (self, Records(others))
    }
}

/// One step of a history.
#[derive(Clone, Debug)]
pub enum Step {
    /// The caller queues a batch; each bit set in `bad` makes the broker refuse that record, and a
    /// bit set in `stops` too makes the refusal stop the queue.
    Push { records: u8, bad: u8, stops: u8 },
    /// The queue sends every batch that it may send.
    Send,
    /// The broker handles a request of the present connection.
    Process,
    /// The queue receives an answer.
    Receive,
    /// The connection breaks: its answers are lost, but the broker may still handle its requests.
    Break,
    /// The broker handles a request of a broken connection.
    ProcessOld,
    /// The next request is refused for a moment.
    NotNow,
    /// The next request is appended, and times out before it is replicated.
    TimeOut,
    /// Another replica becomes leader: unreplicated records are lost, and the old leader refuses
    /// requests.
    LeaderMoves,
    /// If nothing is in flight, the broker forgets the producer.
    Forget,
    /// The topic's limit becomes this many records per batch.
    Limit(u8),
    /// The broker accepts the records that stop the queue from now on.
    Correct,
    /// If the queue has stopped and ended, the caller sends the refused record and everything
    /// behind it again, with another producer id.
    Reopen,
}

/// Rule for the first sequence number of a producer that the broker does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Accepts any number, like every Kafka released before August 2026.
    TakesAny,
    /// Accepts only 0.
    WantsZero,
}

struct Request {
    token: Token,
    records: Records,
    producer: u32,
    epoch: i16,
    base_sequence: i32,
}

#[derive(Clone)]
struct Appended {
    producer: u32,
    epoch: i16,
    base_sequence: i32,
    records: Records,
}

impl Appended {
    fn last_sequence(&self) -> i32 {
        super::advanced(self.base_sequence, self.records.records() - 1)
    }
}

/// The world around a queue.
pub struct World {
    pub queue: PartitionQueue<Records>,
    /// Producer id of the queue.
    producer: u32,
    rule: Rule,
    mutation: Option<Mutation>,
    log: Vec<Appended>,
    replicated: usize,
    /// End of the part of the log for which the broker has forgotten its producers.
    forgotten: usize,
    requests: VecDeque<Request>,
    answers: VecDeque<(Token, Answer)>,
    old_requests: VecDeque<Request>,
    not_now: bool,
    times_out: bool,
    limit: u32,
    is_corrected: bool,
    /// True if the last refusal named the records at fault; alternates.
    names: bool,
    pushed: Vec<Record>,
    acknowledged: HashSet<u32>,
    refused: HashSet<u32>,
    /// The record that stopped the queue, and the records that were not sent behind it.
    again: Vec<Record>,
    /// A result was lost, or the broker forgot the producer, so sequence numbers may have to
    /// restart.
    is_uncertain: bool,
    /// A batch was refused, so batches sent again may have other numbers than a lost attempt.
    is_cut: bool,
    broken: Option<String>,
}

impl World {
    pub fn new(rule: Rule, mutation: Option<Mutation>) -> Self {
        let mut queue = PartitionQueue::new(0);
        queue.mutation = mutation;
        World {
            queue,
            producer: 0,
            rule,
            mutation,
            log: Vec::new(),
            replicated: 0,
            forgotten: 0,
            requests: VecDeque::new(),
            answers: VecDeque::new(),
            old_requests: VecDeque::new(),
            not_now: false,
            times_out: false,
            limit: u32::MAX,
            is_corrected: false,
            names: false,
            pushed: Vec::new(),
            acknowledged: HashSet::new(),
            refused: HashSet::new(),
            again: Vec::new(),
            is_uncertain: false,
            is_cut: false,
            broken: None,
        }
    }

    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Push { records, bad, stops } => self.push(*records, *bad, *stops),
            Step::Send => while self.send() {},
            Step::Process => {
                if let Some(request) = self.requests.pop_front() {
                    let token = request.token;
                    let answer = self.process(request);
                    self.answers.push_back((token, answer));
                }
            }
            Step::Receive => {
                if let Some((token, answer)) = self.answers.pop_front() {
                    let answer = match self.queue.batch(token) {
                        Some(Records(records)) => answer
                            .stopping(records.len() as u32, |index| records[index as usize].stops),
                        None => answer,
                    };
                    let events = self.queue.answered(token, answer);
                    self.ended(events);
                }
            }
            Step::Break => {
                self.is_uncertain = true;
                self.old_requests.append(&mut self.requests);
                self.answers.clear();
                let events = self.queue.connection_lost();
                self.ended(events);
            }
            Step::ProcessOld => {
                if let Some(request) = self.old_requests.pop_front() {
                    self.process(request);
                }
            }
            Step::NotNow => self.not_now = true,
            Step::TimeOut => self.times_out = true,
            Step::LeaderMoves => {
                self.log.truncate(self.replicated);
                self.old_requests.clear();
                let refused =
                    self.requests.drain(..).map(|request| (request.token, Answer::NotNow));
                self.answers.extend(refused);
            }
            Step::Forget => self.forget(),
            Step::Limit(records) => self.limit = u32::from(*records).max(1),
            Step::Correct => self.is_corrected = true,
            Step::Reopen => self.reopen(),
        }
    }

    /// Ends all faults and lets everything arrive.
    pub fn heal(&mut self) {
        (self.not_now, self.times_out, self.limit) = (false, false, u32::MAX);
        self.is_corrected = true;
        for _ in 0..10_000 {
            if self.queue.is_empty() && !self.queue.is_stopped() {
                return;
            }
            for step in [Step::Send, Step::Process, Step::Receive, Step::Reopen] {
                self.step(&step);
            }
        }
        self.broken.get_or_insert("it never ends".into());
    }

    /// Checks the promises of the queue.
    ///
    /// # Errors
    /// Returns the broken promise.
    pub fn judge(&self) -> Result<(), String> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        if !self.is_uncertain && self.queue.epoch() > 0 {
            return Err("a new epoch, and no outcome was lost".into());
        }
        let all = || {
            self.log.iter().flat_map(|batch| {
                let epoch = (batch.producer, batch.epoch);
                batch.records.0.iter().map(move |record| (epoch, record.number))
            })
        };
        let (mut seen, mut in_epoch, mut newest) = (HashSet::new(), HashSet::new(), None);
        for (epoch, number) in all() {
            if !in_epoch.insert((epoch, number)) {
                return Err(format!("record {number} is there twice in epoch {epoch:?}"));
            }
            if seen.insert(number) {
                if newest.is_some_and(|newest| newest > number) {
                    return Err(format!("record {number} came first after {newest:?}"));
                }
                newest = Some(number);
            } else if !self.is_cut || !self.is_uncertain {
                return Err(format!("record {number} is there twice, and no outcome was lost"));
            }
        }
        for record in &self.pushed {
            let Record { number, is_bad, stops } = *record;
            let is_bad = is_bad && !stops;
            let (is_there, is_refused) = (seen.contains(&number), self.refused.contains(&number));
            if is_bad && (is_there || !is_refused) || !is_bad && (!is_there || is_refused) {
                return Err(format!("{record:?}: in the log {is_there}, refused {is_refused}"));
            }
        }
        Ok(())
    }

    fn push(&mut self, records: u8, bad: u8, stops: u8) {
        let first = self.pushed.len() as u32;
        let is_set = |bits: u8, n: u8| bits >> n & 1 == 1;
        let record = |n: u8| Record {
            number: first + u32::from(n),
            is_bad: is_set(bad, n),
            stops: is_set(bad & stops, n),
        };
        let records = Records((0..records).map(record).collect());
        self.pushed.extend(&records.0);
        match self.queue.is_stopped() {
            true => self.again.extend(records.0),
            false => self.queue.push(records),
        }
    }

    fn reopen(&mut self) {
        if !self.queue.is_stopped() || !self.queue.is_empty() || self.queue.in_flight() > 0 {
            return;
        }
        let mut again = std::mem::take(&mut self.again);
        again.sort_by_key(|record| record.number);
        if !again.first().is_some_and(|first| first.stops) {
            self.broken.get_or_insert(format!("before the stop, it did not send {again:?}"));
        }
        self.queue = PartitionQueue::new(0);
        self.queue.mutation = self.mutation;
        self.producer += 1;
        again.chunks(3).for_each(|records| self.queue.push(Records(records.to_vec())));
    }

    fn send(&mut self) -> bool {
        if self.queue.needs_producer_id() {
            self.broken.get_or_insert("epochs are used up".into());
        }
        let Some(send) = self.queue.next_send() else { return false };
        self.requests.push_back(Request {
            token: send.token,
            records: send.batch.clone(),
            producer: self.producer,
            epoch: send.epoch,
            base_sequence: send.base_sequence,
        });
        if self.queue.in_flight() > MAX_IN_FLIGHT {
            self.broken.get_or_insert("too many are in flight".into());
        }
        true
    }

    fn ended(&mut self, events: Vec<Event<Records>>) {
        let lasting: HashSet<u32> = self.log[..self.replicated]
            .iter()
            .flat_map(|batch| batch.records.0.iter().map(|record| record.number))
            .collect();
        for event in events {
            match event {
                Event::Acknowledged(records) => {
                    for Record { number, .. } in records.0 {
                        if !lasting.contains(&number) {
                            self.broken
                                .get_or_insert(format!("{number} counts as safe, and is not"));
                        }
                        if !self.acknowledged.insert(number) {
                            self.broken.get_or_insert(format!("{number} was acknowledged twice"));
                        }
                    }
                }
                Event::Refused(records) => {
                    let (stops, refused): (Vec<Record>, Vec<Record>) =
                        records.0.into_iter().partition(|record| record.stops);
                    self.again.extend(stops);
                    self.refused.extend(refused.iter().map(|record| record.number));
                }
                Event::NotSent(records) => self.again.extend(records.0),
                // The limit itself was the fault, so the caller pushes the record again.
                Event::TooLarge(records) => {
                    panic!("one record is never too large here: {records:?}")
                }
            }
        }
    }

    fn process(&mut self, request: Request) -> Answer {
        let Request { records, producer, epoch, base_sequence, .. } = request;
        if std::mem::take(&mut self.not_now) {
            return Answer::NotNow;
        }
        if records.records() > self.limit {
            self.is_cut = true;
            return Answer::TooLarge;
        }
        let is_bad = |record: &Record| record.is_bad && !(record.stops && self.is_corrected);
        let bad = |(n, record): (usize, &Record)| is_bad(record).then_some(n as u32);
        let bad: Vec<u32> = records.0.iter().enumerate().filter_map(bad).collect();
        if !bad.is_empty() {
            (self.is_cut, self.names) = (true, !self.names);
            return Answer::Refused(if self.names { bad } else { Vec::new() });
        }
        let batch = Appended { producer, epoch, base_sequence, records };
        let known = self.log[self.forgotten..].iter();
        let known: Vec<&Appended> = known.filter(|batch| batch.producer == producer).collect();
        let newest = known.iter().map(|batch| batch.epoch).max();
        let recent: Vec<_> = known.iter().rev().take(MAX_IN_FLIGHT).collect();
        let is_same = |old: &&&&Appended| {
            (old.epoch, old.base_sequence, old.last_sequence())
                == (batch.epoch, batch.base_sequence, batch.last_sequence())
        };
        if recent.iter().any(|old| is_same(&old)) {
            // A duplicate is acknowledged once the original is replicated.
            self.replicated = self.log.len();
            let failure = self.mutation == Some(Mutation::DuplicateIsFailure);
            return if failure { Answer::SequenceLost } else { Answer::Acknowledged };
        }
        let fits = match newest {
            None => base_sequence == 0 || self.rule == Rule::TakesAny,
            Some(newest) if epoch > newest => base_sequence == 0,
            Some(newest) if epoch < newest => false,
            Some(_) => {
                let last = known.last().map(|last| super::advanced(last.last_sequence(), 1));
                last == Some(base_sequence)
            }
        };
        if !fits {
            return Answer::SequenceLost;
        }
        self.log.push(batch);
        if std::mem::take(&mut self.times_out) {
            self.is_uncertain = true;
            return Answer::Unknown;
        }
        self.replicated = self.log.len();
        Answer::Acknowledged
    }

    /// Makes the broker forget an idle producer (`producer.id.expiration.ms`).
    fn forget(&mut self) {
        if self.queue.is_empty() && self.old_requests.is_empty() {
            self.queue.rested();
            self.is_uncertain = true;
            self.forgotten = self.log.len();
        }
    }
}
