//! A fleet in an application: the example.

use std::{net::TcpListener, time::Duration};

use factlib::emit::Fact;
use tokio::sync::oneshot;

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
