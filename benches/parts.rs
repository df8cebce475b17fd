//! What the relay's parts cost by themselves, each beside the least it could: `make microbench`.

use std::hint::black_box;

use actix_rt::System;
use bytes::{BufMut, Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use factlib::{
    Event, Lsn,
    bench::{AckWindow, Chain, Decoding},
    config::Route,
    proto::OutboxEvent,
};
use factlib_postgres::{
    frame::{Frame, next_frame},
    pgoutput::Message,
};
use prost::Message as _;
use tokio::sync::mpsc;

const PREFIX: &str = "factlib";
/// About what fits into the default batch.
const BATCH_FACTS: usize = 500;

fn parsing(c: &mut Criterion) {
    let mut group = c.benchmark_group("parsing");
    for (shape, facts_a_transaction) in [("tx5", 5), ("tx1", 1)] {
        let frames = batch(0, BATCH_FACTS, facts_a_transaction);
        group.throughput(Throughput::Bytes(frames.len() as u64));
        let mut copy = vec![0; frames.len()];
        group.bench_function(format!("{shape}/memcpy"), |b| {
            b.iter(|| black_box(&mut copy).copy_from_slice(black_box(&frames)));
        });
        group.bench_function(format!("{shape}/frames"), |b| {
            b.iter(|| each_frame(&frames, |data| _ = black_box(data)));
        });
        group.bench_function(format!("{shape}/messages"), |b| {
            b.iter(|| each_frame(&frames, |data| _ = black_box(Message::parse(data))));
        });
        let decoding = Decoding::new(PREFIX);
        group.bench_function(format!("{shape}/events"), |b| {
            b.iter(|| decoding.decode(&frames).expect("well formed"));
        });
    }
}

fn acknowledging(c: &mut Criterion) {
    const BATCHES: u64 = 10_000;
    const IN_FLIGHT: u64 = 64;
    let mut group = c.benchmark_group("ack_window");
    group.throughput(Throughput::Elements(BATCHES));
    let mut run = |name: &str, order: fn(u64) -> u64| {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut window = AckWindow::new(Lsn::ZERO);
                for n in 0..BATCHES {
                    window.done(order(n), Some(Lsn::new(n))).expect("once each");
                }
                window.safe()
            });
        });
    };
    run("in_order", |n| n);
    run("backwards_in_groups", |n| (n / IN_FLIGHT + 1) * IN_FLIGHT - 1 - n % IN_FLIGHT);
}

fn hops(c: &mut Criterion) {
    const FACTS: usize = 20_000;
    let system = System::new();
    let mut group = c.benchmark_group("hops");
    group.throughput(Throughput::Elements(FACTS as u64));
    for batch_facts in [BATCH_FACTS, 1] {
        let batches: Vec<_> =
            (0..FACTS).step_by(batch_facts).map(|first| batch(first, batch_facts, 1)).collect();
        let decoding = Decoding::new(PREFIX);
        group.bench_function(format!("{batch_facts}_a_batch/decode_only"), |b| {
            b.iter(|| decode_all(&decoding, &batches, drop));
        });
        group.bench_function(format!("{batch_facts}_a_batch/channel"), |b| {
            b.iter(|| {
                system.block_on(async {
                    let (down, mut batch) = mpsc::unbounded_channel::<Vec<Event>>();
                    decode_all(&decoding, &batches, |events| _ = down.send(events));
                    drop(down);
                    let mut events = 0;
                    while let Some(batch) = batch.recv().await {
                        events += batch.len();
                    }
                    assert_eq!(events, FACTS);
                });
            });
        });
        // What routes cost: nothing configured, one that sends everything where it goes anyway,
        // and one that looks at every event.
        let identity = Route::default();
        let mut by_id = Route::default();
        by_id.matches.aggregate_id = Some("/^order-[0-9]+$/".into());
        for (name, routes) in
            [("actors", vec![]), ("actors_routed", vec![identity]), ("actors_by_id", vec![by_id])]
        {
            let mut chain = system.block_on(async { Chain::with_routes(PREFIX, routes) });
            group.bench_function(format!("{batch_facts}_a_batch/{name}"), |b| {
                b.iter(|| assert_eq!(system.block_on(chain.relay(&batches)), FACTS));
            });
        }
    }
}

fn decode_all(decoding: &Decoding, batches: &[Bytes], mut to: impl FnMut(Vec<Event>)) {
    for frames in batches {
        to(decoding.decode(frames).expect("well formed"));
    }
}

fn each_frame<'a>(mut bytes: &'a [u8], mut to: impl FnMut(&'a [u8])) {
    while let Ok(Some((frame, length))) = next_frame(bytes) {
        if let Frame::XLogData(wal) = frame {
            to(wal.data);
        }
        bytes = &bytes[length..];
    }
}

/// As it comes off the socket: facts of 300 B, in transactions.
///
/// The first is the `begin`-th of all: what has the position of another one is passed over.
fn batch(begin: usize, facts: usize, facts_a_transaction: usize) -> Bytes {
    let mut bytes = BytesMut::new();
    let end = begin + facts;
    for first in (begin..end).step_by(facts_a_transaction) {
        let lsn = first as u64 * 1_000;
        copy_data(&mut bytes, |b| {
            b.put_u8(b'B');
            b.put_u64(lsn + 900);
            b.put_i64(0);
            b.put_u32(7);
        });
        for n in first..(first + facts_a_transaction).min(end) {
            copy_data(&mut bytes, |b| logical(b, lsn, &fact(n)));
        }
        copy_data(&mut bytes, |b| {
            b.put_slice(b"C\0");
            b.put_u64(lsn + 900);
            b.put_u64(lsn + 990);
            b.put_i64(0);
        });
    }
    bytes.freeze()
}

fn copy_data(to: &mut BytesMut, message: impl FnOnce(&mut BytesMut)) {
    let mut data = BytesMut::new();
    message(&mut data);
    to.put_u8(b'd');
    to.put_u32(4 + 25 + data.len() as u32);
    to.put_u8(b'w');
    to.put_bytes(0, 24);
    to.put_slice(&data);
}

fn logical(to: &mut BytesMut, lsn: u64, content: &[u8]) {
    to.put_slice(b"M\x01");
    to.put_u64(lsn);
    to.put_slice(PREFIX.as_bytes());
    to.put_u8(0);
    to.put_u32(content.len() as u32);
    to.put_slice(content);
}

fn fact(n: usize) -> Vec<u8> {
    let aggregate_type = ["order", "payment", "customer"][n % 3];
    OutboxEvent {
        id: "01930000-0000-7000-8000-000000000000".into(),
        aggregate_type: aggregate_type.into(),
        aggregate_id: format!("{aggregate_type}-{n}"),
        event_type: format!("{aggregate_type}.changed"),
        payload: vec![b'x'; 300].into(),
        created_at: 1_790_000_000_000_000_000,
        ..OutboxEvent::default()
    }
    .encode_to_vec()
}

criterion_group!(parts, parsing, acknowledging, hops);
criterion_main!(parts);
