//! A state of the world: a relay on real servers, and all that has to stay as it is meanwhile.

use std::{any::Any, net::TcpListener, time::Duration};

use factlib::{
    PipelineBuilder, PipelineHandle,
    emit::{Emitter, Fact},
    testing::{KafkaServer, PostgresServer, Proxy, shared_postgres},
};
use serde_json::Value;
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep, timeout},
};

use crate::{
    alerts::{self, Scrapes},
    answers::Answers,
    kafka,
    support::Bed,
    table::Row,
};

/// `http.stuck_after`: short, and longer than a busy machine stands still.
const STUCK_AFTER: Duration = Duration::from_secs(4);
/// How long what is well has to stay so: longer than it may stand still.
const WELL: Duration = Duration::from_secs(6);
/// Between two scrapes of a state.
const SCRAPE: Duration = Duration::from_secs(3);
/// How many scrapes of a state there may be.
const MOST_SCRAPES: usize = 6;
/// A machine that is busy needs more than a row takes.
const LIMIT: Duration = Duration::from_secs(90);
/// Nothing signals that an answer has changed: asking is what probes do.
const LOOK: Duration = Duration::from_millis(100);

/// The Kafka of all states.
async fn kafka_server() -> &'static KafkaServer {
    static SERVER: OnceCell<KafkaServer> = OnceCell::const_new();
    SERVER.get_or_init(kafka::start).await
}

/// A database, a slot and topics in these servers.
async fn bed(postgres: &'static PostgresServer) -> Bed<'static> {
    let mut bed = Bed::on(postgres, kafka_server().await, "state").await;
    bed.config.http.stuck_after = STUCK_AFTER;
    bed.config.postgres.connect_timeout = Duration::from_secs(2);
    // So that what is tried again is seen to be, between two scrapes.
    bed.config.pipeline.restart_backoff_max = Duration::from_secs(1);
    bed
}

pub struct Scene {
    pub bed: Bed<'static>,
    /// The first one is judged; all are scraped.
    instances: Vec<Instance>,
    /// What the state is made of, until it has been judged.
    keep: Vec<Box<dyn Any>>,
}

struct Instance {
    port: u16,
    before: Option<Answers>,
}

impl Scene {
    /// A database, a slot and topics, without a relay.
    pub async fn new() -> Self {
        let postgres = shared_postgres().await.expect("PostgreSQL starts");
        Scene { bed: bed(postgres).await, instances: Vec::new(), keep: Vec::new() }
    }

    /// For a state that is all of the server's.
    pub async fn on_a_server_of_its_own(&mut self) {
        // It ends with the process, as the shared one does.
        let postgres =
            Box::leak(Box::new(PostgresServer::start().await.expect("PostgreSQL starts")));
        self.bed = bed(postgres).await;
    }

    pub fn keep(&mut self, part: impl Any) {
        self.keep.push(Box::new(part));
    }

    pub fn postgres(&self) -> &'static PostgresServer {
        self.bed.postgres
    }

    /// Has the relay reach PostgreSQL through a proxy.
    pub async fn proxied(&mut self) -> Proxy {
        let server = ([127, 0, 0, 1], self.postgres().port()).into();
        let proxy = Proxy::start(server).await.expect("a proxy");
        let (address, database) = (proxy.address(), &self.bed.database);
        let url = format!("postgresql://postgres@{address}/{database}");
        self.bed.config.postgres.url = url.into();
        proxy
    }

    /// Has the relay log in as a user of its own, who owns the database.
    pub async fn with_role(&mut self) -> String {
        let (role, database) = (self.bed.name.clone(), &self.bed.database);
        let statements = format!(
            "CREATE ROLE \"{role}\" LOGIN REPLICATION; ALTER DATABASE \"{database}\" OWNER TO \"{role}\""
        );
        self.postgres().execute("postgres", &statements).await.expect("a role");
        let port = self.postgres().port();
        let url = format!("postgresql://{role}@127.0.0.1:{port}/{database}");
        self.bed.config.postgres.url = url.into();
        role
    }

    /// Starts a relay, and waits until it reads.
    pub async fn start(&mut self) -> PipelineHandle {
        self.start_with(|builder| builder).await
    }

    pub async fn start_with(
        &mut self,
        build: impl FnOnce(PipelineBuilder) -> PipelineBuilder,
    ) -> PipelineHandle {
        let handle = self.launch_with(build).await;
        self.until(|status| status["state"] == "running").await;
        let instance = self.instances.last_mut().expect("it was launched");
        instance.before = Some(Answers::of(instance.port).await);
        handle
    }

    /// Starts a relay that may not come to read.
    pub async fn launch(&mut self) -> PipelineHandle {
        self.launch_with(|builder| builder).await
    }

    async fn launch_with(
        &mut self,
        build: impl FnOnce(PipelineBuilder) -> PipelineBuilder,
    ) -> PipelineHandle {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        self.bed.config.http.health_port = Some(port);
        self.bed.config.http.metrics_port = Some(port);
        self.instances.push(Instance { port, before: None });
        let starting = build(self.bed.pipeline().as_another_process()).start_in_background();
        starting.await.expect("it is launched")
    }

    /// Commits a fact of this aggregate type.
    pub async fn emit(&self, aggregate_type: &str) {
        self.emit_large(aggregate_type, 0).await;
    }

    pub async fn emit_large(&self, aggregate_type: &str, bytes: usize) {
        let mut client = self.bed.client().await;
        let transaction = client.transaction().await.expect("a transaction");
        // What can't be compressed is as large in Kafka.
        let payload: Vec<u8> = rand::random_iter().take(bytes).collect();
        let fact = Fact::new(aggregate_type, "a1", "created").payload(payload);
        Emitter::new(self.bed.name.clone()).emit(&transaction, fact).await.expect("emitted");
        transaction.commit().await.expect("a commit");
    }

    /// Commits facts of this aggregate type until the state has been judged.
    pub async fn load(&mut self, aggregate_type: &'static str) {
        let mut client = self.bed.client().await;
        let emitter = Emitter::new(self.bed.name.clone());
        let emitting = actix_rt::spawn(async move {
            loop {
                let transaction = client.transaction().await.expect("a transaction");
                let fact = Fact::new(aggregate_type, "a1", "created");
                emitter.emit(&transaction, fact).await.expect("emitted");
                transaction.commit().await.expect("a commit");
                sleep(LOOK).await;
            }
        });
        self.keep_task(emitting);
    }

    /// Ends a task once the state has been judged.
    pub fn keep_task(&mut self, task: actix_rt::task::JoinHandle<()>) {
        self.keep(Abort(task));
    }

    /// Waits until the status of the relay fits.
    pub async fn until(&self, fits: impl Fn(&Value) -> bool) -> Value {
        let port = self.instances.last().expect("a relay").port;
        let mut last = Value::Null;
        let looking = async {
            loop {
                last = Answers::of(port).await.status;
                if fits(&last) {
                    return;
                }
                sleep(LOOK).await;
            }
        };
        let found = timeout(LIMIT, looking).await;
        found.unwrap_or_else(|_| panic!("to the end, the status was {last:#}"));
        last
    }

    /// Waits until that many events are delivered.
    pub async fn delivered(&self, events: u64) {
        self.until(|status| status["events"].as_u64() >= Some(events)).await;
    }

    /// Takes the present as the time before the state.
    pub async fn is_well(&mut self) {
        for instance in &mut self.instances {
            instance.before = Some(Answers::of(instance.port).await);
        }
    }

    /// Judges the relay that was started last, not the first.
    pub fn judge_the_last(&mut self) {
        self.instances.rotate_right(1);
    }

    /// Waits until the answers are those of the row, and holds the alerts against it. Where they
    /// are good, they have to be so all the time.
    pub async fn holds(self, row: &Row) {
        let port = self.instances[0].port;
        let deadline = Instant::now() + LIMIT;
        let well = row.healthz == Some(200);
        let mut before = Answers::of(port).await;
        loop {
            sleep(SCRAPE).await;
            let now = Answers::of(port).await;
            let wrong = now.differences(row, &before);
            if wrong.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "{}:\n{wrong:#?}\n{:#}", row.name, now.status);
            before = now;
        }
        if well {
            let until = Instant::now() + WELL;
            while Instant::now() < until {
                sleep(LOOK).await;
                let wrong = Answers::of(port).await.differences(row, &before);
                assert!(wrong.is_empty(), "{}, after it was well:\n{wrong:#?}", row.name);
            }
        }
        let mut first = Vec::new();
        for instance in &self.instances {
            first.push(Answers::of(instance.port).await);
        }
        // What a machine that is busy adds to the time of a scrape matters the less, the longer
        // the time between two of them.
        let mut left = MOST_SCRAPES;
        loop {
            sleep(SCRAPE).await;
            left -= 1;
            let scraped = Instant::now();
            let last = loop {
                let mut last = Vec::new();
                for instance in &self.instances {
                    last.push(Answers::of(instance.port).await);
                }
                let wrong = last[0].differences(row, &first[0]);
                if wrong.is_empty() {
                    break last;
                }
                // What tries again may be between two tries; what is well is well all the time.
                let may_pass = !well && scraped.elapsed() < SCRAPE;
                assert!(may_pass, "{}, after it was so:\n{wrong:#?}", row.name);
                sleep(LOOK).await;
            };
            let instances = self.instances.iter().zip(first.iter().zip(&last));
            let scrapes: Vec<_> = instances
                .map(|(instance, (first, last))| Scrapes {
                    before: instance.before.as_ref(),
                    first,
                    last,
                })
                .collect();
            match alerts::fire(&scrapes, &row.alerts) {
                Ok(()) => return,
                Err(said) => assert!(left > 0, "{}: {said}", row.name),
            }
        }
    }
}

/// A task that ends with this.
struct Abort(actix_rt::task::JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}
