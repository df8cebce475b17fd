//! Moves to another server, step by step as an operator makes them, while services write.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use factlib::{
    config::Source,
    emit::Emitter,
    testing::{PostgresServer, shared_kafka},
};
use tokio::{sync::watch, task::JoinHandle, time::sleep};

use crate::support::{
    Bed, History, Report, Workload,
    bed::LIMIT,
    relay::{Launch, Relay},
    rows::{EVENTS, event, in_table, insert},
    workload::{Facts, events},
};

const WRITERS: usize = 4;
/// Pause of a writer between two transactions.
const PAUSE: Duration = Duration::from_millis(5);
/// Time between the switches of two writers.
const SWITCH_PAUSE: Duration = Duration::from_millis(400);

/// The same relay on two servers.
struct Scene<'a> {
    beds: [Bed<'a>; 2],
    launches: [Launch; 2],
}

impl<'a> Scene<'a> {
    async fn on(old: &'a PostgresServer, new: &'a PostgresServer, source: Source) -> Self {
        let kafka = shared_kafka().await.expect("Kafka starts");
        let mut first = Bed::on(old, kafka, "move").await;
        first.config.postgres.source = Some(source);
        let create = format!("CREATE DATABASE {}", first.database);
        new.execute("postgres", &create).await.expect("a database");
        let mut config = first.config.clone();
        config.postgres.url = new.url_for(&first.database).into();
        let (database, name) = (first.database.clone(), first.name.clone());
        let second = Bed { postgres: new, kafka, database, name, config };
        let beds = [first, second];
        for bed in &beds {
            bed.client().await.batch_execute(EVENTS).await.expect("the table");
        }
        let launch = |bed| {
            let launch = Launch::new(bed, Arc::new(AtomicU64::new(0)));
            match source {
                Source::Tables => launch.set("postgres.source", "tables"),
                _ => launch,
            }
        };
        let launches = [launch(&beds[0]), launch(&beds[1])];
        Scene { beds, launches }
    }

    fn set(mut self, setting: &str, value: &str) -> Self {
        self.launches = self.launches.map(|launch| launch.set(setting, value));
        self
    }

    fn url(&self, server: usize) -> String {
        let bed = &self.beds[server];
        bed.postgres.url_for(&bed.database)
    }

    /// Runs a step of the move from one server to the other, with the configuration of the old one.
    async fn step(&self, old: usize, words: &[&str]) -> String {
        self.launches[old].command(&self.words(old, words)).await
    }

    /// Runs a step that is to fail, and gives what it says.
    async fn refused(&self, old: usize, words: &[&str]) -> String {
        let program = self.launches[old].program(&self.words(old, words));
        let status = program.ended(LIMIT).await.expect("it ends");
        assert!(!status.success(), "{}", program.output());
        program.output()
    }

    fn words<'w>(&self, old: usize, words: &[&'w str]) -> Vec<&'w str> {
        let url: &'static str = self.url(1 - old).leak();
        [&["move"], words, &["--to", url]].concat()
    }

    /// Starts the services, which write to the server that the sender names, each in its turn.
    fn writers(&self) -> Writers {
        let (send, receive) = watch::channel(Some(0));
        let source = self.beds[0].config.postgres.source;
        let one = |emitter| {
            let workload = Workload {
                emitter,
                seed: emitter as u64,
                transaction: 1..=5,
                ..Workload::new(&self.beds[0].name, 0)
            };
            let sessions = [self.beds[0].sessions(), self.beds[1].sessions()];
            tokio::spawn(write(workload, sessions, receive.clone(), source))
        };
        Writers { send, tasks: (0..WRITERS).map(one).collect() }
    }
}

struct Writers {
    /// The server to write to; none at the end.
    send: watch::Sender<Option<usize>>,
    tasks: Vec<JoinHandle<History>>,
}

impl Writers {
    fn switch_to(&self, server: usize) {
        self.send.send_replace(Some(server));
    }

    async fn stop(self) -> History {
        self.send.send_replace(None);
        let mut history = History::default();
        for task in self.tasks {
            history.merge(task.await.expect("a writer ends"));
        }
        history
    }
}

async fn connect(sessions: &tokio_postgres::Config) -> tokio_postgres::Client {
    let (client, connection) = sessions.connect(tokio_postgres::NoTls).await.expect("a session");
    tokio::spawn(connection);
    client
}

/// Writes facts of its own aggregates; a switch does not happen in the middle of a transaction.
async fn write(
    workload: Workload,
    sessions: [tokio_postgres::Config; 2],
    target: watch::Receiver<Option<usize>>,
    source: Option<Source>,
) -> History {
    let (mut facts, mut history) = (Facts::new(&workload), History::default());
    let emitter = Emitter::new(workload.prefix.clone()).any_size();
    let mut current = 0;
    let mut client = connect(&sessions[current]).await;
    loop {
        let Some(server) = *target.borrow() else { return history };
        if server != current {
            sleep(SWITCH_PAUSE * workload.emitter as u32).await;
            client = connect(&sessions[server]).await;
            current = server;
        }
        let count = facts.transaction_size();
        let batch = facts.next(count);
        let transaction = client.transaction().await.expect("a transaction");
        let written: Vec<_> = match source {
            Some(Source::Tables) => events(&batch).map(in_table).collect(),
            _ => events(&batch).collect(),
        };
        match source {
            Some(Source::Tables) => {
                for event in &written {
                    insert(&transaction, event).await;
                }
            }
            _ => _ = emitter.emit_all(&transaction, &batch).await.expect("facts are emitted"),
        }
        transaction.commit().await.expect("a commit");
        written.iter().for_each(|event| history.committed(event));
        sleep(PAUSE).await;
    }
}

/// Kills what it can, again and again, while the move goes on.
struct Kills(bool);

/// Moves from one server to the other while the writers switch; gives the relay of the new server.
async fn hand_over(
    scene: &Scene<'_>,
    old: usize,
    relay: Relay,
    writers: &Writers,
    kills: Kills,
) -> Relay {
    let new = 1 - old;
    if kills.0 {
        killed_at_each_moment(scene, old, &["prepare"]).await;
    }
    let said = scene.step(old, &["prepare"]).await;
    assert!(said.contains("prepared: the move from"), "{said}");

    // Started too early, it stands by.
    let next = scene.launches[new].spawn();
    next.says("is not finished").await;
    writers.switch_to(new);
    let mut relay = relay;
    if kills.0 {
        killed_at_each_moment(scene, old, &["finish", "--quiet", "1"]).await;
        relay.kill().await;
        relay = scene.launches[old].start().await;
    }
    let said = scene.step(old, &["finish", "--quiet", "1"]).await;
    assert!(said.contains("factlib move close --from"), "{said}");
    next.says("relay running").await;
    let mut next = next;
    if kills.0 {
        next.kill().await;
        next = scene.launches[new].start().await;
    }
    relay.stop().await;
    next
}

/// Kills a step a little later each time.
async fn killed_at_each_moment(scene: &Scene<'_>, old: usize, words: &[&str]) {
    for turn in 0..8 {
        let program = scene.launches[old].program(&scene.words(old, words));
        sleep(Duration::from_millis(40) * (turn * turn / 2 + 1)).await;
        program.kill();
        program.ended(LIMIT).await.expect("a killed process ends");
    }
}

async fn close(scene: &Scene<'_>, old: usize) {
    let url = scene.url(old);
    let words = ["move", "close", "--from", &url];
    let said = scene.launches[1 - old].command(&words).await;
    assert!(said.contains("closed: the move from"), "{said}");
}

async fn checked(scene: &Scene<'_>, server: usize, relay: Relay, writers: Writers) -> Report {
    let history = writers.stop().await;
    assert!(history.len() > 500, "{}", history.len());
    relay.finish(&scene.beds[server], &history).await
}

async fn server(major: u32) -> PostgresServer {
    PostgresServer::builder().version(major).start().await.expect("PostgreSQL starts")
}

#[actix::test]
async fn rows_are_delivered_once_and_in_order_from_13_to_17_and_back_whatever_is_killed() {
    let (old, new) = (server(13).await, server(17).await);
    let scene = Scene::on(&old, &new, Source::Tables).await;
    let scene = scene.set("delivery.mode", "exactly-once");
    let relay = scene.launches[0].start().await;
    let writers = scene.writers();
    sleep(Duration::from_secs(1)).await;
    let relay = hand_over(&scene, 0, relay, &writers, Kills(true)).await;
    let relay = hand_over(&scene, 1, relay, &writers, Kills(false)).await;
    close(&scene, 1).await;
    let report = checked(&scene, 0, relay, writers).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[actix::test]
async fn messages_are_delivered_in_order_from_14_to_17() {
    let (old, new) = (server(14).await, server(17).await);
    let scene = Scene::on(&old, &new, Source::Messages).await;
    let relay = scene.launches[0].start().await;
    let writers = scene.writers();
    sleep(Duration::from_secs(1)).await;
    let relay = hand_over(&scene, 0, relay, &writers, Kills(false)).await;
    close(&scene, 0).await;
    let said = scene.launches[0].spawn().ended().await;
    assert!(said.1.contains("the relay was moved from this server"), "{said:?}");
    let report = checked(&scene, 1, relay, writers).await;
    // Nothing was killed.
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

/// As blue/green does it: another server answers under the name of the old one.
#[actix::test]
async fn a_running_relay_goes_on_when_the_new_server_takes_the_address() {
    let (old, new) = (server(14).await, server(17).await);
    let scene = Scene::on(&old, &new, Source::Messages).await;
    let folder = tempfile::tempdir().expect("a folder");
    let address = folder.path().join(".s.PGSQL.5999");
    let leads_to = |server: &PostgresServer| {
        let socket = server.socket_dir().join(format!(".s.PGSQL.{}", server.port()));
        let _ = std::fs::remove_file(&address);
        std::os::unix::fs::symlink(socket, &address).expect("a link");
    };
    leads_to(&old);
    let database = &scene.beds[0].database;
    let url =
        format!("postgresql://postgres@/{database}?host={}&port=5999", folder.path().display());
    let relay = scene.launches[0].clone().set("postgres.url", url).start().await;
    let writers = scene.writers();
    sleep(Duration::from_secs(1)).await;
    scene.step(0, &["prepare"]).await;
    writers.switch_to(1);
    scene.step(0, &["finish", "--quiet", "1"]).await;
    leads_to(&new);
    let end = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_replication";
    old.query_text("postgres", end).await.expect("the connection ends");
    let report = checked(&scene, 1, relay, writers).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[actix::test]
async fn a_late_writer_is_waited_for_and_what_it_leaves_keeps_the_slot() {
    let (old, new) = (server(14).await, server(17).await);
    let scene = Scene::on(&old, &new, Source::Tables).await;
    let same = scene.launches[0].program(&["move", "status", "--to", &scene.url(0)]);
    same.ended(LIMIT).await.expect("it ends");
    assert!(same.output().contains("are the same server"), "{}", same.output());
    let relay = scene.launches[0].start().await;
    assert!(scene.refused(0, &["finish"]).await.contains("factlib move prepare"));
    scene.step(0, &["prepare", "--dry-run"]).await;
    assert!(scene.step(0, &["status"]).await.contains("run `factlib move prepare`"));
    scene.step(0, &["prepare"]).await;
    scene.step(0, &["abort"]).await;
    assert!(scene.step(0, &["status"]).await.contains("does not exist"), "the new slot is gone");
    scene.step(0, &["prepare"]).await;

    // An open transaction commits an event only after a while.
    let mut client = scene.beds[0].client().await;
    let transaction = client.transaction().await.expect("a transaction");
    insert(&transaction, &event("open")).await;
    let finishing = scene.launches[0].program(&scene.words(0, &["finish", "--quiet", "5"]));
    said(&finishing, "is open, and may commit events").await;
    transaction.commit().await.expect("a commit");
    said(&finishing, "waiting until no event is committed").await;
    insert(&client, &event("meanwhile")).await;
    said(&finishing, "still written: 1 events").await;
    said(&finishing, "marked: ").await;
    let ended = finishing.ended(LIMIT).await.expect("it ends");
    assert!(ended.success(), "{}", finishing.output());
    relay.stop().await;

    let next = scene.launches[1].start().await;
    insert(&client, &event("afterwards")).await;
    let url = scene.url(0);
    let close_early = scene.launches[1].program(&["move", "close", "--from", &url]);
    let ended = close_early.ended(LIMIT).await.expect("it ends");
    let text = close_early.output();
    assert!(!ended.success() && text.contains("1 events were committed"), "{text}");
    let left = scene.launches[0].start().await;
    left.settled(&scene.beds[0]).await;
    left.stop().await;
    close(&scene, 0).await;
    close(&scene, 0).await;
    next.stop().await;
    let mut count = 0;
    scene.beds[1].each_record(|_| count += 1).await;
    assert_eq!(count, 3);
}

#[actix::test]
async fn a_new_server_that_logical_replication_fills_with_outbox_rows_is_refused() {
    let (old, new) = (server(14).await, server(17).await);
    let scene = Scene::on(&old, &new, Source::Tables).await;
    let relay = scene.launches[0].start().await;
    old.execute(&scene.beds[0].database, "CREATE PUBLICATION everything FOR ALL TABLES")
        .await
        .expect("a publication");
    let subscribe = format!(
        "CREATE SUBSCRIPTION copy CONNECTION '{}' PUBLICATION everything WITH (enabled = false, \
         connect = false)",
        scene.url(0)
    );
    new.execute(&scene.beds[1].database, &subscribe).await.expect("a subscription");
    // As REFRESH PUBLICATION lists it.
    let listed = "INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)
        SELECT s.oid, 'outbox_events'::regclass, 'r' FROM pg_subscription s";
    let text = format!("SET allow_system_table_mods = on; {listed}");
    new.execute(&scene.beds[1].database, &text).await.expect("a table of the subscription");
    let said = scene.refused(0, &["prepare"]).await;
    assert!(said.contains("subscription copy") && said.contains("outbox_events"), "{said}");
    relay.stop().await;
}

async fn said(program: &factlib::testing::Program, text: &str) {
    let waiting = async {
        while !program.output().contains(text) {
            assert!(program.is_running(), "{}", program.output());
            sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(LIMIT, waiting).await;
    found.unwrap_or_else(|_| panic!("it never said {text:?}: {}", program.output()));
}
