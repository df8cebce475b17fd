use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::{
    ErrorKind,
    config::{Config, Format, KafkaConfig},
    handlers::Record,
    messages::{ByteWindow, PartProgress, Refused, probe::probe},
    proto::OutboxEvent,
    routing::{CachedRoutes, OutgoingEvent, Routed},
};

const A: usize = 0;
const B: usize = 1;

/// Deliveries with two lanes that wait to be opened.
fn deliveries() -> Deliveries {
    let mut deliveries = Deliveries::default();
    for (lane, topic) in [(A, "a"), (B, "b")] {
        let topic: Arc<str> = topic.into();
        let opening = Opening { lane, topic: Arc::clone(&topic), epoch: 0, failures: 0 };
        assert_eq!(deliveries.lane(&topic), (lane, Some(opening)));
        assert_eq!(deliveries.lane(&topic), (lane, None), "opened once");
    }
    deliveries
}

fn id(seq: u64) -> BatchId {
    BatchId { generation: 1, seq }
}

fn events(count: usize) -> Vec<Event> {
    let raw = OutboxEvent { aggregate_type: "t".into(), ..Default::default() };
    let event = Event::parse(raw.encode_to_vec().into(), Lsn::new(1)).expect("an event");
    vec![event; count]
}

fn add(deliveries: &mut Deliveries, lane: usize, seq: u64, count: usize) -> Option<Dispatch> {
    let permit = ByteWindow::new(1).try_acquire(1).expect("room");
    deliveries.add(lane, id(seq), events(count).into(), permit)
}

/// Batches 0, 1, … with one part each, of one event, in `lane`.
fn one_part_each(deliveries: &mut Deliveries, lane: usize, batches: u64) {
    for seq in 0..batches {
        deliveries.open_batch(id(seq), 1, 1, Some(Lsn::new(100 + seq)));
        add(deliveries, lane, seq, 1);
    }
}

fn open(deliveries: &mut Deliveries, lane: usize, epoch: u32) -> Vec<(u32, u64)> {
    let sent = deliveries.opened(lane, epoch, probe().0);
    sent.iter().map(|sent| (sent.epoch, sent.part)).collect()
}

fn ack(lane: usize, epoch: u32, part: u64) -> PartDone {
    PartDone {
        lane,
        epoch,
        part,
        result: Ok(Vec::new()),
        output: Vec::new(),
        pause: None,
        progress: PartProgress::default(),
    }
}

fn failure(lane: usize, epoch: u32, part: u64) -> PartDone {
    let error = Error::new(ErrorKind::KafkaUnavailable, "no");
    PartDone {
        lane,
        epoch,
        part,
        result: Err(error),
        output: Vec::new(),
        pause: None,
        progress: PartProgress::default(),
    }
}

fn batch_done(end: PartEnd) -> Option<(u64, Option<Lsn>, usize)> {
    match end {
        PartEnd::LastDone { batch, .. } => Some((batch.id.seq, batch.commit_end_lsn, batch.events)),
        _ => None,
    }
}

#[actix::test]
async fn parts_wait_until_their_lane_is_open_and_later_ones_do_not() {
    let mut deliveries = deliveries();
    one_part_each(&mut deliveries, A, 3);
    assert_eq!(open(&mut deliveries, A, 0), [(0, 0), (0, 1), (0, 2)]);
    deliveries.open_batch(id(3), 1, 1, None);
    let sent = add(&mut deliveries, A, 3, 1).expect("sent at once");
    assert_eq!((sent.lane, sent.epoch, sent.part, &*sent.topic), (A, 0, 3, "a"));
    deliveries.open_batch(id(4), 1, 1, None);
    assert!(add(&mut deliveries, B, 4, 1).is_none(), "lane b is not open");
}

#[actix::test]
async fn a_batch_is_done_only_when_its_last_part_is() {
    let mut deliveries = deliveries();
    deliveries.open_batch(id(0), 2, 5, Some(Lsn::new(9)));
    add(&mut deliveries, A, 0, 2);
    add(&mut deliveries, B, 0, 3);
    open(&mut deliveries, A, 0);
    open(&mut deliveries, B, 0);
    let end = deliveries.finish(ack(B, 0, 0));
    assert!(matches!(end, PartEnd::Done { lane: B, events: 3, .. }), "{end:?}");
    let end = deliveries.finish(ack(A, 0, 0));
    assert!(matches!(end, PartEnd::LastDone { lane: A, events: 2, .. }), "{end:?}");
    assert_eq!(batch_done(end), Some((0, Some(Lsn::new(9)), 5)));
    assert!(matches!(deliveries.finish(ack(A, 0, 0)), PartEnd::Stale), "done twice");
}

#[actix::test]
async fn the_parts_of_a_failed_lane_go_out_again_whole_and_in_order() {
    let mut deliveries = deliveries();
    one_part_each(&mut deliveries, A, 4);
    open(&mut deliveries, A, 0);
    assert!(batch_done(deliveries.finish(ack(A, 0, 0))).is_some());
    // Part 2 is acknowledged out of turn, then part 1 fails.
    assert!(batch_done(deliveries.finish(ack(A, 0, 2))).is_some());
    assert!(matches!(deliveries.finish(failure(A, 0, 1)), PartEnd::Failed { .. }));
    let again = Opening { lane: A, topic: "a".into(), epoch: 1, failures: 1 };
    assert_eq!(deliveries.close(A, 0), Some(again));
    // What comes while it is closed waits behind what was sent before.
    deliveries.open_batch(id(4), 1, 1, None);
    assert!(add(&mut deliveries, A, 4, 1).is_none());
    assert_eq!(open(&mut deliveries, A, 1), [(1, 1), (1, 3), (1, 4)]);
}

#[actix::test]
async fn a_batch_waits_for_what_its_part_handed_on() {
    let mut deliveries = deliveries();
    one_part_each(&mut deliveries, A, 1);
    open(&mut deliveries, A, 0);
    open(&mut deliveries, B, 0);
    let output = vec![Record::of(&events(1)[0]).into(), Record::of(&events(1)[0]).into()];
    let end = deliveries.finish(PartDone { output, ..ack(A, 0, 0) });
    let PartEnd::Returned { events: 1, delivered: 0, returned, .. } = end else {
        panic!("{end:?}")
    };
    assert_eq!((returned.output.len(), returned.batch), (2, id(0)));
    deliveries.replace_part(returned.batch, 2);
    assert!(add(&mut deliveries, A, 0, 1).is_some() && add(&mut deliveries, B, 0, 1).is_some());
    assert!(batch_done(deliveries.finish(ack(B, 0, 0))).is_none());
    let done = batch_done(deliveries.finish(ack(A, 0, 1)));
    assert_eq!(done, Some((0, Some(Lsn::new(100)), 1)));
}

#[actix::test]
async fn a_paused_topic_keeps_its_parts_through_a_failure_and_sends_them_in_order() {
    let mut deliveries = deliveries();
    let topic = "a".into();
    one_part_each(&mut deliveries, A, 1);
    open(&mut deliveries, A, 0);
    assert!(deliveries.pause(&topic, true).is_empty());
    deliveries.open_batch(id(1), 1, 1, None);
    assert!(add(&mut deliveries, A, 1, 1).is_none());
    deliveries.finish(failure(A, 0, 0));
    assert!(deliveries.close(A, 0).is_some());
    assert_eq!(open(&mut deliveries, A, 1), []);
    let sent = deliveries.pause(&topic, false);
    assert_eq!(sent.iter().map(|sent| sent.part).collect::<Vec<_>>(), [0, 1]);
    assert!(deliveries.pause(&topic, false).is_empty(), "sent once");
}

#[actix::test]
async fn only_the_first_failure_of_an_epoch_closes_the_lane() {
    let mut deliveries = deliveries();
    one_part_each(&mut deliveries, A, 2);
    open(&mut deliveries, A, 0);
    deliveries.finish(failure(A, 0, 0));
    assert!(deliveries.close(A, 0).is_some());
    deliveries.finish(failure(A, 0, 1));
    assert_eq!(deliveries.close(A, 0), None);
    assert_eq!(open(&mut deliveries, A, 0), [], "an opening of an older epoch");
    assert_eq!(open(&mut deliveries, A, 1), [(1, 0), (1, 1)]);
}

#[actix::test]
async fn a_token_of_an_older_epoch_says_nothing_of_a_part_that_went_out_again() {
    let mut deliveries = deliveries();
    one_part_each(&mut deliveries, A, 1);
    open(&mut deliveries, A, 0);
    deliveries.close(A, 0);
    open(&mut deliveries, A, 1);
    assert!(matches!(deliveries.finish(ack(A, 0, 0)), PartEnd::Stale));
    assert!(matches!(deliveries.finish(failure(A, 0, 0)), PartEnd::Stale));
    assert_eq!(batch_done(deliveries.finish(ack(A, 1, 0))), Some((0, Some(Lsn::new(100)), 1)));
}

#[actix::test]
async fn a_token_that_is_out_while_the_lane_is_closed_still_counts() {
    let mut deliveries = deliveries();
    one_part_each(&mut deliveries, A, 2);
    open(&mut deliveries, A, 0);
    deliveries.finish(failure(A, 0, 1));
    deliveries.close(A, 0);
    // Kafka has it: sending it again would only be a duplicate.
    assert!(batch_done(deliveries.finish(ack(A, 0, 0))).is_some());
    assert_eq!(open(&mut deliveries, A, 1), [(1, 1)]);
}

#[actix::test]
async fn a_part_that_failed_is_not_done_by_the_same_token() {
    let mut deliveries = deliveries();
    one_part_each(&mut deliveries, A, 1);
    open(&mut deliveries, A, 0);
    deliveries.finish(failure(A, 0, 0));
    assert!(matches!(deliveries.finish(ack(A, 0, 0)), PartEnd::Stale));
}

#[actix::test]
async fn failures_count_until_something_is_delivered() {
    let mut deliveries = deliveries();
    one_part_each(&mut deliveries, A, 2);
    let failures = |opening: Option<Opening>| opening.expect("closed").failures;
    assert_eq!(failures(deliveries.close(A, 0)), 1);
    assert_eq!(failures(deliveries.close(A, 1)), 2);
    open(&mut deliveries, A, 2);
    deliveries.finish(ack(A, 2, 0));
    assert_eq!(failures(deliveries.close(A, 2)), 1);
}

#[actix::test]
async fn what_is_behind_a_blocked_part_goes_out_after_it() {
    let mut deliveries = deliveries();
    deliveries.block = true;
    one_part_each(&mut deliveries, A, 3);
    assert_eq!(open(&mut deliveries, A, 0), [(0, 0), (0, 1), (0, 2)]);
    let refused = |epoch, part| {
        let error = Error::new(ErrorKind::RecordRefused, "never");
        PartDone {
            lane: A,
            epoch,
            part,
            result: Ok(vec![Refused { index: 0, error }]),
            output: Vec::new(),
            pause: None,
            progress: PartProgress::default(),
        }
    };
    for part in [1, 2] {
        let end = deliveries.finish(refused(0, part));
        assert!(matches!(&end, PartEnd::Failed(error) if error.kind() == ErrorKind::RecordBlocked));
    }
    deliveries.close(A, 0).expect("it was open");
    // Up to the first that was refused, and nothing that is behind it or new.
    assert_eq!(open(&mut deliveries, A, 1), [(1, 0), (1, 1)]);
    deliveries.open_batch(id(3), 1, 1, None);
    assert!(add(&mut deliveries, A, 3, 1).is_none());
    deliveries.finish(ack(A, 1, 0));
    assert!(deliveries.release(A).is_empty(), "the blocked one is not through");
    deliveries.finish(ack(A, 1, 1));
    let released = deliveries.release(A);
    assert_eq!(released.iter().map(|sent| sent.part).collect::<Vec<_>>(), [2, 3]);
    assert!(deliveries.release(A).is_empty(), "once");
}

/// Events that are told apart by their position.
fn numbered(count: usize) -> Vec<Event> {
    let raw = OutboxEvent { aggregate_type: "t".into(), ..Default::default() };
    let event = |n| Event::parse(raw.encode_to_vec().into(), Lsn::new(n)).expect("an event");
    (0..count as u64).map(event).collect()
}

fn numbers(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.lsn().as_u64()).collect()
}

/// A part of so many events in lane A, which is open, and what is sent of it.
fn part_of(deliveries: &mut Deliveries, count: usize) -> Dispatch {
    let permit = ByteWindow::new(1).try_acquire(1).expect("room");
    deliveries.open_batch(id(0), 1, count, Some(Lsn::new(9)));
    assert!(deliveries.add(A, id(0), numbered(count).into(), permit).is_none());
    deliveries.opened(A, 0, probe().0).remove(0)
}

fn partly(epoch: u32, progress: PartProgress) -> PartDone {
    PartDone { progress, ..failure(A, epoch, 0) }
}

fn refused(index: usize) -> Refused {
    Refused { index, error: Error::new(ErrorKind::RecordRefused, "never") }
}

#[actix::test]
async fn of_a_part_that_came_some_of_the_way_only_the_rest_goes_out_again() {
    let mut deliveries = deliveries();
    part_of(&mut deliveries, 6);
    let progress = PartProgress { delivered: vec![0, 3], refused: vec![refused(1)] };
    let end = deliveries.finish(partly(0, progress));
    assert!(matches!(end, PartEnd::Failed(_)), "{end:?}");
    deliveries.close(A, 0).expect("it was open");
    let again = deliveries.opened(A, 1, probe().0).remove(0);
    assert_eq!(numbers(&again.events), [2, 4, 5]);
    // Of those, the last is refused as well.
    let result = Ok(vec![refused(2)]);
    let end = deliveries.finish(PartDone { result, ..ack(A, 1, 0) });
    let PartEnd::Returned { events, delivered, returned, .. } = end else { panic!("{end:?}") };
    assert_eq!((events, delivered), (6, 4));
    let refused: Vec<_> = returned.refused.into_iter().map(|(event, _)| event).collect();
    assert_eq!(numbers(&refused), [1, 5]);
}

#[actix::test]
async fn what_is_left_of_a_part_keeps_its_plans() {
    let config = Config { kafka: json(), ..Config::default() };
    let mut routing = CachedRoutes::new(&config).expect("no routes");
    let [first, .., last] = &numbered(3)[..] else { panic!("three events") };
    let Routed::One(_, planned) = routing.route(last.clone()) else { panic!("one record") };
    let usual = OutgoingEvent::with_default_record(first.clone());
    let events = [usual.clone(), usual.clone(), planned, usual].into_iter().collect();
    let mut deliveries = deliveries();
    deliveries.open_batch(id(0), 1, 4, Some(Lsn::new(9)));
    let permit = ByteWindow::new(1).try_acquire(1).expect("room");
    assert!(deliveries.add(A, id(0), events, permit).is_none());
    let planned = |sent: &Dispatch| -> Vec<_> {
        (0..sent.events.len()).filter(|index| sent.plans.of(*index).is_some()).collect()
    };
    let sent = deliveries.opened(A, 0, probe().0).remove(0);
    assert_eq!((planned(&sent), sent.events[2].lsn()), (vec![2], Lsn::new(2)));
    deliveries.finish(partly(0, PartProgress { delivered: vec![0], ..Default::default() }));
    deliveries.close(A, 0).expect("it was open");
    let again = deliveries.opened(A, 1, probe().0).remove(0);
    assert_eq!((planned(&again), again.events[1].lsn()), (vec![1], Lsn::new(2)));
}

fn json() -> KafkaConfig {
    KafkaConfig { format: Format::Json, ..KafkaConfig::default() }
}

#[actix::test]
async fn a_blocked_record_holds_what_is_behind_its_part() {
    let mut deliveries = deliveries();
    deliveries.block = true;
    part_of(&mut deliveries, 3);
    let error = Error::new(ErrorKind::RecordBlocked, "blocks");
    let progress = PartProgress { delivered: vec![0], ..Default::default() };
    deliveries.finish(PartDone { result: Err(error), progress, ..ack(A, 0, 0) });
    deliveries.close(A, 0).expect("it was open");
    deliveries.open_batch(id(1), 1, 1, None);
    assert!(add(&mut deliveries, A, 1, 1).is_none(), "behind it");
    let again = deliveries.opened(A, 1, probe().0);
    assert_eq!(again.iter().map(|sent| numbers(&sent.events)).collect::<Vec<_>>(), [[1, 2]]);
    deliveries.finish(ack(A, 1, 0));
    assert_eq!(deliveries.release(A).len(), 1);
}

proptest! {
    /// However often a part fails, and however far it comes each time: each event is delivered
    /// or refused once, and what is left goes out in order.
    #[test]
    fn each_event_of_a_part_ends_once(
        ends in prop::collection::vec(prop::collection::vec(0..3u8, 30), 1..8),
    ) {
        let mut deliveries = deliveries();
        let mut sent = actix::System::new().block_on(async { part_of(&mut deliveries, 30) });
        let mut ended = Vec::new();
        for (epoch, ends) in (0..).zip(&ends) {
            let of = |end| (0..sent.events.len()).filter(move |at| ends[*at] == end);
            let left = of(0).count();
            if left == 0 {
                break;
            }
            let at = |index: usize| sent.events[index].lsn().as_u64();
            ended.extend(of(1).chain(of(2)).map(at));
            let progress = PartProgress {
                delivered: of(1).collect(),
                refused: of(2).map(refused).collect(),
            };
            deliveries.finish(partly(epoch, progress));
            deliveries.close(A, epoch).expect("it was open");
            let again = actix::System::new()
                .block_on(async { deliveries.opened(A, epoch + 1, probe().0) });
            sent = again.into_iter().next().expect("the rest");
            prop_assert_eq!(sent.events.len(), left);
            prop_assert!(sent.events.is_sorted_by_key(|event| event.lsn()));
            for event in sent.events.iter() {
                prop_assert!(!ended.contains(&event.lsn().as_u64()));
            }
        }
        ended.extend(numbers(&sent.events));
        ended.sort_unstable();
        prop_assert_eq!(ended, (0..30).collect::<Vec<u64>>());
    }
}

#[test]
fn answers_for_lanes_and_parts_that_never_were_say_nothing() {
    let mut deliveries = deliveries();
    assert!(matches!(deliveries.finish(ack(7, 0, 0)), PartEnd::Stale));
    assert!(matches!(deliveries.finish(ack(A, 0, 0)), PartEnd::Stale));
    assert_eq!(deliveries.close(7, 0), None);
    assert!(deliveries.topic(7).is_none());
}
