//! One backlog, read in turn by everyone who can.

use std::{
    pin::pin,
    process::Stdio,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::{sleep, timeout},
};

use crate::{
    Result,
    backlog::{Backlog, Source, Written},
    bed::distance,
    embedded::With,
    nothing,
    process::{Sampler, Usage},
    relay::{Mode, Relay},
    report::Spread,
    servers::{NAME, Servers},
    topics::{Layout, Topics},
};

/// Longer than any reader takes for its backlog on a machine that is worth measuring.
const LIMIT: Duration = Duration::from_secs(600);
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reader {
    /// `pg_recvlogical -f - | wc -c`: what one replication stream gives.
    Recvlogical,
    /// `pg_logical_slot_peek_binary_changes`, counted in the server.
    Decoding,
    /// WalReader, Decoder and Router, and lanes that drop what they get.
    Nothing,
    /// All of it, into Kafka.
    Relay,
    /// The same inside this program.
    Embedded(With),
    /// All of it, until the server has the position.
    Delivery(Mode),
    /// The same, with its broker so far away.
    Far { round_trip_ms: u64, mode: Mode },
}

impl Reader {
    pub const ALL: [Reader; 4] =
        [Reader::Recvlogical, Reader::Decoding, Reader::Nothing, Reader::Relay];

    /// Of the backlog `cost`: what costs something, against the same without.
    pub const COST: [Reader; 3] = [
        Reader::Embedded(With::Nothing),
        Reader::Embedded(With::Routes),
        Reader::Embedded(With::Handler),
    ];

    /// Of the backlogs `exactly5` and `exactly1`.
    pub const EXACTLY: [Reader; 2] =
        [Reader::Delivery(Mode::AtLeastOnce), Reader::Delivery(Mode::EXACTLY_ONCE)];

    /// Of the backlog `receipts`.
    pub const RECEIPTS: [Reader; 2] =
        [Reader::Delivery(Mode::AtLeastOnce), Reader::Delivery(Mode::WithReceipts)];

    /// Of the backlog `far`.
    pub const FAR: [Reader; 3] = [
        Reader::Far { round_trip_ms: 0, mode: Mode::AtLeastOnce },
        Reader::Far { round_trip_ms: 5, mode: Mode::AtLeastOnce },
        Reader::Far { round_trip_ms: 5, mode: Mode::EXACTLY_ONCE },
    ];

    fn suffix(self) -> &'static str {
        match self {
            Reader::Embedded(With::Routes) => "_routes",
            Reader::Embedded(With::Handler) => "_handler",
            Reader::Delivery(Mode::AtLeastOnce) => "_least",
            Reader::Delivery(Mode::WithReceipts) => "_receipts",
            Reader::Delivery(Mode::ExactlyOnce { .. }) => "_exactly",
            Reader::Far { round_trip_ms: 0, .. } => "_near",
            Reader::Far { mode: Mode::AtLeastOnce, .. } => "_far",
            Reader::Far { .. } => "_far_exactly",
            _ => "",
        }
    }

    pub fn label(self) -> &'static str {
        match self {
            Reader::Recvlogical => "(a) pg_recvlogical | wc -c",
            Reader::Decoding => "    decoding alone, in the server",
            Reader::Nothing => "(b) factlib into nothing",
            Reader::Relay => "(c) factlib into Kafka",
            Reader::Delivery(Mode::AtLeastOnce) => "(a) factlib, at least once",
            Reader::Delivery(Mode::WithReceipts) => "(b) factlib, with receipts",
            Reader::Delivery(Mode::ExactlyOnce { .. }) => "(b) factlib, exactly once",
            Reader::Far { round_trip_ms: 0, .. } => "(a) factlib, its broker near",
            Reader::Far { mode: Mode::AtLeastOnce, .. } => "(b) factlib, its broker far",
            Reader::Far { .. } => "(c) far, exactly once",
            Reader::Embedded(With::Nothing) => "(a) factlib embedded, into Kafka",
            Reader::Embedded(With::Routes) => "(b) with a [[route]] table",
            Reader::Embedded(With::Handler) => "(c) with an identity handler",
        }
    }
}

/// One reader's turn. The time is from the moment at which the slot is in use.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Run {
    pub seconds: f64,
    /// From the process's start to the time's start.
    pub start_up_s: f64,
    pub facts_per_s: f64,
    pub mb_per_s: f64,
    /// Of the reader: the relay, `pg_recvlogical`, or the session that decodes.
    pub cpu_s_per_million: f64,
    pub peak_mib: f64,
    pub walsender_cpu_s_per_million: f64,
    pub broker_cpu_s_per_million: f64,
}

#[derive(Serialize)]
pub struct Runs {
    pub reader: Reader,
    pub runs: Vec<Run>,
}

#[derive(Serialize)]
pub struct Contest {
    pub backlog: Backlog,
    /// Of a fact as a record's value.
    pub fact_bytes: usize,
    pub readers: Vec<Runs>,
}

/// A turn as it was timed.
struct Turn {
    spawned: Instant,
    begin: Instant,
    end: Instant,
    usage: Usage,
}

/// Writes the backlog, has everyone read it `repeats` times, and forgets it.
pub async fn run(
    servers: &Servers,
    backlog: Backlog,
    readers: &[Reader],
    repeats: usize,
) -> Result<Contest> {
    let written = backlog.write(servers).await?;
    let readers = readers.iter().map(|reader| Runs { reader: *reader, runs: Vec::new() });
    let mut readers: Vec<Runs> = readers.collect();
    for repeat in 0..repeats {
        // Nobody always comes first, nor always after the same one.
        for place in 0..readers.len() {
            let at = (place + repeat) % readers.len();
            let Some(Runs { reader, runs }) = readers.get_mut(at) else { continue };
            let turn = turn(servers, &written, &backlog, *reader, repeat).await;
            let turn = turn.map_err(|error| format!("{reader:?} in {}: {error}", backlog.name))?;
            runs.push(turn.figures(&backlog, &written));
        }
    }
    servers.drop_slot(&written.slot).await?;
    Ok(Contest { backlog, fact_bytes: written.fact_bytes, readers })
}

/// Has the relay read a backlog that is not counted: the broker's JVM compiles what the first
/// records need.
pub async fn warm_up(servers: &Servers, backlog: Backlog) -> Result<()> {
    let written = backlog.write(servers).await?;
    turn(servers, &written, &backlog, Reader::Relay, 0).await?;
    servers.drop_slot(&written.slot).await
}

async fn turn(
    servers: &Servers,
    written: &Written,
    backlog: &Backlog,
    reader: Reader,
    repeat: usize,
) -> Result<Turn> {
    if reader == Reader::Decoding {
        return decoding(servers, written, backlog).await;
    }
    // A name of its own: its checkpoint is under it.
    let slot = format!("{}_{repeat}{}", written.slot, reader.suffix());
    servers.copy_slot(&written.slot, &slot).await?;
    let turn = match reader {
        Reader::Relay => relay(servers, &slot, backlog, None).await?,
        Reader::Embedded(with) => relay(servers, &slot, backlog, Some(with)).await?,
        Reader::Delivery(mode) => delivered(servers, &slot, written, backlog, mode).await?,
        Reader::Far { round_trip_ms, mode } => {
            distance(servers, Duration::from_millis(round_trip_ms))?;
            delivered(servers, &slot, written, backlog, mode).await?
        }
        Reader::Nothing => into_nothing(servers, &slot, backlog).await?,
        _ => recvlogical(servers, &slot, written, backlog).await?,
    };
    servers.drop_slot(&slot).await?;
    Ok(turn)
}

async fn recvlogical(
    servers: &Servers,
    slot: &str,
    written: &Written,
    backlog: &Backlog,
) -> Result<Turn> {
    let spawned = Instant::now();
    let mut reader = Command::new(servers.postgres.program("pg_recvlogical"))
        .args(["-d", &servers.url(), "-S", slot, "--start", "--no-loop", "-f", "-"])
        .args(["-o", "proto_version=1", "-o", "messages=true"])
        .args(["-o", &format!("publication_names={NAME}")])
        .args(["--endpos", &written.end_lsn])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output: Stdio = reader.stdout.take().ok_or("no output")?.try_into()?;
    let counter = Command::new("wc").arg("-c").stdin(output).stdout(Stdio::piped()).spawn()?;
    let sampler = Sampler::start(reader.id().unwrap_or_default(), broker(servers)?);
    let ended = async {
        let status = reader.wait().await?;
        let count = counter.wait_with_output().await?;
        let end = Instant::now();
        let bytes: usize = String::from_utf8(count.stdout)?.trim().parse()?;
        if !status.success() || bytes < backlog.facts as usize * written.fact_bytes {
            return Err(format!("{status}, {bytes} bytes").into());
        }
        Ok(end)
    };
    time(servers, slot, spawned, sampler, ended).await
}

async fn decoding(servers: &Servers, written: &Written, backlog: &Backlog) -> Result<Turn> {
    let client = servers.postgres.connect(NAME).await?;
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
    let sampler = Sampler::start(pid.unsigned_abs(), broker(servers)?);
    let begin = Instant::now();
    let query = format!(
        "SELECT count(*), sum(length(data)) FROM pg_logical_slot_peek_binary_changes('{}', NULL, NULL,
         'proto_version', '1', 'publication_names', '{NAME}', 'messages', 'true')",
        written.slot
    );
    let messages: i64 = client.query_one(&query, &[]).await?.get(0);
    let end = Instant::now();
    if messages.unsigned_abs() < backlog.facts {
        return Err(format!("{messages} messages of {} facts", backlog.facts).into());
    }
    Ok(Turn { spawned: begin, begin, end, usage: sampler.usage() })
}

async fn into_nothing(servers: &Servers, slot: &str, backlog: &Backlog) -> Result<Turn> {
    let spawned = Instant::now();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--into-nothing", &servers.url(), slot, NAME, &backlog.facts.to_string()])
        .arg(match backlog.source {
            Source::Messages => "messages",
            Source::Table => "tables",
        })
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let sampler = Sampler::start(child.id().unwrap_or_default(), broker(servers)?);
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let ended = async {
        match lines.next_line().await? {
            Some(line) if line == nothing::DONE => Ok(Instant::now()),
            other => Err(format!("it ended, saying {other:?}").into()),
        }
    };
    let turn = time(servers, slot, spawned, sampler, ended).await?;
    drop(child.stdin.take());
    child.wait().await?;
    Ok(turn)
}

async fn relay(
    servers: &Servers,
    slot: &str,
    backlog: &Backlog,
    embedded: Option<With>,
) -> Result<Turn> {
    let topics = Topics::create(servers, slot, Layout::USUAL, &[]).await?;
    let spawned = Instant::now();
    let mut relay = match embedded {
        None => Relay::start(servers, slot, &topics, Mode::AtLeastOnce, backlog.source)?,
        Some(with) => Relay::embedded(servers, slot, &topics, with)?,
    };
    let sampler = Sampler::start(relay.pid, broker(servers)?);
    let ended = async {
        tokio::select! {
            filled = topics.filled(backlog.facts, LIMIT) => filled,
            error = relay.ended() => Err(error),
        }
    };
    let turn = time(servers, slot, spawned, sampler, ended).await?;
    relay.stop().await?;
    let records = topics.records().await?;
    if records != backlog.facts {
        return Err(format!("INVALID: {records} records of {} facts", backlog.facts).into());
    }
    topics.delete().await?;
    Ok(turn)
}

/// Transactions have records of their own, so the end is where the server has the position.
async fn delivered(
    servers: &Servers,
    slot: &str,
    written: &Written,
    backlog: &Backlog,
    mode: Mode,
) -> Result<Turn> {
    let topics = Topics::create(servers, slot, Layout::USUAL, &[]).await?;
    let spawned = Instant::now();
    let mut relay = Relay::start(servers, slot, &topics, mode, backlog.source)?;
    let sampler = Sampler::start(relay.pid, broker(servers)?);
    let ended = async {
        tokio::select! {
            confirmed = servers.confirmed(slot, &written.end_lsn) => confirmed,
            error = relay.ended() => Err(error),
        }
    };
    let turn = time(servers, slot, spawned, sampler, ended).await?;
    relay.stop().await?;
    let records = topics.records().await?;
    if records < backlog.facts {
        return Err(format!("INVALID: {records} records of {} facts", backlog.facts).into());
    }
    topics.delete().await?;
    Ok(turn)
}

fn broker(servers: &Servers) -> Result<u32> {
    servers.kafka.pid(1)?.ok_or_else(|| "Kafka has ended".into())
}

/// Waits for the end, and notes when the slot came into use.
async fn time(
    servers: &Servers,
    slot: &str,
    spawned: Instant,
    sampler: Sampler,
    ended: impl Future<Output = Result<Instant>>,
) -> Result<Turn> {
    let begun = async {
        loop {
            if let Some(pid) = servers.active_pid(slot).await? {
                sampler.walsender(pid);
                return Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Instant::now());
            }
            sleep(LOOK_INTERVAL).await;
        }
    };
    let mut ended = pin!(timeout(LIMIT, ended));
    let (begin, end) = tokio::select! {
        begin = begun => (begin?, ended.await??),
        // Too short to be seen.
        end = &mut ended => (spawned, end??),
    };
    Ok(Turn { spawned, begin, end, usage: sampler.usage() })
}

impl Turn {
    fn figures(&self, backlog: &Backlog, written: &Written) -> Run {
        let seconds = (self.end - self.begin).as_secs_f64();
        let millions = backlog.facts as f64 / 1e6;
        let facts_per_s = backlog.facts as f64 / seconds;
        Run {
            seconds,
            start_up_s: (self.begin - self.spawned).as_secs_f64(),
            facts_per_s,
            mb_per_s: facts_per_s * written.fact_bytes as f64 / 1e6,
            cpu_s_per_million: self.usage.cpu_s / millions,
            peak_mib: self.usage.peak_bytes as f64 / f64::from(1 << 20),
            walsender_cpu_s_per_million: self.usage.walsender_cpu_s / millions,
            broker_cpu_s_per_million: self.usage.broker_cpu_s / millions,
        }
    }
}

impl Contest {
    /// The median and the extremes of a figure.
    pub fn spread(&self, reader: Reader, figure: impl Fn(&Run) -> f64) -> Spread {
        self.runs(reader).iter().map(figure).collect()
    }

    /// How fast the reader was in terms of (a), the first one, repeat by repeat.
    pub fn ratio(&self, reader: Reader) -> Spread {
        let first = self.readers.first().map(|runs| runs.runs.as_slice()).unwrap_or_default();
        let pairs = self.runs(reader).iter().zip(first);
        pairs.map(|(run, limit)| run.facts_per_s / limit.facts_per_s).collect()
    }

    fn runs(&self, reader: Reader) -> &[Run] {
        let of_reader = self.readers.iter().find(|runs| runs.reader == reader);
        of_reader.map(|runs| runs.runs.as_slice()).unwrap_or_default()
    }

    pub fn print(&self) {
        println!(
            "| {:33} | facts/s (min – max) | MB/s | of (a) | CPU s/M | peak MiB | walsender CPU s/M | Kafka CPU s/M |",
            "reader"
        );
        println!("| {:-<33} | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", "");
        for reader in self.readers.iter().map(|runs| runs.reader) {
            let rate = self.spread(reader, |run| run.facts_per_s);
            let median = |figure: fn(&Run) -> f64| self.spread(reader, figure).median;
            println!(
                "| {:33} | {:.0} ({:.0} – {:.0}) | {:.1} | {:.2} | {:.2} | {:.1} | {:.2} | {:.2} |",
                reader.label(),
                rate.median,
                rate.min,
                rate.max,
                median(|run| run.mb_per_s),
                self.ratio(reader).median,
                median(|run| run.cpu_s_per_million),
                median(|run| run.peak_mib),
                median(|run| run.walsender_cpu_s_per_million),
                median(|run| run.broker_cpu_s_per_million),
            );
        }
    }
}
