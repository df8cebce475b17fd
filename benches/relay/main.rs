//! The relay against what one replication slot gives, on real servers: `make bench`.
//!
//! For each backlog, in one run and interleaved: `pg_recvlogical | wc -c`, decoding
//! alone inside the server, reader and decoder into nothing, the whole relay into
//! Kafka. Each reads the same backlog, through a copy of one slot. Absolute numbers
//! are the machine's; the ratios of one run are what counts. With `BACKLOG=cost`, what routes and
//! a handler cost: the relay inside this program, plain and with each of them.

#[path = "../support/mod.rs"]
mod support;

mod backlog;
mod bed;
mod contest;
mod embedded;
mod latency;
mod nothing;
mod relay;
mod report;

use std::{env, path::PathBuf, str::FromStr};

use clap::Parser;

use self::{
    backlog::Backlog,
    contest::Reader,
    relay::Mode,
    report::Report,
    support::{Result, process, quantiles, servers, topics},
    topics::Layout,
};

/// The relay's benchmark. REPEATS (3), FACTS (1000000) and BACKLOG (all; names by
/// commas, also `latency` and `idle`, `cost`, `exactly`, `receipts` and `distance`, which are not in
/// all) scale it.
#[derive(Parser)]
struct Args {
    /// Where the JSON goes as well
    #[arg(long)]
    json: Option<PathBuf>,
    /// What `cargo bench` says; without it (`cargo test --all-targets`) nothing is run
    #[arg(long, hide = true)]
    bench: bool,
    /// Be a relay into nothing: URL, slot, prefix, facts, `messages` or `tables`
    #[arg(long, hide = true, num_args = 5)]
    into_nothing: Option<Vec<String>>,
    /// Be a relay inside this program: URL, slot, brokers, prefix of topics, with what
    #[arg(long, hide = true, num_args = 5)]
    embedded: Option<Vec<String>>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(relay) = &args.into_nothing {
        return nothing::run(relay);
    }
    if let Some(relay) = &args.embedded {
        return embedded::run(relay);
    }
    if !args.bench {
        println!("not run: this is a benchmark, see `make bench`");
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(bench(&args))
}

async fn bench(args: &Args) -> Result<()> {
    let repeats: usize = setting("REPEATS", 3)?;
    let facts: u64 = setting("FACTS", 1_000_000)?;
    let only = env::var("BACKLOG").unwrap_or_default();
    let named = |name: &str| only.split(',').any(|one| one == name);
    let wanted = |name: &str| only.is_empty() || only == "all" || named(name);

    let servers = bed::start().await?;
    let mut report = Report::new(&servers, repeats).await?;
    let backlogs = Backlog::all(facts);
    let needs_warmth =
        |name| wanted(name) || named("cost") || named("exactly") || named("receipts");
    if backlogs.iter().any(|backlog| needs_warmth(backlog.name)) {
        contest::warm_up(&servers, Backlog::warm_up(facts)).await?;
    }
    for backlog in backlogs {
        if wanted(backlog.name) {
            let contest = contest::run(&servers, backlog, &Reader::ALL, repeats).await?;
            contest.print();
            report.contests.push(contest);
        }
    }
    if named("cost") {
        let backlog = Backlog::cost(facts);
        let contest = contest::run(&servers, backlog, &Reader::COST, repeats).await?;
        contest.print();
        report.contests.push(contest);
    }
    if named("receipts") {
        let backlog = Backlog::receipts(facts);
        let contest = contest::run(&servers, backlog, &Reader::RECEIPTS, repeats).await?;
        contest.print();
        report.contests.push(contest);
    }
    if named("exactly") {
        for backlog in Backlog::exactly(facts) {
            let contest = contest::run(&servers, backlog, &Reader::EXACTLY, repeats).await?;
            contest.print();
            report.contests.push(contest);
        }
        for interval_ms in [0, 20, 50, 200] {
            let mode = Mode::ExactlyOnce { interval_ms };
            let latency = latency::measure(&servers, 1_000, mode, Layout::USUAL, 0).await?;
            latency.print();
            report.latencies.push(latency);
        }
    }
    if wanted("latency") {
        for per_s in [1_000, 5_000] {
            let latency =
                latency::measure(&servers, per_s, Mode::AtLeastOnce, Layout::USUAL, 0).await?;
            latency.print();
            report.latencies.push(latency);
        }
    }
    if named("distance") {
        let distant = bed::start_distant().await?;
        for layout in Layout::WIDE {
            for (round_trip_ms, per_s) in
                [(1, 1_000), (1, 5_000), (5, 1_000), (5, 5_000), (20, 1_000), (20, 5_000)]
            {
                let mode = Mode::AtLeastOnce;
                let latency =
                    latency::measure(&distant, per_s, mode, layout, round_trip_ms).await?;
                latency.print();
                report.latencies.push(latency);
            }
        }
        let mode = Mode::EXACTLY_ONCE;
        let latency = latency::measure(&distant, 1_000, mode, Layout::USUAL, 5).await?;
        latency.print();
        report.latencies.push(latency);
        let contest = contest::run(&distant, Backlog::far(facts), &Reader::FAR, repeats).await?;
        contest.print();
        report.contests.push(contest);
    }
    if wanted("idle") {
        let percent = latency::idle_cpu_percent(&servers).await?;
        println!("\nidle: {percent:.2} % of a core");
        report.idle_cpu_percent = Some(percent);
    }
    report.judge();
    report.write(args.json.as_deref())
}

/// A number from the environment; empty counts as not set.
fn setting<T: FromStr>(name: &str, default: T) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    match env::var(name).ok().filter(|text| !text.is_empty()) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|error| format!("{name}={text}: {error}").into()),
    }
}
