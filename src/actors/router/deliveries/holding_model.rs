//! Holds aggregates against a model of a broker that refuses events for a while, of the table, and of an
//! operator who redrives: whatever the order of steps, each aggregate's first deliveries are in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::{
    actors::router::HeldAggregates,
    dead_letter::RefusedBefore,
    messages::{ByteWindow, PartProgress, Refused, probe::probe},
    proto::OutboxEvent,
};

const TABLE: usize = 0;
const TOPIC: usize = 1;

/// One thing that happens; numbers choose among what is possible.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A batch with events of these aggregates is read.
    Read([u8; 3]),
    /// The broker answers for the oldest part, after that many of its events if it fails.
    Broker {
        fails_after: Option<u8>,
    },
    /// The table answers for the oldest part.
    Table {
        fails: bool,
    },
    Open(usize),
    /// The first event of a line is sent.
    Redrive(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<[u8; 3]>().prop_map(Step::Read),
        4 => prop::option::weighted(0.2, 0..3_u8).prop_map(|fails_after| Step::Broker { fails_after }),
        4 => prop::bool::weighted(0.2).prop_map(|fails| Step::Table { fails }),
        3 => (0..2_usize).prop_map(Step::Open),
        3 => any::<u8>().prop_map(Step::Redrive),
    ]
}

struct World {
    deliveries: Deliveries,
    /// Dispatched parts without an answer, by lane.
    sent: [VecDeque<Dispatch>; 2],
    /// Lanes that are closed, with their epoch.
    closed: [Option<u32>; 2],
    read: u64,
    batches: BTreeSet<u64>,
    /// Events that the topic refuses until it is mended.
    bad: BTreeSet<u64>,
    is_mended: bool,
    /// Held events, by aggregate.
    lines: BTreeMap<String, BTreeSet<u64>>,
    delivered: Vec<(String, u64)>,
}

impl World {
    fn new(bad: BTreeSet<u64>) -> Self {
        let aggregates = HeldAggregates::new(Vec::new(), RefusedBefore::default(), false);
        let mut deliveries = Deliveries::default().holding(aggregates);
        deliveries.lane(&Arc::from("topic"));
        World {
            deliveries,
            sent: Default::default(),
            closed: [Some(0), Some(0)],
            read: 0,
            batches: BTreeSet::new(),
            bad,
            is_mended: false,
            lines: BTreeMap::new(),
            delivered: Vec::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Read(aggregates) => self.read_batch(aggregates),
            Step::Broker { fails_after } => self.broker(fails_after.map(usize::from)),
            Step::Table { fails } => self.table(fails),
            Step::Open(lane) => self.open(lane),
            Step::Redrive(choice) => self.redrive(choice),
        }
    }

    fn read_batch(&mut self, aggregates: [u8; 3]) {
        let seq = self.read;
        let events: Vec<_> = aggregates
            .into_iter()
            .map(|aggregate| {
                self.read += 1;
                event(self.read, aggregate % 3)
            })
            .collect();
        let permit = ByteWindow::new(1).try_acquire(1).expect("room");
        self.batches.insert(seq);
        self.deliveries.open_batch(batch(seq), 1, 3, None);
        let sent =
            self.deliveries.add_diverting(TOPIC, batch(seq), events.into(), Vec::new(), permit);
        self.dispatched(sent);
    }

    fn dispatched(&mut self, sent: Vec<Dispatch>) {
        for dispatch in sent {
            self.sent[dispatch.lane].push_back(dispatch);
        }
    }

    /// Nothing behind a refused event, or one that fails, is taken.
    fn broker(&mut self, fails_after: Option<usize>) {
        let Some(part) = self.sent[TOPIC].pop_front() else { return };
        let mut progress = PartProgress::default();
        let mut fails = false;
        for (index, event) in part.events.iter().enumerate() {
            if fails_after == Some(index) {
                fails = true;
                break;
            }
            if self.bad.contains(&number(event)) && !self.is_mended {
                let error = Error::new(ErrorKind::RecordRefused, "no");
                progress.refused.push(Refused { index, error });
                fails = index + 1 < part.events.len();
                break;
            }
            self.delivered.push((event.aggregate_id().into(), number(event)));
            progress.delivered.push(index);
        }
        let result = match fails {
            true => Err(Error::new(ErrorKind::RecordBlocked, "later")),
            false => Ok(std::mem::take(&mut progress.refused)),
        };
        let failed = self.answer(&part, result, progress);
        if failed {
            self.fail_rest(TOPIC);
        }
    }

    /// Writes refused events, and those of lines that stand.
    fn table(&mut self, fails: bool) {
        let Some(part) = self.sent[TABLE].pop_front() else { return };
        if fails {
            let away = Err(Error::new(ErrorKind::CheckpointUnavailable, "away"));
            self.answer(&part, away, PartProgress::default());
            return self.fail_rest(TABLE);
        }
        let mut standing: BTreeSet<String> = self.lines.keys().cloned().collect();
        let first = part.events.iter().filter(|event| !waits(event));
        standing.extend(first.map(|event| event.aggregate_id().to_owned()));
        let mut released = Vec::new();
        for (index, event) in part.events.iter().enumerate() {
            match standing.contains(event.aggregate_id()) {
                true => {
                    let line = self.lines.entry(event.aggregate_id().into()).or_default();
                    line.insert(number(event));
                }
                false => {
                    let error = Error::new(ErrorKind::RecordBlocked, "released");
                    released.push(Refused { index, error });
                }
            }
        }
        self.answer(&part, Ok(released), PartProgress::default());
    }

    /// Gives the answer for a part; true if its lane fails.
    fn answer(
        &mut self,
        part: &Dispatch,
        result: Result<Vec<Refused>, Error>,
        progress: PartProgress,
    ) -> bool {
        let (lane, epoch, pause, output) = (part.lane, part.epoch, None, Vec::new());
        let done = PartDone { lane, epoch, part: part.part, result, output, pause, progress };
        match self.deliveries.finish(done) {
            PartEnd::Failed(_) => {
                if let Some(opening) = self.deliveries.close(lane, epoch) {
                    self.closed[lane] = Some(opening.epoch);
                }
                return true;
            }
            PartEnd::LastDone { batch, .. } => self.done(batch),
            PartEnd::Written { batch, permit, released, .. } => {
                if let Some(done) = self.deliveries.replace_part(batch, released.len()) {
                    self.done(done);
                }
                for Released { events, cleared, .. } in released {
                    let permit = permit.clone();
                    let sent = self.deliveries.add_diverting(TOPIC, batch, events, cleared, permit);
                    self.dispatched(sent);
                }
            }
            PartEnd::Done { .. } => {}
            end => panic!("{end:?}"),
        }
        false
    }

    /// What else was sent to a lane that fails comes back.
    fn fail_rest(&mut self, lane: usize) {
        for part in std::mem::take(&mut self.sent[lane]) {
            let error = Error::new(ErrorKind::ActorFailed, "dropped");
            self.answer(&part, Err(error), PartProgress::default());
        }
    }

    fn done(&mut self, done: BatchDone) {
        assert!(self.batches.remove(&done.id.seq), "a batch is done once");
    }

    fn open(&mut self, lane: usize) {
        if let Some(epoch) = self.closed[lane].take() {
            let sent = self.deliveries.opened(lane, epoch, probe().0);
            self.dispatched(sent);
        }
    }

    fn redrive(&mut self, choice: u8) {
        let count = self.lines.len().max(1);
        let Some(id) = self.lines.keys().nth(usize::from(choice) % count).cloned() else { return };
        let Some(line) = self.lines.get_mut(&id) else { return };
        let Some(first) = line.first().copied() else { return };
        if self.bad.contains(&first) && !self.is_mended {
            return;
        }
        self.delivered.push((id.clone(), first));
        line.remove(&first);
        if line.is_empty() {
            self.lines.remove(&id);
        }
    }

    /// Mends the topic, and goes on until there is nothing left to do.
    fn finish(&mut self) {
        self.is_mended = true;
        for _ in 0..10_000 {
            if self.batches.is_empty() && self.lines.is_empty() {
                return;
            }
            for step in [
                Step::Open(TABLE),
                Step::Open(TOPIC),
                Step::Table { fails: false },
                Step::Broker { fails_after: None },
                Step::Redrive(0),
            ] {
                self.step(step);
            }
        }
        panic!("{} batches, lines {:?} are left", self.batches.len(), self.lines);
    }
}

fn batch(seq: u64) -> BatchId {
    BatchId { generation: 1, seq }
}

fn event(number: u64, aggregate: u8) -> Event {
    let raw = OutboxEvent {
        id: number.to_string(),
        aggregate_type: "t".into(),
        aggregate_id: aggregate.to_string(),
        ..Default::default()
    };
    Event::parse(raw.encode_to_vec().into(), Lsn::new(number)).expect("an event")
}

fn number(event: &Event) -> u64 {
    event.lsn().as_u64()
}

fn waits(event: &Event) -> bool {
    event.refusal().is_some_and(|refusal| refusal.waits)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn first_deliveries_of_an_aggregate_are_in_order_and_none_is_lost(
        steps in prop::collection::vec(step(), 1..120),
        bad in prop::collection::btree_set(1..60_u64, 0..8),
        mended_at in 0..120_usize,
    ) {
        actix::System::new().block_on(async move {
            let mut world = World::new(bad);
            for (at, step) in steps.into_iter().enumerate() {
                world.is_mended |= at >= mended_at;
                world.step(step);
            }
            world.finish();
            let mut last: BTreeMap<String, u64> = BTreeMap::new();
            let mut seen = BTreeSet::new();
            for (aggregate, number) in &world.delivered {
                if seen.insert(*number) {
                    let before = last.insert(aggregate.clone(), *number).unwrap_or_default();
                    assert!(before < *number, "{number} came behind {before}: {:?}", world.delivered);
                }
            }
            assert_eq!(seen.len() as u64, world.read, "each event is delivered");
            assert_eq!(world.delivered.len() as u64, world.read, "once");
        });
    }
}
