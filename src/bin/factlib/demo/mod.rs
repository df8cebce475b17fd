//! `factlib demo`: facts from a throwaway PostgreSQL to a throwaway broker, each one checked.
//!
//! The client, the pipeline and the consumer are the real ones; only the broker is
//! librdkafka's mock, which lives in this process. All facts go through the
//! [`Ledger`], which judges them by what the consumer got.

mod broker;
mod consumer;
mod keys;
mod ledger;
mod view;
mod writer;

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use actix_rt::System;
use factlib::{
    Error, ErrorKind, Pipeline, PipelineHandle, Result,
    binary::Loader,
    config::{Config, StoreKind},
    testing::{CollectedLogs, PostgresServer},
};
use slog::{Drain, Level, LevelFilter, Logger, o};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use uuid::Uuid;

use self::{
    broker::Broker,
    consumer::Consumer,
    keys::{Key, Keys},
    ledger::Ledger,
    view::{Stage, View},
    writer::Writers,
};
use crate::{
    args::{DemoArgs, SettingArgs},
    output,
    signals::Signals,
};

/// What each fact is about: aggregate types, each of which becomes a topic.
const AGGREGATE_TYPES: [&str; 3] = ["order", "payment", "user"];
/// In place of `factlib`, so that it can be seen where the topics' names come from.
const PREFIX: &str = "shop";
/// For facts that are on their way when the time is over.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(20);
/// Log lines that a failure shows.
const LINES: usize = 20;

/// The one ledger of writers, consumer and view.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Ledger>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // Whoever panicked with it has ended the demo.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub fn run(args: &DemoArgs, settings: &SettingArgs) -> Result<()> {
    let config = config(settings)?;
    let (_, lines) = CollectedLogs::logger();
    let log = LevelFilter::new(lines.clone(), Level::Warning).ignore_res();
    let result = System::new().block_on(demo(args, config, Logger::root(log, o!())));
    if result.is_err() {
        let lines = lines.lines();
        for line in lines.iter().skip(lines.len().saturating_sub(LINES)) {
            output::complain(&line.to_string());
        }
    }
    result
}

/// Flags count; files and the environment, made for real servers, do not.
fn config(settings: &SettingArgs) -> Result<Config> {
    let empty = tempfile::tempdir().map_err(|error| {
        Error::new(ErrorKind::Config, "cannot make a temporary folder").caused_by(error)
    })?;
    let loader = Loader::new(empty.path()).flag("the demo", "postgres.message_prefix", PREFIX);
    Ok(settings.flags(loader)?.load()?.config)
}

async fn demo(args: &DemoArgs, mut config: Config, log: Logger) -> Result<()> {
    let started = Instant::now();
    let postgres = PostgresServer::start().await?;
    let topics = AGGREGATE_TYPES.map(|name| format!("{}.{name}", config.topic_prefix()));
    let broker = Broker::start(&topics)?;
    config.postgres.url = postgres.url().into();
    config.kafka.brokers = vec![broker.bootstrap()];
    // The mock can't be asked what its topics take; this is what librdkafka sends at most.
    config.kafka.properties.insert("batch.size".into(), "1000000".into());
    config.checkpoint.store = StoreKind::Postgres;
    let page = serve_page(&mut config)?;
    factlib::setup(&config, false, &log).await?;
    let mut signals = Signals::new()?;
    let pipeline = Pipeline::builder().config(config.clone()).logger(log).start().await?;
    output::print(&format!(
        "PostgreSQL on port {}, a mock broker on {} and the relay are up after {:.1} s\n{page}",
        postgres.port(),
        broker.bootstrap(),
        started.elapsed().as_secs_f64()
    ))?;

    let ledger = Shared::default();
    let consumer = Consumer::start(&broker.bootstrap(), &topics, ledger.clone()).await?;
    let writers =
        Writers::start(args.rate, &config.postgres.message_prefix, &postgres, &ledger).await?;
    let (view, keys) = (View::new(), Keys::listen());
    let mut scene = Scene { view, keys, broker, pipeline, ledger, consumer, writers };
    let outcome = scene.play(args.seconds, &mut signals).await;
    let summary = scene.end().await;
    outcome?;
    summary
}

/// A port and a token for the status page, unless the flags have them; what to say of it.
fn serve_page(config: &mut Config) -> Result<String> {
    let http = &mut config.http;
    if http.metrics_port.is_none() {
        let free = TcpListener::bind((http.address, 0)).and_then(|free| free.local_addr());
        let free = free.map_err(|error| {
            Error::new(ErrorKind::Config, "there is no free port").caused_by(error)
        })?;
        http.metrics_port = Some(free.port());
    }
    let Some(port) = http.metrics_port.filter(|_| http.page) else { return Ok(String::new()) };
    let host =
        if http.address.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { http.address };
    // A token of the visitor's own is not shown. What is behind the # stays in the browser.
    let mut secret = String::new();
    if http.token.is_none() {
        let token = Uuid::now_v7().simple().to_string();
        secret = format!("#token={token}");
        http.token = Some(token.into());
    }
    Ok(format!("Status page: http://{}/{secret}\n", std::net::SocketAddr::new(host, port)))
}

/// All that runs.
struct Scene {
    view: View,
    keys: Option<Keys>,
    broker: Broker,
    pipeline: PipelineHandle,
    ledger: Shared,
    consumer: Consumer,
    writers: Writers,
}

impl Scene {
    /// Shows what happens until the time is over, then until all facts have arrived.
    async fn play(&mut self, seconds: u64, signals: &mut Signals) -> Result<()> {
        let mut tick = interval(self.view.refresh());
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let over = Instant::now().checked_add(Duration::from_secs(seconds));
        let mut over = over.filter(|_| seconds > 0);
        loop {
            tokio::select! {
                _ = tick.tick() => self.show(over)?,
                key = Keys::next(&mut self.keys) => {
                    match key {
                        Key::End => break,
                        Key::Stay => {}
                        Key::Broker => self.broker.set_up(!self.broker.is_up)?,
                    }
                    over = None;
                    self.show(over)?;
                }
                _ = signals.next() => break,
                () = until(over) => break,
                ended = self.pipeline.wait() => return ended.and(Err(early("the relay"))),
                ended = self.writers.ended() => return ended.and(Err(early("the writers"))),
            }
        }
        self.writers.stop().await?;
        self.undo()?;
        let limit = Instant::now() + ARRIVAL_LIMIT;
        let mut tick = interval(Duration::from_millis(20));
        while self.ledger.lock().on_the_way() > 0 {
            tokio::select! {
                _ = tick.tick() => {}
                _ = signals.next() => break,
                () = until(Some(limit)) => break,
                ended = self.pipeline.wait() => return ended.and(Err(early("the relay"))),
            }
        }
        self.show(None)
    }

    /// Lets what the visitor held up go on.
    fn undo(&mut self) -> Result<()> {
        for (name, topic) in self.pipeline.status().topics {
            if topic.paused {
                self.pipeline.resume_topic(name)?;
            }
        }
        if self.broker.is_up { Ok(()) } else { self.broker.set_up(true) }
    }

    fn show(&mut self, over: Option<Instant>) -> Result<()> {
        let stage = Stage {
            broker_is_up: self.broker.is_up,
            has_keys: self.keys.is_some(),
            ends_in: over.map(|over| over.saturating_duration_since(Instant::now())),
        };
        let status = self.pipeline.status();
        let ledger = self.ledger.lock();
        self.view.show(&status, &ledger, &stage)
    }

    /// Ends everything in order, and says how it went.
    async fn end(mut self) -> Result<()> {
        let stopped = self.writers.stop().await;
        let drained = self.pipeline.shutdown().await;
        // What is delivered a second time was sent before the end.
        let read = self.consumer.stop();
        let ledger = self.ledger.lock();
        self.view.summary(&ledger)?;
        stopped.and(drained).and(read)?;
        ledger.verdict()
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

fn early(who: &str) -> Error {
    Error::new(ErrorKind::ActorFailed, format!("{who} ended before the demo did"))
}
