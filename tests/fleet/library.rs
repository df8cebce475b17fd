//! A fleet in an application: the example.

use std::{net::TcpListener, time::Duration};

use factlib::{Fleet, Pipeline, emit::Fact};
use tokio::{
    sync::oneshot,
    task::yield_now,
    time::{sleep, timeout},
};

use crate::support::{
    Bed,
    probe::{get, until},
    records::{emit, records},
};

#[path = "../../examples/fleet.rs"]
#[allow(dead_code)] // Its main function.
mod example;

#[actix::test]
async fn the_example_relays_each_tenant() {
    let (a, b) = (Bed::shared("fleet_lib_a").await, Bed::shared("fleet_lib_b").await);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (stop, stopped) = oneshot::channel::<()>();
    let tenants = [&a, &b].map(|bed| (bed.name.clone(), bed.postgres.url_for(&bed.database)));
    let mut shared = a.config.clone();
    // What the example leaves as it is.
    shared.postgres.publication = "factlib".into();
    shared.postgres.message_prefix = "factlib".into();
    let serving = actix_rt::spawn(async move {
        let stopped = async { drop(stopped.await) };
        let served = example::serve(shared, tenants.into(), listener, stopped);
        served.await.map_err(|error| error.to_string())
    });
    until(port, "/relay/readyz", |code, _| code == 200).await;
    let both = |_, body: &str| body.matches("\"state\":\"running\"").count() == 2;
    until(port, "/relay/status.json", both).await;
    for bed in [&a, &b] {
        let mut bed = Bed {
            name: "factlib".into(),
            config: bed.config.clone(),
            database: bed.database.clone(),
            ..*bed
        };
        emit(&bed, &[Fact::new("user", "u1", "created")]).await;
        bed.name = bed.database.clone();
        records(&bed, &format!("{}.user", bed.name), 1).await;
        let page = get(port, &format!("/relay/pipelines/{}/", bed.name)).await;
        assert!(page.is_some_and(|(code, body)| code == 200 && body.contains("WAL reader")));
    }
    assert_eq!(get(port, "/").await.expect("an answer").1, "the application");
    stop.send(()).expect("it runs");
    let served = tokio::time::timeout(Duration::from_secs(30), serving).await.expect("it ends");
    served.expect("no panic").expect("a clean stop");
}

/// Whenever it is removed, a pipeline has let go of its slot when it has ended.
#[actix::test]
async fn a_pipeline_that_is_removed_while_it_starts_ends() {
    let bed = Bed::shared("fleet_lib_removed").await;
    let fleet = Fleet::builder().start().expect("an empty fleet");
    let make = || {
        let config = bed.config.clone();
        move || Ok(Pipeline::builder().config(config.clone()))
    };
    for yields in 0..20 {
        fleet.set("a", make());
        for _ in 0..yields {
            yield_now().await;
        }
        fleet.remove("a").await.expect("it ends");
    }
    // This process does not know it as taken, and PostgreSQL neither.
    let pipeline = bed.pipeline().start().await.expect("it starts");
    timeout(Duration::from_secs(20), pipeline.running()).await.expect("in time").expect("it reads");
    pipeline.shutdown().await.expect("a clean stop");
    sleep(Duration::from_secs(1)).await;
    assert!(!bed.slot().await.1, "nobody reads the slot");
    fleet.shutdown().await.expect("it is empty");
}
