//! `factlib demo`: relays facts from a throwaway PostgreSQL to a fake broker and checks each one.
//!
//! Emitter, pipeline and consumer are the real ones; only the broker is a fake, which runs in this
//! process. The [`Ledger`] compares every emitted fact with the records that arrive.

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
    config::{Config, KafkaClient, StoreKind},
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
    view::{Controls, View},
    writer::Writers,
};
use crate::{
    args::{DemoArgs, SettingArgs},
    output,
    signals::Signals,
};

/// Aggregate types of the facts, each of which becomes a topic.
const AGGREGATE_TYPES: [&str; 3] = ["order", "payment", "user"];
/// Prefix of the topics; not `factlib`, to show that it is a setting.
const PREFIX: &str = "shop";
/// Time that outstanding facts have to arrive after the writers stopped.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(20);
/// Number of log lines that are printed after a failure.
const LOG_LINES: usize = 20;

/// The ledger that writers, consumer and view share.
#[derive(Clone, Default)]
struct SharedLedger(Arc<Mutex<Ledger>>);

impl SharedLedger {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // A panic while it was locked has ended the demo already.
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
        for line in lines.iter().skip(lines.len().saturating_sub(LOG_LINES)) {
            output::print_error(&line.to_string());
        }
    }
    result
}

/// Builds the configuration from flags only; files and the environment are for real servers.
fn config(settings: &SettingArgs) -> Result<Config> {
    let empty = tempfile::tempdir().map_err(|error| {
        Error::new(ErrorKind::Config, "cannot make a temporary folder").caused_by(error)
    })?;
    let loader = Loader::new(empty.path()).flag("the demo", "postgres.message_prefix", PREFIX);
    Ok(settings.add_to(loader)?.load()?.config)
}

async fn demo(args: &DemoArgs, mut config: Config, log: Logger) -> Result<()> {
    let started = Instant::now();
    let postgres = PostgresServer::start().await?;
    let topics = AGGREGATE_TYPES.map(|name| format!("{}.{name}", config.topic_prefix()));
    let broker = Broker::start(&topics).await?;
    config.postgres.url = postgres.url().into();
    config.kafka.brokers = vec![broker.bootstrap()];
    if !config.is_exactly_once() {
        config.kafka.client = KafkaClient::Pipelined;
    }
    config.checkpoint.store = StoreKind::Postgres;
    let page = serve_page(&mut config)?;
    factlib::setup(&config, false, &log).await?;
    let mut signals = Signals::new()?;
    let pipeline = Pipeline::builder().config(config.clone()).logger(log).start().await?;
    output::print(&format!(
        "PostgreSQL on port {}, a fake broker on {} and the relay are up after {:.1} s\n{page}",
        postgres.port(),
        broker.bootstrap(),
        started.elapsed().as_secs_f64()
    ))?;

    let ledger = SharedLedger::default();
    let consumer = Consumer::start(&broker.bootstrap(), &topics, ledger.clone()).await?;
    let writers =
        Writers::start(args.rate, &config.postgres.message_prefix, &postgres, &ledger).await?;
    let (view, keys) = (View::new(), Keys::listen());
    let mut session = Session { view, keys, broker, pipeline, ledger, consumer, writers };
    let outcome = session.run(args.seconds, &mut signals).await;
    let summary = session.end().await;
    outcome?;
    summary
}

/// Sets a port and a token for the status page unless flags set them; returns the line to print.
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
    // A token that the user set is not printed. The browser does not send what follows the #.
    let mut secret = String::new();
    if http.token.is_none() {
        let token = Uuid::now_v7().simple().to_string();
        secret = format!("#token={token}");
        http.token = Some(token.into());
    }
    Ok(format!("Status page: http://{}/{secret}\n", std::net::SocketAddr::new(host, port)))
}

/// Everything that runs during the demo.
struct Session {
    view: View,
    keys: Option<Keys>,
    broker: Broker,
    pipeline: PipelineHandle,
    ledger: SharedLedger,
    consumer: Consumer,
    writers: Writers,
}

impl Session {
    /// Runs until the time is over, then until all facts have arrived.
    async fn run(&mut self, seconds: u64, signals: &mut Signals) -> Result<()> {
        let mut tick = interval(self.view.refresh());
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let end = Instant::now().checked_add(Duration::from_secs(seconds));
        let mut end = end.filter(|_| seconds > 0);
        loop {
            tokio::select! {
                _ = tick.tick() => self.show(end)?,
                key = Keys::next(&mut self.keys) => {
                    match key {
                        Key::End => break,
                        Key::Stay => {}
                        Key::ToggleBroker => self.broker.set_up(!self.broker.is_up).await?,
                    }
                    end = None;
                    self.show(end)?;
                }
                _ = signals.next() => break,
                () = until(end) => break,
                ended = self.pipeline.wait() => return ended.and(Err(ended_early("the relay"))),
                ended = self.writers.ended() => return ended.and(Err(ended_early("the writers"))),
            }
        }
        self.writers.stop().await?;
        self.resume().await?;
        let deadline = Instant::now() + ARRIVAL_TIMEOUT;
        let mut tick = interval(Duration::from_millis(20));
        while self.ledger.lock().outstanding() > 0 {
            tokio::select! {
                _ = tick.tick() => {}
                _ = signals.next() => break,
                () = until(Some(deadline)) => break,
                ended = self.pipeline.wait() => return ended.and(Err(ended_early("the relay"))),
            }
        }
        self.show(None)
    }

    /// Resumes paused topics and restarts the broker.
    async fn resume(&mut self) -> Result<()> {
        for (name, topic) in self.pipeline.status().topics {
            if topic.paused {
                self.pipeline.resume_topic(name)?;
            }
        }
        if self.broker.is_up { Ok(()) } else { self.broker.set_up(true).await }
    }

    fn show(&mut self, end: Option<Instant>) -> Result<()> {
        let controls = Controls {
            broker_is_up: self.broker.is_up,
            has_keys: self.keys.is_some(),
            ends_in: end.map(|end| end.saturating_duration_since(Instant::now())),
        };
        let status = self.pipeline.status();
        let ledger = self.ledger.lock();
        self.view.show(&status, &ledger, &controls)
    }

    /// Ends everything in order, prints the summary and returns the verdict.
    async fn end(mut self) -> Result<()> {
        let stopped = self.writers.stop().await;
        let drained = self.pipeline.shutdown().await;
        // Duplicates were sent before the pipeline ended, so the consumer stops after it.
        let read = self.consumer.stop().await;
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

fn ended_early(part: &str) -> Error {
    Error::new(ErrorKind::ActorFailed, format!("{part} ended before the demo did"))
}
