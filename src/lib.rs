//! factlib relays facts that were committed in PostgreSQL to Kafka, and loses none.
//!
//! A service writes a *fact* (a domain event) inside its own transaction with the crate
//! `factlib-emit` (here [`emit`](mod@emit)). The relay, a [`Pipeline`], reads committed facts from
//! the write-ahead log and produces each to Kafka: a transactional outbox without a table to poll.
//!
//! | to | see |
//! | --- | --- |
//! | write facts in a service's transactions | [`emit`](mod@emit) |
//! | run the relay as a program | the binary `factlib`: docs/getting-started.md, and `factlib --help` |
//! | run it inside an application | [Embed](#embed), [`Pipeline`] |
//! | change, split, drop or consume events | [Write your own handler](#write-your-own-handler), [`handlers`] |
//! | send them to other topics, as JSON, as CloudEvents | [Routes and formats](#routes-and-formats), [`routing`] |
//! | keep the position in your own store | [`checkpoint::CheckpointStore`] |
//! | check before a start, or watch a running relay | [`doctor`], [`PipelineStatus`], [`slot`] |
//! | move the relay to another PostgreSQL server | [`server_move`] |
//! | take over from Debezium | [`takeover`] |
//! | read events that could not be delivered, or send again | [`dead_letter`], [`replay`] |
//! | find out where an event went | [`receipts`], [`audit::Trace`] |
//! | test with real servers | [`testing`] (feature `test-util`) |
//!
//! # The picture
//! ```text
//! PostgreSQL                                                                     Kafka
//!    │ replication (CopyBoth)                                                      ▲
//!    ▼                                                                             │
//! WalReader ──WalBatch──▶ Decoder ──EventBatch──▶ Router ──TopicBatch──▶ TopicProducer (one per topic)
//!    ▲                                              │ ▲                            │
//!    │ ConfirmLsn                          BatchDone│ └────────── PartDone ────────┘
//!    └────────────── Checkpointer ◀─────────────────┘
//!                         │ save
//!                         ▼
//!                  CheckpointStore (PostgreSQL table · file · memory)
//!
//! Supervisor: builds every actor, watches it, restarts it, drains it.
//! ```
//! Data flows down in batches, acknowledgements flow up. One number, `pipeline.window`, bounds the
//! events in flight between the WAL and Kafka's acknowledgement: each batch holds a permit for its
//! bytes until its last part is acknowledged, and the reader does not read without one. Records
//! are made when they are sent; the Kafka client keeps their encoded bytes until they are
//! acknowledged, once for each topic of an event.
//!
//! # The promises
//! 1. **Nothing committed is lost.** PostgreSQL is told that it may forget a
//!    position only after every event up to it is acknowledged by Kafka
//!    (`acks=all`) or parked where the operator can get it back, and after that
//!    position is saved.
//! 2. **Nothing rolled back appears.**
//! 3. **Order per aggregate.** Events of one aggregate reach one partition, in
//!    commit order and in emit order inside a transaction: the first delivery of
//!    event n comes before the first delivery of n + 1.
//! 4. **Duplicates only after a crash**, at most those in flight, each with the
//!    same event id. With [`DeliveryMode::ExactlyOnce`](config::DeliveryMode::ExactlyOnce) none,
//!    for consumers with `read_committed`.
//! 5. **Memory is bounded by configuration**, whatever the backlog, the size of a
//!    transaction or the length of an outage.
//! 6. **Failure is visible.** What the pipeline waits for is in its status.
//! 7. **An idle or unrelated database never fills its disk because of us.** With
//!    nothing in flight, the server's own position is confirmed.
//!
//! # Write your own handler
//! An event goes to its topic, unless its aggregate type has a handler: a closure, an
//! [`EventHandler`](handlers::EventHandler) or an actor, which runs before Kafka or instead of it.
//! [`handlers`] is the guide. A complete handler:
//! ```no_run
//! use factlib::{Event, Pipeline, handlers::{HandlerError, Outcome}};
//!
//! async fn only_created(event: &Event) -> Result<Outcome, HandlerError> {
//!     Ok(if event.event_type() == "user.created" { Outcome::Forward } else { Outcome::Skip })
//! }
//!
//! let builder = Pipeline::builder().handler("user", only_created);
//! ```
//!
//! # Routes and formats
//! By default, an event of aggregate type `user` becomes a record of the topic `{prefix}.user`,
//! with the aggregate id as key and the `OutboxEvent` as value. A [`Route`](config::Route), a
//! `[[route]]` of the file, sends the events it matches to other topics or drops them, and a
//! [`Format`](config::Format) changes the record; [`routing::explain()`] shows the records of an
//! event:
//! ```no_run
//! use factlib::config::{Config, Format, Route};
//!
//! let mut config = Config::default();
//! config.kafka.format = Format::Json;
//! let mut audited = Route::of("user");
//! audited.topic = vec!["{prefix}.users".into(), "audit".into()];
//! config.route.push(audited);
//! ```
//!
//! # Embed
//! A [`Pipeline`] starts on its own threads inside the application's actix `System`, such as that
//! of an actix-web application; [`PipelineBuilder::start_on_own_thread`] brings a `System` for
//! programs that use plain tokio or axum:
//! ```no_run
//! use factlib::{Pipeline, config::Config};
//!
//! # async fn relay() -> factlib::Result<()> {
//! let mut config = Config::default();
//! config.postgres.url = "postgresql://relay@db/shop".into();
//! config.kafka.brokers = vec!["kafka:9092".into()];
//! let pipeline = Pipeline::builder().config(config).start().await?;
//! // … until the application ends:
//! pipeline.shutdown().await
//! # }
//! ```
//! It installs no signal handler and never stops the application's system, so several pipelines
//! can run in one process, each with its own slot. Of several replicas, one relays; the others
//! stand by, and [`PipelineHandle::running`] waits for their turn. The [`PipelineHandle`] returns
//! the status and every change of state, pauses topics, stops the pipeline in order, and provides
//! [`routes`](PipelineHandle::routes) to mount in the application's server.
//!
//! The pipeline logs to the `slog` logger of [`PipelineBuilder::logger`]; without one, to `tracing`
//! with that feature, or else warnings and errors to stderr. With the feature `metrics` it records
//! in the recorder of `PipelineBuilder::metrics_recorder`. A failure is an [`Error`]: what
//! happened, to what, and the remedy; its [`ErrorKind`] decides whether it is retried.
//!
//! # Words
//! One word for each thing, the field's own if it has one; code, docs, logs and commits use these.
//!
//! | word | meaning |
//! | --- | --- |
//! | event | a committed fact as it was read; *fact* only where a service emits |
//! | record, record batch | data sent to Kafka; several records of one partition |
//! | batch | a piece that the reader cuts off the stream; has a sequence number and holds window bytes |
//! | topic part | the share of a batch that goes to one topic ([`TopicBatch`]) |
//! | in flight | sent and not yet acknowledged |
//! | acknowledge, refuse, retry, redrive, dead letter | as in Kafka and queues |
//! | position; saved, confirmed | an LSN (and an ordinal); in the store; told to PostgreSQL |
//! | route, plan | a rule of the configuration; its result for one event |
//! | budget: reserve, release | bounded memory |
//! | session, epoch, generation | of a Kafka producer; of one opening of a topic; of one start of the chain |
//!
//! # Where things are
//! | module | content |
//! | --- | --- |
//! | [`emit`](mod@emit) | the client, from the crate `factlib-emit` |
//! | [`Pipeline`] | the whole relay: build, start, watch, stop |
//! | [`handlers`] | handlers that users write for their events |
//! | [`config`] | every setting, one file per section |
//! | `startup` | checks and creation before reading starts, and the start position |
//! | `messages` | messages between actors, one file per edge of the picture |
//! | `actors` | one folder per actor: a thin shell around plain structs |
//! | [`checkpoint`] | stores of the position |
//! | `event` | an event as it was read |
//! | [`routing`] | routes: the topic of an event and the plan of its record |
//! | `record` | records, topic names, and a client's answers |
//! | `format` | formats of records, one file per format |
//! | `schema_registry` | schema ids in front of values |
//! | [`doctor`] | checks whether a start would succeed, with remedies |
//! | [`slot`] | the slot for operators: show, create, drop, advance |
//! | [`tail`] | events as they commit |
//! | [`server_move`] | moves the relay to another PostgreSQL server |
//! | [`takeover`] | takes over from Debezium |
//! | [`dead_letter`] | events that can't be delivered: parked, listed, redriven |
//! | [`receipts`] | where each event went: kept in a topic or a table |
//! | `outbox` | tables whose rows are events |
//! | [`replay`] | past facts, sent again from a table |
//! | [`audit`] | a table, held against the topics |
//! | [`postgres`] | retries and logs around the client of the crate `factlib-postgres` |
//! | `kafka` | sending, reading and topics, around the client of the crate `factlib-kafka` |
//! | `exactly_once` | Kafka transactions that contain the position |
//! | `status` | counters and states of a running pipeline |
//! | `https` | TLS of the HTTP clients |
//! | `java_properties` | Java's format of `.properties` files |
//! | `ops` | the HTTP server: health, metrics, status, page |
//! | `threads` | the threads that the pipelines of a fleet share |
//! | `fleet` | several pipelines in one process |
//! | [`proto`] | the event on the wire, from the crate `factlib-emit` |
//! | [`testing`] | throwaway servers, of the crate `factlib-testing` (feature `test-util`) |
//!
//! # One direction
//! A module depends only on those to its left; the bars only group them.
//! ```text
//! error mistake clock https java_properties faults logging threads record event │ format kafka │ routing config
//! │ postgres emit schema_registry checkpoint outbox dead_letter receipts exactly_once
//! │ messages handlers status │ startup slot │ actors │ tail replay audit takeover doctor server_move ops
//! pipeline fleet testing binary
//! ```
//! - An [`Event`] does not know its destination. The router sends
//!   [`OutgoingEvent`](routing::OutgoingEvent)s, an event with a plan of its record; the client
//!   makes each record when it sends it.
//! - Kafka client and routing have their own settings and stand to the left of the configuration,
//!   which fills these settings and lets the routing check its routes. The client reports to an
//!   observer, which the status implements.
//! - Exactly-once is separate from the client: it needs the configuration and the checkpoint.
//!
//! The crates of the workspace have an order too:
//! ```text
//! factlib-architecture factlib-tls factlib-kafka factlib-testing factlib-inbox factlib-postgres factlib-emit factlib
//! ```
//! `make lint` and `make test` check both orders.
//!
//! # Features
//! | feature | adds |
//! | --- | --- |
//! | `cli` (default) | the binary, configuration from files and the environment |
//! | `demo` (default) | `factlib demo`, with `test-util` |
//! | `deadpool`, `sqlx`, `diesel-async` | the client in transactions of these crates |
//! | `opentelemetry` | facts belong to the current trace |
//! | `otlp` | OpenTelemetry traces of the relay itself, exported by `factlib run` |
//! | `tracing` | log lines go to `tracing`, see [`TracingDrain`] |
//! | `metrics` | the metrics of `/metrics` also go to a recorder of the crate `metrics` |
//! | `client-kafka` | `kafka.client = "kafka"`, for brokers before 4.0 |
//! | `oauth` (default) | logins at the brokers with tokens of an OpenID provider, with an HTTP client |
//! | `schema-registry` (default) | the formats `confluent-…`, with an HTTP client |
//! | `test-util` | [`testing`] |
//! | `faults` | `test-util`, and fault injection: for tests, never for production |

#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]
// Public types may grow: another field or variant breaks no user.
#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

mod actors;
pub mod audit;
pub mod checkpoint;
mod clock;
pub mod config;
pub mod dead_letter;
pub mod doctor;
pub mod emit;
mod error;
mod event;
mod exactly_once;
mod faults;
mod fleet;
mod format;
pub mod handlers;
#[cfg(any(feature = "oauth", feature = "schema-registry"))]
mod https;
mod java_properties;
mod kafka;
mod logging;
mod messages;
mod mistake;
mod ops;
mod outbox;
mod pipeline;
// Messages of a protocol that does not change.
#[allow(clippy::exhaustive_enums, clippy::exhaustive_structs)]
pub mod postgres;
pub mod receipts;
mod record;
pub mod replay;
pub mod routing;
mod schema_registry;
pub mod server_move;
pub mod slot;
mod startup;
mod status;
pub mod tail;
pub mod takeover;
#[cfg(feature = "test-util")]
pub mod testing;
mod threads;

#[cfg(feature = "test-util")]
#[doc(hidden)]
pub use self::actors::bench;
pub use self::error::{Error, ErrorKind, Result};
#[cfg(feature = "faults")]
pub use self::faults::{FaultSite, Faults};
#[cfg(feature = "tracing")]
pub use self::logging::TracingDrain;
#[doc(inline)]
pub use factlib_emit::proto;

pub use self::{
    event::{Event, Refusal, TransactionInfo},
    fleet::{Fleet, FleetBuilder, FleetHandle},
    messages::{AckToken, Refused, TopicBatch},
    ops::{FleetRoutes, GroupStatus, MemberStatus, Routes},
    pipeline::{Pipeline, PipelineBuilder, PipelineHandle},
    startup::{SetupReport, setup, setup_sql},
    status::{
        ActorState, ActorStatus, BlockedBy, BrokerStatus, KafkaStatus, Lag, PipelineState,
        PipelineStatus, PublicationProblem, TopicStatus, UnpublishedRows,
    },
};
pub use factlib_postgres::{Lsn, ParseLsnError};

/// Parts for the binary `factlib`, which is its own crate. Not a public API: any release may change
/// or remove them.
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod binary {
    use crate::{Error, Result, config::Config, kafka};

    #[doc(inline)]
    pub use crate::fleet::{
        FleetReport, InstanceReport, PipelineReport, databases, report as fleet_report,
    };

    pub use crate::config::{
        load::{Loaded, Loader, Sourced, is_pipeline},
        manual::{example, markdown},
        reference::{Kind, Setting, settings},
    };

    /// Makes the settings of a Kafka client: addresses, TLS and login.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a login that this build has not.
    pub fn kafka_settings(config: &Config) -> Result<factlib_kafka::Settings> {
        kafka::pipelined::client_settings(&config.kafka.settings())
    }

    /// Makes an error, with its remedy, from one of a Kafka client; `what` says what was refused.
    pub fn kafka_error(config: &Config, what: &str, error: factlib_kafka::Error) -> Error {
        kafka::errors::client_error(&config.kafka.brokers.join(","), what, error)
    }
}

/// The README's examples, compiled by the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The handler on the page on handlers, compiled by the tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/handlers.md")]
struct Handlers;

/// The examples on the page on embedding, compiled by the tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/embedding.md")]
struct Embedding;
