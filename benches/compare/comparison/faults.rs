//! What a relay loses, repeats and puts out of order when things break under a steady load.

use std::{collections::HashSet, fmt, time::Duration};

use factlib::testing::StopMode;
use tokio::time::{Instant, sleep};

use super::{
    checker::{self, Emitted, Verdict},
    drain::{slot_name, topics},
    emit::{Emission, Load},
    event::templates,
    follow::{Delivery, Follower, read_to_end},
    peer::Installation,
    relay::Relay,
};
use crate::support::{Result, servers::Servers};

/// Events a second.
pub const RATE: u64 = 2_000;
/// Time without any progress after which what is missing counts as lost.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Time that a server is away.
pub const AWAY: Duration = Duration::from_secs(1);
/// Time that a relay is at work before it is killed.
const AT_WORK: Duration = Duration::from_secs(1);
/// Time for records that come a second time.
const GRACE: Duration = Duration::from_secs(3);

/// What is done to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    RelayKilled,
    BrokerKilled,
    PostgresStopped,
}

impl Fault {
    pub const ALL: [Fault; 3] = [Fault::RelayKilled, Fault::BrokerKilled, Fault::PostgresStopped];

    /// Returns the name in the tables.
    pub fn label(self) -> &'static str {
        match self {
            Fault::RelayKilled => "relay killed",
            Fault::BrokerKilled => "broker killed",
            Fault::PostgresStopped => "PostgreSQL stopped",
        }
    }

    /// Returns how often it is done during the load.
    pub fn times(self) -> u32 {
        match self {
            Fault::RelayKilled => 3,
            Fault::BrokerKilled | Fault::PostgresStopped => 2,
        }
    }

    /// Does it, and returns for how long the server was away.
    async fn strike(self, servers: &Servers, relay: &Relay) -> Result<Duration> {
        let begin = Instant::now();
        match self {
            Fault::RelayKilled => {
                // To kill it while it starts would show nothing.
                relay.reads(servers).await?;
                sleep(AT_WORK).await;
                relay.kill().await;
                return Ok(Duration::ZERO);
            }
            Fault::BrokerKilled => {
                servers.kafka.kill(1).await?;
                sleep(AWAY).await;
                servers.kafka.start_again(1).await?;
            }
            Fault::PostgresStopped => {
                servers.postgres.stop(StopMode::Immediate).await;
                sleep(AWAY).await;
                servers.postgres.start_again().await?;
            }
        }
        Ok(begin.elapsed())
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Loss {
    pub verdict: Verdict,
    /// Between two events that came for the first time, what the fault itself takes included.
    pub longest_pause_s: f64,
    /// From its stop until it served again.
    pub server_away_s: f64,
    /// Ends of the relay by itself; it was started again each time.
    pub ends: usize,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Loss { verdict, longest_pause_s, server_away_s, ends } = self;
        write!(
            f,
            "{verdict}; longest pause {longest_pause_s:.1} s (server away {server_away_s:.1} s), \
             ended by itself {ends} times"
        )
    }
}

/// Emits for so many seconds, strikes at equal intervals (the relay only once it is at work again), and
/// waits until everything has arrived, or nothing arrives any more.
pub async fn measure(
    servers: &mut Servers,
    installation: &Installation,
    fault: Fault,
    run: u64,
    seconds: u64,
) -> Result<Loss> {
    let slot = slot_name(installation.peer, fault.label()).replace(' ', "_");
    servers.create_slot(&slot).await?;
    let topics = topics(servers, &slot).await?;
    let relay = Relay::start(servers, installation, &slot, &servers.kafka.bootstrap())?;
    relay.reads(servers).await?;
    let follower = Follower::start(servers, &topics, run)?;
    let templates = templates();
    let load = Load {
        source: installation.peer.source(),
        run,
        templates: &templates,
        first: 0,
        events: RATE * seconds,
        per_s: RATE,
    };
    let strikes = async {
        let interval = Duration::from_secs(seconds) / (fault.times() + 1);
        let mut longest = Duration::ZERO;
        for _ in 0..fault.times() {
            sleep(interval).await;
            longest = longest.max(fault.strike(servers, &relay).await?);
        }
        Ok(longest)
    };
    let (emissions, away) = tokio::try_join!(load.run(servers), strikes)?;
    let emitted = emitted(&emissions);
    follower.saw(emitted.committed.len(), PATIENCE).await;
    sleep(GRACE).await;
    let ends = relay.ends();
    relay.stop().await?;
    follower.finish().await?;
    let records = read_to_end(servers, &topics, run).await?;
    servers.reconnect().await?;
    let verdict = checker::check(&emitted, records.iter().map(|record| record.number));
    topics.delete().await?;
    servers.drop_slot(&slot).await?;
    Ok(Loss {
        verdict,
        longest_pause_s: longest_pause_s(&records),
        server_away_s: away.as_secs_f64(),
        ends,
    })
}

fn emitted(emissions: &[Emission]) -> Emitted {
    let numbers = |committed: bool| {
        let found = emissions.iter().filter(move |one| one.committed_ns.is_some() == committed);
        found.map(|emission| emission.number)
    };
    Emitted { committed: numbers(true).collect(), in_doubt: numbers(false).collect() }
}

fn longest_pause_s(records: &[Delivery]) -> f64 {
    let mut seen = HashSet::new();
    let first = records.iter().filter(|record| seen.insert(record.number));
    let mut times: Vec<i64> = first.map(|record| record.appended_ms).collect();
    times.sort_unstable();
    let pauses = times.iter().zip(times.iter().skip(1)).map(|(before, after)| after - before);
    pauses.max().unwrap_or_default() as f64 / 1e3
}
