//! Facts that wait in the WAL: emitted by the server itself, from templates, as messages or as rows.

use std::time::Instant;

use factlib::proto::OutboxEvent;
use futures_util::future::try_join_all;
use prost::Message;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    Result,
    quantiles::now_ns,
    servers::{NAME, Servers},
    topics::Layout,
};

/// Different facts; the WAL holds them over and over.
const TEMPLATES: usize = 1_000;
/// The name of the backlog that is read by relays alone.
pub const COST: &str = "cost";
/// What the names of those begin with that show what exactly-once costs.
pub const EXACTLY: &str = "exactly";
/// The name of the backlog that shows what receipts cost.
pub const RECEIPTS: &str = "receipts";
/// The name of the backlog that is drained to a near and to a distant broker.
pub const FAR: &str = "far";

/// Where the facts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Logical messages.
    Messages,
    /// Rows of `outbox_events`.
    Table,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Backlog {
    pub name: &'static str,
    pub source: Source,
    pub facts: u64,
    pub payload_bytes: usize,
    pub facts_a_transaction: u64,
}

/// A backlog that is there: what is needed to read it, and to know when it was read.
pub struct Written {
    pub slot: String,
    /// All of it is committed before this position, and something follows it.
    pub end_lsn: String,
    /// Of a fact as a record's value.
    pub fact_bytes: usize,
}

impl Backlog {
    /// Those of `make bench`, where `facts` are a million.
    pub fn all(facts: u64) -> [Backlog; 5] {
        let whole = |facts: u64| (facts / 5).max(1) * 5;
        let (facts, tenth) = (whole(facts), whole(facts / 10));
        let of = |name, facts, payload_bytes, facts_a_transaction| Backlog {
            name,
            source: Source::Messages,
            facts,
            payload_bytes,
            facts_a_transaction,
        };
        [
            of("tx5", facts, 300, 5),
            of("tx1", facts, 300, 1),
            of("4k", tenth, 4096, 5),
            of("one", facts, 300, facts),
            Backlog { source: Source::Table, ..of("table", facts, 300, 1) },
        ]
    }

    /// That of `tx5`, for what costs something in the relay.
    pub fn cost(facts: u64) -> Backlog {
        let [tx5, ..] = Backlog::all(facts);
        Backlog { name: COST, ..tx5 }
    }

    /// Those of both shapes, for what exactly-once costs.
    pub fn exactly(facts: u64) -> [Backlog; 2] {
        let [tx5, tx1, ..] = Backlog::all(facts);
        [Backlog { name: "exactly5", ..tx5 }, Backlog { name: "exactly1", ..tx1 }]
    }

    /// That of `tx5`, for what receipts cost.
    pub fn receipts(facts: u64) -> Backlog {
        let [tx5, ..] = Backlog::all(facts);
        Backlog { name: RECEIPTS, ..tx5 }
    }

    /// That of `tx5`, for what the way to the broker costs.
    pub fn far(facts: u64) -> Backlog {
        let [tx5, ..] = Backlog::all(facts);
        Backlog { name: FAR, ..tx5 }
    }

    /// That of `tx5`, to warm the broker up.
    pub fn warm_up(facts: u64) -> Backlog {
        let [tx5, ..] = Backlog::all(facts);
        Backlog { name: "warm_up", ..tx5 }
    }

    pub fn describe(&self) -> String {
        let Backlog { name, source, facts, payload_bytes, facts_a_transaction } = self;
        let of = match source {
            Source::Messages => "facts",
            Source::Table => "rows of an outbox table",
        };
        format!("{name}: {facts} {of} of {payload_bytes} B, {facts_a_transaction} a transaction")
    }

    /// Makes a slot and, behind it, the backlog.
    pub async fn write(&self, servers: &Servers) -> Result<Written> {
        let begin = Instant::now();
        let slot = format!("backlog_{}", self.name);
        let fact_bytes = self.write_templates(servers).await?;
        servers.create_slot(&slot).await?;
        // A transaction has one session; the others are shared by two, one a core.
        let sessions = if self.facts_a_transaction == self.facts { 1 } else { 2 };
        let transactions = self.facts / self.facts_a_transaction;
        let shares = (0..sessions).map(|n| {
            (transactions * (n + 1) / sessions - transactions * n / sessions)
                * self.facts_a_transaction
        });
        try_join_all(shares.map(|facts| self.emit(servers, facts))).await?;
        let end_lsn = servers.text("SELECT pg_current_wal_insert_lsn()::text").await?;
        // pg_recvlogical ends at the first message behind its end.
        servers.sql.execute("SELECT pg_logical_emit_message(true, 'end', '')", &[]).await?;
        println!("\n{} (written in {:.1} s)", self.describe(), begin.elapsed().as_secs_f64());
        Ok(Written { slot, end_lsn, fact_bytes })
    }

    async fn write_templates(&self, servers: &Servers) -> Result<usize> {
        let table = "DROP TABLE IF EXISTS templates;
            CREATE TABLE templates (number bigserial PRIMARY KEY, message bytea,
                aggregate_type text, aggregate_id text, event_type text, payload bytea)";
        servers.sql.batch_execute(table).await?;
        let facts: Vec<OutboxEvent> = (0..TEMPLATES).map(|n| self.template(n)).collect();
        let messages: Vec<Vec<u8>> = facts.iter().map(OutboxEvent::encode_to_vec).collect();
        let bytes = messages.iter().map(Vec::len).sum::<usize>() / TEMPLATES;
        let column = |of: fn(&OutboxEvent) -> &str| facts.iter().map(of).collect::<Vec<_>>();
        let payloads: Vec<&[u8]> = facts.iter().map(|fact| &fact.payload[..]).collect();
        let insert =
            "INSERT INTO templates (message, aggregate_type, aggregate_id, event_type, payload)
            SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::bytea[])";
        let columns = [
            column(|fact| &fact.aggregate_type),
            column(|fact| &fact.aggregate_id),
            column(|fact| &fact.event_type),
        ];
        let [kinds, ids, types] = &columns;
        servers.sql.execute(insert, &[&messages, kinds, ids, types, &payloads]).await?;
        Ok(bytes)
    }

    fn template(&self, n: usize) -> OutboxEvent {
        let types = Layout::USUAL.aggregate_types;
        fact(types[n % types.len()], n, self.payload_bytes)
    }

    async fn emit(&self, servers: &Servers, facts: u64) -> Result<()> {
        let client = servers.postgres.connect(NAME).await?;
        let per = self.facts_a_transaction;
        let emit = match self.source {
            Source::Messages => {
                format!(
                    "lsn := pg_logical_emit_message(true, '{NAME}', messages[1 + n % {TEMPLATES}])"
                )
            }
            Source::Table => format!(
                "INSERT INTO outbox_events (id, aggregate_type, aggregate_id, event_type, payload)
                 SELECT gen_random_uuid(), aggregate_type, aggregate_id, event_type, payload
                 FROM templates WHERE number = 1 + n % {TEMPLATES}"
            ),
        };
        client.batch_execute("SET synchronous_commit = off").await?;
        client
            .batch_execute(&format!(
                "DO $$
                 DECLARE
                     messages bytea[] := (SELECT array_agg(message) FROM templates);
                     lsn pg_lsn;
                 BEGIN
                     FOR n IN 1..{facts} LOOP
                         {emit};
                         IF n % {per} = 0 THEN COMMIT; END IF;
                     END LOOP;
                 END $$"
            ))
            .await?;
        Ok(())
    }
}

/// A fact whose payload is JSON of that size: names that repeat, values that don't.
pub fn fact(aggregate_type: &str, aggregate: usize, payload_bytes: usize) -> OutboxEvent {
    let mut payload = String::from("{");
    while payload.len() < payload_bytes {
        payload += &format!("\"reference\":\"{}\",\"quantity\":{aggregate},", Uuid::now_v7());
    }
    payload.truncate(payload_bytes - 1);
    payload.push('}');
    OutboxEvent {
        id: Uuid::now_v7().to_string(),
        aggregate_type: aggregate_type.to_owned(),
        aggregate_id: format!("{aggregate_type}-{aggregate}"),
        event_type: format!("{aggregate_type}.changed"),
        payload: payload.into(),
        created_at: now_ns(),
        ..OutboxEvent::default()
    }
}
