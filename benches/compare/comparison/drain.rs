//! How fast a relay delivers a backlog, and what that costs.

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::{
    backlog::Written,
    checker::{self, Emitted, Verdict},
    follow::read_to_end,
    peer::{Installation, Peer},
    relay::Relay,
};
use crate::support::{
    Result,
    process::{Sampler, cpu_s},
    servers::Servers,
    topics::{Layout, Topics},
};

/// Longer than any relay takes for its backlog on a machine that is worth measuring.
const LIMIT: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug)]
pub struct Drain {
    pub events_per_s: f64,
    /// From the start of the process until it read its slot.
    pub start_up_s: f64,
    /// Of its process, without its start.
    pub cpu_s_per_million: f64,
    pub peak_mib: f64,
    pub verdict: Verdict,
}

impl fmt::Display for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Drain { events_per_s, start_up_s, cpu_s_per_million, peak_mib, verdict } = self;
        write!(
            f,
            "{events_per_s:.0} events/s after {start_up_s:.1} s of start, \
             {cpu_s_per_million:.1} CPU s per million, {peak_mib:.0} MiB; {verdict}"
        )
    }
}

/// Has it read a copy of the backlog's slot. The time is from the moment at which it reads the slot
/// until the topics have as many records, or, in transactions, the server has its position.
pub async fn measure(
    servers: &Servers,
    installation: &Installation,
    backlog: &Written,
) -> Result<Drain> {
    let slot = slot_name(installation.peer, "drain");
    servers.copy_slot(&backlog.slot, &slot).await?;
    let topics = topics(servers, &slot).await?;
    let spawned = Instant::now();
    let mut relay = Relay::start(servers, installation, &slot, &servers.kafka.bootstrap())?;
    let broker = servers.kafka.pid(1)?.ok_or("Kafka has ended")?;
    let sampler = Sampler::start(relay.pid(), broker);
    sampler.walsender(relay.reads(servers).await?);
    let (begin, cpu_before) = (Instant::now(), cpu_s(relay.pid()).unwrap_or_default());
    let delivered = async {
        if installation.peer.is_transactional() {
            tokio::time::timeout(LIMIT, servers.confirmed(&slot, &backlog.end_lsn)).await?
        } else {
            topics.filled(backlog.facts, LIMIT).await
        }
    };
    let end = tokio::select! {
        end = delivered => end,
        error = relay.given_up() => Err(error),
    };
    let usage = sampler.usage();
    relay.stop().await?;
    let seconds = (end? - begin).as_secs_f64();
    let records = read_to_end(servers, &topics, backlog.run).await?;
    topics.delete().await?;
    servers.drop_slot(&slot).await?;
    let numbers = records.iter().map(|record| record.number);
    Ok(Drain {
        events_per_s: backlog.facts as f64 / seconds,
        start_up_s: (begin - spawned).as_secs_f64(),
        cpu_s_per_million: (usage.cpu_s - cpu_before) * 1e6 / backlog.facts as f64,
        peak_mib: usage.peak_bytes as f64 / f64::from(1 << 20),
        verdict: checker::check(&Emitted::all(backlog.facts), numbers),
    })
}

/// Returns the name of a run's slot, which its topics have as well.
pub fn slot_name(peer: Peer, phase: &str) -> String {
    format!("{phase}_{peer:?}").to_lowercase()
}

/// Creates the topics of a run: the broker stamps each record when it appends it.
pub async fn topics(servers: &Servers, prefix: &str) -> Result<Topics> {
    let stamped = [("message.timestamp.type", "LogAppendTime")];
    Topics::create(servers, prefix, Layout::COMPARED, &stamped).await
}
