//! A relay that runs, and is started again when it ends: what systemd or Kubernetes does.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use factlib::testing::Program;
use tempfile::TempDir;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::peer::Installation;
use crate::support::{Result, servers::Servers};

/// Pause before it is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// After so many ends by itself it is given up.
const MOST_ENDS: usize = 10;
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Ends before it ever read its slot, after which it is given up.
const MOST_ENDS_AT_START: usize = 3;
/// Time limit of its start, until it reads the slot.
const START_LIMIT: Duration = Duration::from_secs(90);
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

enum Order {
    Kill,
    Stop,
}

/// A relay that runs.
pub struct Relay {
    orders: mpsc::Sender<Order>,
    observed: Arc<Observed>,
    keeper: JoinHandle<Result<()>>,
    slot: String,
}

/// What a relay's keeper tells.
#[derive(Default)]
struct Observed {
    pid: AtomicU32,
    /// Ends that nobody ordered.
    ends: AtomicUsize,
}

/// What is started, each time.
struct Command {
    program: PathBuf,
    args: Vec<String>,
    /// Settings, and what a relay keeps in files.
    _folder: TempDir,
}

impl Relay {
    /// Starts it on this slot; its topics have the slot's name.
    pub fn start(
        servers: &Servers,
        installation: &Installation,
        slot: &str,
        brokers: &str,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("factlib-compare-").tempdir()?;
        let (program, args) = installation.command(servers, slot, brokers, folder.path())?;
        let command = Command { program, args, _folder: folder };
        let (orders, received) = mpsc::channel(1);
        let observed = Arc::new(Observed::default());
        let first = command.start(&observed)?;
        let keeper = tokio::spawn(keep(command, first, received, Arc::clone(&observed)));
        Ok(Relay { orders, observed, keeper, slot: slot.to_owned() })
    }

    /// Returns the id of its present process.
    pub fn pid(&self) -> u32 {
        self.observed.pid.load(Relaxed)
    }

    /// Returns how often it ended by itself.
    pub fn ends(&self) -> usize {
        self.observed.ends.load(Relaxed)
    }

    /// Waits until it reads its slot, and returns the server's process for it.
    pub async fn reads(&self, servers: &Servers) -> Result<u32> {
        let reads = async {
            loop {
                if self.keeper.is_finished() {
                    return Err("it ended".into());
                }
                if self.ends() >= MOST_ENDS_AT_START {
                    return Err(format!("it ended {} times at its start", self.ends()).into());
                }
                if let Some(pid) = servers.active_pid(&self.slot).await? {
                    return Ok(pid);
                }
                sleep(LOOK_INTERVAL).await;
            }
        };
        let waited = timeout(START_LIMIT, reads).await;
        waited.map_err(|_| format!("it does not read its slot after {START_LIMIT:?}"))?
    }

    /// Waits for its last end, which is a failure.
    pub async fn given_up(&mut self) -> Box<dyn std::error::Error + Send + Sync> {
        match (&mut self.keeper).await {
            Ok(Ok(())) => "it was stopped".into(),
            Ok(Err(error)) => error,
            Err(error) => error.into(),
        }
    }

    /// Kills it (SIGKILL); it is started again after a pause.
    pub async fn kill(&self) {
        self.orders.send(Order::Kill).await.ok();
    }

    /// Has it end in order (SIGTERM).
    pub async fn stop(self) -> Result<()> {
        self.orders.send(Order::Stop).await.ok();
        self.keeper.await?
    }
}

impl Command {
    fn start(&self, observed: &Observed) -> Result<Program> {
        let program = Program::start(&self.program, &self.args, &[])?;
        observed.pid.store(program.pid(), Relaxed);
        Ok(program)
    }
}

/// Keeps a relay running until it is told to stop.
async fn keep(
    command: Command,
    mut program: Program,
    mut orders: mpsc::Receiver<Order>,
    observed: Arc<Observed>,
) -> Result<()> {
    loop {
        let order = tokio::select! {
            order = orders.recv() => order.unwrap_or(Order::Stop),
            () = ended(&program) => {
                if observed.ends.fetch_add(1, Relaxed) + 1 >= MOST_ENDS {
                    return Err(format!("it ended {MOST_ENDS} times: {}", tail(&program)).into());
                }
                sleep(RESTART_PAUSE).await;
                program = command.start(&observed)?;
                continue;
            }
        };
        match order {
            Order::Kill => {
                program.kill();
                ended(&program).await;
                sleep(RESTART_PAUSE).await;
                program = command.start(&observed)?;
            }
            Order::Stop => {
                program.terminate();
                let status = program.ended(STOP_LIMIT).await;
                if status.is_none() {
                    program.kill();
                    ended(&program).await;
                }
                if !status.is_some_and(|status| status.success()) {
                    println!("  it was stopped, and ended with {status:?}: {}", tail(&program));
                }
                return Ok(());
            }
        }
    }
}

async fn ended(program: &Program) {
    while program.ended(Duration::from_secs(3_600)).await.is_none() {}
}

/// Returns the last lines that it printed.
fn tail(program: &Program) -> String {
    let output = program.output();
    let lines: Vec<&str> = output.lines().rev().take(3).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("; ")
}
