//! A rolling restart of an application with two replicas, each a process of its own.

use std::{
    collections::HashMap,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use factlib::testing::Program;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    signal::unix::{SignalKind, signal},
};

use crate::{
    examples::embedded,
    support::{Bed, Workload, bed::LIMIT, emitters::Emitters},
};

/// The longest time without a record, or without an answer of a replica.
const GAP: Duration = Duration::from_secs(5);

/// The application: not a test, but what the test starts as a program.
#[test]
#[ignore = "run by a_rolling_restart_of_two_replicas_…"]
fn replica() {
    let variable = |name: &str| std::env::var(name).ok();
    // By hand, there is nothing to do.
    let Some(name) = variable("REPLICA_OF") else { return };
    let mut config = factlib::config::Config::default();
    config.postgres.url = variable("REPLICA_URL").expect("given").into();
    config.postgres.slot = name.clone();
    config.postgres.publication = name.clone();
    config.postgres.message_prefix = name;
    config.kafka.brokers = vec![variable("REPLICA_BROKERS").expect("given")];
    config.kafka.topics.partitions = Some(crate::support::bed::PARTITIONS);
    config.pipeline.startup_timeout = LIMIT;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("listening on {}.", listener.local_addr().expect("bound"));
    actix_rt::System::new().block_on(async {
        let mut terminated = signal(SignalKind::terminate()).expect("a signal");
        let stop = async {
            terminated.recv().await;
        };
        embedded::serve(config, listener, stop).await.expect("a clean stop");
    });
}

/// A replica, and who asks it all the time.
struct Replica {
    program: Program,
    address: String,
    in_service: Arc<AtomicBool>,
    /// Gives the longest time without an answer.
    asking: tokio::task::JoinHandle<Duration>,
}

impl Replica {
    /// Starts one, and waits until it answers: it is in service then.
    async fn start(bed: &Bed<'_>) -> Self {
        let arguments = ["--exact", "replicas::replica", "--ignored", "--nocapture"];
        let arguments = arguments.map(str::to_owned);
        let variables = HashMap::from([
            ("REPLICA_OF", bed.name.clone()),
            ("REPLICA_URL", bed.postgres.url_for(&bed.database)),
            ("REPLICA_BROKERS", bed.kafka.bootstrap()),
        ]);
        let variables: Vec<_> = variables.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let path = std::env::current_exe().expect("this test");
        let program = Program::start(&path, &arguments, &variables).expect("it starts");
        let listens = async {
            loop {
                let output = program.output();
                let address = output.split_once("listening on ").and_then(|(_, rest)| {
                    rest.split_once(".\n").map(|(address, _)| address.to_owned())
                });
                match address {
                    Some(address) if get(&address, "/").await.is_some() => break address,
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let address = tokio::time::timeout(LIMIT, listens).await.expect("it answers");
        let in_service = Arc::new(AtomicBool::new(true));
        let asking = tokio::spawn(ask(address.clone(), Arc::clone(&in_service)));
        Replica { program, address, in_service, asking }
    }

    async fn relays(&self) -> bool {
        get(&self.address, "/relay/readyz").await.is_some_and(|answer| answer.contains(" 200 "))
    }

    /// Takes it out of service and stops it, as a rolling deployment does.
    async fn stop(self) {
        self.in_service.store(false, SeqCst);
        let longest = self.asking.await.expect("no panic");
        assert!(longest < GAP, "{} did not answer for {longest:?}", self.address);
        self.program.terminate();
        let ended = self.program.ended(LIMIT).await.expect("it ends");
        assert!(ended.success(), "{}", self.program.output());
    }
}

/// The whole answer; none where there is none.
async fn get(address: &str, path: &str) -> Option<String> {
    let asking = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    };
    tokio::time::timeout(GAP, asking).await.ok().flatten()
}

async fn ask(address: String, in_service: Arc<AtomicBool>) -> Duration {
    let (mut answered, mut longest) = (Instant::now(), Duration::ZERO);
    while in_service.load(SeqCst) {
        let answer = get(&address, "/").await;
        longest = longest.max(answered.elapsed());
        if answer.is_some_and(|answer| answer.ends_with("the application")) {
            answered = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    longest
}

#[actix::test]
async fn a_rolling_restart_of_two_replicas_under_load_leaves_no_gap_and_both_answer_throughout() {
    let bed = Bed::shared("rolling").await;
    let first = Replica::start(&bed).await;
    let relaying = async {
        while !first.relays().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, relaying).await.expect("the first relays");
    let second = Replica::start(&bed).await;
    let stands_by = async {
        loop {
            let answer = get(&second.address, "/relay/readyz").await.unwrap_or_default();
            match answer.contains("active for PID") {
                true => break assert!(answer.contains(" 503 "), "{answer}"),
                false => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(LIMIT, stands_by).await.expect("the second stands by");

    let emitters = Emitters::start(&bed, &Workload::new(&bed.name, usize::MAX), 2, 200).await;
    emitters.emitted(200).await;
    let mut replicas = vec![first, second];
    for _ in 0..2 {
        // The new one is in service before the old one is not.
        replicas.push(Replica::start(&bed).await);
        replicas.remove(0).stop().await;
        let one_relays = async {
            loop {
                for replica in &replicas {
                    if replica.relays().await {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, one_relays).await.expect("another one relays");
        emitters.emitted(emitters.count() + 200).await;
    }
    let history = emitters.stop().await;
    bed.confirmed(bed.wal_end().await).await;
    for replica in replicas {
        replica.stop().await;
    }
    let mut sent = Vec::new();
    bed.each_record(|record| sent.extend(record.timestamp_ms)).await;
    sent.sort_unstable();
    let gap = sent.windows(2).map(|pair| pair[1] - pair[0]).max().expect("records");
    println!("the longest time without a record: {gap} ms");
    assert!(gap < GAP.as_millis() as i64, "nothing was sent for {gap} ms");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}
