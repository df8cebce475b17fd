//! `factlib demo`: emits facts, relays them from PostgreSQL to Kafka and checks each one.
//!
//! Emitter, pipeline and consumer are the real ones. The servers are a throwaway PostgreSQL and a
//! fake broker in this process, or the user's own. The [`Ledger`] compares every emitted fact with
//! the records that arrive.

mod broker;
mod consumer;
mod keys;
mod ledger;
mod servers;
mod view;
mod writer;

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use actix_rt::System;
use factlib::{
    Error, ErrorKind, Pipeline, PipelineHandle, Result, binary::kafka_settings, config::Config,
    testing::CollectedLogs,
};
use slog::{Drain, Level, LevelFilter, Logger, o};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use uuid::Uuid;

use self::{
    consumer::Consumer,
    keys::{Key, Keys},
    ledger::Ledger,
    servers::Servers,
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
/// Time from the first fact for which latencies are not counted: programs and caches are cold.
const WARM_UP: Duration = Duration::from_millis(500);
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
    let (_, lines) = CollectedLogs::logger();
    let log = LevelFilter::new(lines.clone(), Level::Warning).ignore_res();
    let result = System::new().block_on(demo(args, settings, &Logger::root(log, o!())));
    if result.is_err() {
        let lines = lines.lines();
        for line in lines.iter().skip(lines.len().saturating_sub(LOG_LINES)) {
            output::print_error(&line.to_string());
        }
    }
    result
}

async fn demo(args: &DemoArgs, settings: &SettingArgs, log: &Logger) -> Result<()> {
    let mut servers = Servers::start(settings).await?;
    servers.agree(args, log).await?;
    // Only now: a signal ends the question as it ends any program.
    let mut signals = Signals::new()?;
    let outcome = tokio::select! {
        session = Session::start(args, &mut servers, log) => match session {
            Ok(session) => session.run_and_end(args.seconds, &mut signals).await,
            Err(error) => Err(error),
        },
        _ = signals.next() => Ok(()),
    };
    let cleaned = servers.clean(log).await;
    outcome?;
    cleaned?;
    output::print(view::NEXT_STEPS)
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
struct Session<'a> {
    view: View,
    keys: Option<Keys>,
    servers: &'a mut Servers,
    pipeline: PipelineHandle,
    ledger: SharedLedger,
    consumer: Consumer,
    writers: Writers,
}

impl<'a> Session<'a> {
    /// Starts the relay, the consumer and the writers.
    async fn start(args: &DemoArgs, servers: &'a mut Servers, log: &Logger) -> Result<Self> {
        let started = Instant::now();
        servers.make_topics().await?;
        let mut config = servers.config.clone();
        let page = serve_page(&mut config)?;
        factlib::setup(&config, false, log).await?;
        let builder = Pipeline::builder().config(config.clone()).logger(log.clone());
        let pipeline = builder.start().await?;
        let seconds = started.elapsed().as_secs_f64();
        let view = View::new(format!("{}{page}ready after {seconds:.1} s\n", servers.describe()))?;
        let ledger = SharedLedger::default();
        let settings = kafka_settings(&config)?;
        let consumer = Consumer::start(&settings, servers.topics(), ledger.clone()).await?;
        ledger.lock().measure_from(Instant::now() + WARM_UP);
        let writers = Writers::start(args.rate, &config.postgres, &ledger, log).await?;
        let keys = Keys::listen();
        Ok(Session { view, keys, servers, pipeline, ledger, consumer, writers })
    }

    /// Runs for that long, or without a limit for 0, and ends everything in order.
    async fn run_and_end(mut self, seconds: u64, signals: &mut Signals) -> Result<()> {
        let outcome = self.run(seconds, signals).await;
        let summary = self.end().await;
        outcome.and(summary)
    }

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
                        Key::ToggleBroker => match &mut self.servers.broker {
                            Some(broker) => broker.set_up(!broker.is_up).await?,
                            None => continue,
                        },
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
        match &mut self.servers.broker {
            Some(broker) if !broker.is_up => broker.set_up(true).await,
            _ => Ok(()),
        }
    }

    fn show(&mut self, end: Option<Instant>) -> Result<()> {
        let controls = Controls {
            broker_is_up: self.servers.broker.as_ref().map(|broker| broker.is_up),
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
