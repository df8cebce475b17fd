//! Instances that share pipelines by a consumer group.

use std::time::{Duration, Instant};

use factlib::{Fleet, FleetHandle, Pipeline, PipelineState, config::Config, emit::Fact};
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::support::{
    Bed,
    bed::LIMIT,
    records::{emit, records},
};

const DATABASES: usize = 9;

/// An instance that knows all pipelines.
fn start(beds: &[Bed<'_>], name: &str) -> FleetHandle {
    start_with(beds, name, |_| {})
}

/// The same with a change of the configuration of the process and of each pipeline.
fn start_with(beds: &[Bed<'_>], name: &str, change: impl Fn(&mut Config)) -> FleetHandle {
    let mut config = Config::default();
    config.kafka.brokers = vec![beds[0].kafka.bootstrap()];
    config.fleet.group = Some(format!("{}_group", beds[0].name));
    config.fleet.instance = Some(name.into());
    config.fleet.session_timeout = Duration::from_secs(6);
    change(&mut config);
    let log = slog::Logger::root(slog::Discard, slog::o!());
    let mut fleet = Fleet::builder().config(&config).logger(log);
    for bed in beds {
        let mut config = bed.config.clone();
        config.kafka.topics.partitions = Some(1);
        change(&mut config);
        // The instances of this test are in one process, which refuses a slot that it reads already.
        let make = move || Ok(Pipeline::builder().config(config.clone()).as_another_process());
        fleet = fleet.pipeline(bed.name.clone(), make);
    }
    fleet.start().expect("it starts")
}

/// Waits until the pipelines run, and each instance has as many as expected, in some order.
async fn share(fleets: &[&FleetHandle], expected: &[usize]) {
    let shares = || {
        let held = |fleet: &&FleetHandle| {
            let place = fleet.group().expect("it is shared");
            let status = fleet.status();
            let run = status.iter().all(|one| one.state == PipelineState::Running);
            // One that has stopped must not be shown here any more.
            (run && status.len() == place.pipelines, place.instances, place.pipelines)
        };
        fleets.iter().map(held).collect::<Vec<_>>()
    };
    let waiting = async {
        loop {
            let shares = shares();
            let mut sizes: Vec<_> = shares.iter().map(|(.., size)| *size).collect();
            sizes.sort_unstable();
            let agree =
                |(run, instances, _): &(bool, usize, usize)| *run && *instances == fleets.len();
            if shares.iter().all(agree) && sizes == expected {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let shared = timeout(LIMIT, waiting).await;
    shared.unwrap_or_else(|_| panic!("expected {expected:?}, found {:?}", shares()));
}

async fn emit_to_all(beds: &[Bed<'_>]) {
    for bed in beds {
        emit(bed, &[Fact::new("user", "u1", "created")]).await;
    }
}

/// Each database's facts are in its topic, and no more.
async fn arrived(beds: &[Bed<'_>], facts: usize) {
    for bed in beds {
        records(bed, &format!("{}.user", bed.name), facts).await;
    }
}

#[actix::test]
async fn instances_share_pipelines_and_take_over_what_another_leaves() {
    let names: Vec<_> = (0..DATABASES).map(|number| format!("fleet_share_{number}")).collect();
    let beds = join_all(names.iter().map(|name| Bed::shared(name))).await;
    let [a, b, c] = ["a", "b", "c"].map(|name| start(&beds, name));
    share(&[&a, &b, &c], &[3, 3, 3]).await;
    emit_to_all(&beds).await;
    arrived(&beds, 1).await;

    // Facts commit while the pipelines of one move.
    let begun = Instant::now();
    let leaving = async {
        a.shutdown().await.expect("it stops in order");
        share(&[&b, &c], &[4, 5]).await;
        begun.elapsed()
    };
    let (moved, ()) = tokio::join!(leaving, emit_to_all(&beds));
    println!("an orderly move of 3 pipelines took {moved:?}");
    assert!(moved < Duration::from_secs(20), "{moved:?}");
    arrived(&beds, 2).await;

    let kept: Vec<_> = [&b, &c].map(|fleet| fleet.status()).concat();
    let d = start(&beds, "d");
    share(&[&b, &c, &d], &[3, 3, 3]).await;
    let still = [&b, &c].map(|fleet| fleet.status()).concat();
    let moved = kept.iter().filter(|one| still.iter().all(|other| other.name != one.name));
    assert_eq!(moved.count(), 3, "no more move than have to");
    emit_to_all(&beds).await;
    arrived(&beds, 3).await;

    // A removed pipeline ends, whoever runs it, and the others stay where they are.
    for fleet in [&b, &c, &d] {
        fleet.remove(&beds[0].name).await.expect("it stops in order");
    }
    share(&[&b, &c, &d], &[2, 3, 3]).await;
    for fleet in [b, c, d] {
        fleet.shutdown().await.expect("it stops in order");
    }
}

/// Waits until an instance can't start what is coming to it.
async fn has_problems(fleet: &FleetHandle) {
    let tried = async {
        while !fleet.status().iter().any(|one| one.problem.is_some()) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, tried).await.expect("it tries to start what is coming");
}

/// The instances of a rolling update may differ in what they can reach.
#[actix::test]
async fn a_pipeline_that_its_new_instance_cannot_start_stays_where_it_runs() {
    let names: Vec<_> = (0..2).map(|number| format!("fleet_stays_{number}")).collect();
    let beds = join_all(names.iter().map(|name| Bed::shared(name))).await;
    let a = start(&beds, "a");
    share(&[&a], &[2]).await;
    let url = beds[0].postgres.url_for("no_such_database");
    let b = start_with(&beds, "b", |config| config.postgres.url = url.clone().into());
    let begun = Instant::now();
    has_problems(&b).await;
    sleep(Duration::from_secs(2)).await;
    println!("the new instance could not start one for {:?}", begun.elapsed());
    assert_eq!(a.status().len(), 2);
    emit_to_all(&beds).await;
    arrived(&beds, 1).await;
    for fleet in [a, b] {
        fleet.shutdown().await.expect("it stops in order");
    }
}

#[actix::test]
async fn what_no_instance_is_ready_for_stops_after_the_handover_timeout() {
    let beds = [Bed::shared("fleet_handover").await];
    let url = beds[0].postgres.url_for("no_such_database");
    for (round, limit) in [Duration::from_secs(3), Duration::ZERO].into_iter().enumerate() {
        let a = start_with(&beds, "a", |config| config.fleet.handover_timeout = limit);
        share(&[&a], &[1]).await;
        let b = start_with(&beds, "b", |config| config.postgres.url = url.clone().into());
        let joined = async {
            while a.group().expect("it is shared").instances < 2 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, joined).await.expect("both are in the group");
        let begun = Instant::now();
        a.shutdown().await.expect("it stops in order");
        let stopped = begun.elapsed();
        assert!((limit..limit + Duration::from_secs(3)).contains(&stopped), "{stopped:?}");
        emit_to_all(&beds).await;
        has_problems(&b).await;
        b.shutdown().await.expect("it has nothing that runs");
        let c = start(&beds, "c");
        arrived(&beds, round + 1).await;
        c.shutdown().await.expect("it stops in order");
    }
}
