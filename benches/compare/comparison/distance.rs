//! How long an event takes at a steady rate, by the distance of the broker.

use std::{collections::HashMap, fmt, time::Duration};

use super::{
    drain::{slot_name, topics},
    emit::{Emission, Load},
    event::templates,
    follow::{Delivery, Follower},
    peer::Installation,
    relay::Relay,
    servers::{distant, set_round_trip},
};
use crate::support::{Result, process::cpu_s, quantiles::Quantiles, servers::Servers};

/// Events a second.
pub const RATE: u64 = 1_000;
/// Round trips to the broker, beside the machine's own.
pub const ROUND_TRIPS_MS: [u64; 3] = [0, 1, 5];
/// The start of a load, which is not counted.
const SETTLING: Duration = Duration::from_secs(1);
/// Time without any progress after which the rest counts as missing.
const PATIENCE: Duration = Duration::from_secs(30);

/// The figures at one distance.
#[derive(Clone, Copy, Debug)]
pub struct Distance {
    pub round_trip_ms: u64,
    /// From the INSERT to the server's answer.
    pub to_commit: Quantiles,
    /// From the INSERT to the broker's append, or, in transactions, to a consumer's receipt.
    pub to_arrival: Quantiles,
    /// Of its process.
    pub cpu_s_per_million: f64,
}

/// The figures at all distances, in their order.
#[derive(Clone, Debug)]
pub struct Distances(pub Vec<Distance>);

impl fmt::Display for Distances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Distance { round_trip_ms, to_commit, to_arrival, cpu_s_per_million } in &self.0 {
            write!(
                f,
                "\n  at {round_trip_ms} ms: arrival p50 {:.1} ms, p99 {:.1} ms (commit {:.1}, {:.1}), \
                 {cpu_s_per_million:.0} CPU s per million",
                to_arrival.p50_ms, to_arrival.p99_ms, to_commit.p50_ms, to_commit.p99_ms
            )?;
        }
        Ok(())
    }
}

/// Lets one process of it run through a load to get warm, and then one at each distance.
pub async fn measure(
    servers: &Servers,
    installation: &Installation,
    run: u64,
    seconds: u64,
) -> Result<Distances> {
    let slot = slot_name(installation.peer, "distance");
    servers.create_slot(&slot).await?;
    let topics = topics(servers, &slot).await?;
    let relay = Relay::start(servers, installation, &slot, &distant(servers))?;
    relay.reads(servers).await?;
    let follower = Follower::start(servers, &topics, run)?;
    let templates = templates();
    let events = RATE * seconds;
    let load = Load {
        source: installation.peer.source(),
        run,
        templates: &templates,
        first: 0,
        events,
        per_s: RATE,
    };
    let mut phases = Vec::new();
    for (count, round_trip_ms) in [0].into_iter().chain(ROUND_TRIPS_MS).enumerate() {
        set_round_trip(servers, Duration::from_millis(round_trip_ms))?;
        let before = cpu_s(relay.pid()).unwrap_or_default();
        let emissions = Load { first: events * count as u64, ..load }.run(servers).await?;
        let all = events as usize * (count + 1);
        if !follower.saw(all, PATIENCE).await {
            return Err(format!("not all came at {round_trip_ms} ms").into());
        }
        let cpu = cpu_s(relay.pid()).unwrap_or_default() - before;
        // The first one is the warm-up.
        if count > 0 {
            phases.push((round_trip_ms, emissions, cpu * 1e6 / events as f64));
        }
    }
    set_round_trip(servers, Duration::ZERO)?;
    relay.stop().await?;
    let records = follower.finish().await?;
    topics.delete().await?;
    servers.drop_slot(&slot).await?;
    let arrived = arrivals(&records, installation.peer.is_transactional());
    let distances = phases.into_iter().map(|(round_trip_ms, emissions, cpu_s_per_million)| {
        let (to_commit, to_arrival) = quantiles(&emissions, &arrived);
        Distance { round_trip_ms, to_commit, to_arrival, cpu_s_per_million }
    });
    Ok(Distances(distances.collect()))
}

/// Returns when the first record of each event counted for a consumer, in Unix nanoseconds: when the
/// broker had appended it, or, in transactions, when a consumer of committed records had it. The
/// broker's time stamp is cut to milliseconds: the middle of that millisecond is meant.
fn arrivals(records: &[Delivery], is_transactional: bool) -> HashMap<u64, i64> {
    let mut arrived = HashMap::new();
    for Delivery { number, appended_ms, received_ns } in records {
        let ns = if is_transactional { *received_ns } else { appended_ms * 1_000_000 + 500_000 };
        arrived.entry(*number).or_insert(ns);
    }
    arrived
}

fn quantiles(emissions: &[Emission], arrived: &HashMap<u64, i64>) -> (Quantiles, Quantiles) {
    let begin = emissions.iter().map(|emission| emission.sent_ns).min().unwrap_or_default();
    let settled = begin + i64::try_from(SETTLING.as_nanos()).unwrap_or_default();
    let counted = || emissions.iter().filter(|emission| emission.sent_ns >= settled);
    let to_commit = counted().filter_map(|one| Some(one.committed_ns? - one.sent_ns));
    let to_arrival = counted().filter_map(|one| Some(arrived.get(&one.number)? - one.sent_ns));
    (Quantiles::of(to_commit.collect()), Quantiles::of(to_arrival.collect()))
}
