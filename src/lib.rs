//! factlib relays facts that were committed in PostgreSQL to Kafka, and loses none.
//!
//! A service writes a *fact* (a domain event) inside its own transaction, by the crate
//! `factlib-emit` (here [`emit`](mod@emit)). The relay, a [`Pipeline`], reads committed facts out of
//! the write-ahead log and produces each to Kafka: the transactional outbox,
//! without a table to poll.
//!
//! | to | see |
//! | --- | --- |
//! | write facts in a service's transactions | [`emit`](mod@emit) |
//! | run the relay as a program | the binary `factlib`: docs/getting-started.md, and `factlib --help` |
//! | run it inside an application | [Embed](#embed), [`Pipeline`] |
//! | change, split, drop or consume events | [Write your own handler](#write-your-own-handler), [`handlers`] |
//! | send them to other topics, as JSON, as CloudEvents | [Routes and formats](#routes-and-formats), [`routing`] |
//! | keep the position in a place of your own | [`checkpoint::CheckpointStore`] |
//! | know what a start would find, or what a relay does | [`doctor`], [`PipelineStatus`], [`slot`] |
//! | get at what could not be delivered, or send again | [`dead_letter`], [`replay`] |
//! | test all of it on real servers | [`testing`] (feature `test-util`) |
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
//! Supervisor: builds every actor, watches it, builds it again, drains it.
//! ```
//! Data flows down in batches, acknowledgements flow up. What is between the WAL
//! and Kafka's acknowledgement is bounded by one number, `pipeline.window`: each
//! batch holds a permit for its bytes until its last part is acknowledged, and
//! the reader does not read without one. Records are made when they are sent, and
//! the Kafka client is given at most as many bytes of them as that window has.
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
//! [`EventHandler`](handlers::EventHandler) or an actor, which stands before Kafka or in its
//! place. [`handlers`] is the guide; a whole one:
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
//! Without a word, an event of aggregate type `user` is a record of the topic `{prefix}.user`
//! with the aggregate id as key and the `OutboxEvent` as value. A [`Route`](config::Route), a
//! `[[route]]` of the file, sends what it matches elsewhere or nowhere, and a
//! [`Format`](config::Format) makes it something else; [`routing::explain()`] says of an event
//! what becomes of it:
//! ```no_run
//! use factlib::config::{Config, Format, Route};
//!
//! let mut config = Config::default();
//! config.kafka.format = Format::Json;
//! let mut audited = Route { topic: vec!["{prefix}.users".into(), "audit".into()], ..Route::default() };
//! audited.matches.aggregate_type = Some("user".into());
//! config.route.push(audited);
//! ```
//!
//! # Embed
//! A [`Pipeline`] starts inside the actix `System` that is there, that of an actix-web
//! application for one, on threads of its own; [`PipelineBuilder::start_on_own_thread`] brings a
//! `System` for programs of plain tokio or axum:
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
//! It installs no signal handler and stops no system of the application's, so that several
//! live in one process, each with a slot of its own. Of several replicas one relays; the others
//! stand by, and [`PipelineHandle::running`] waits for their turn. The [`PipelineHandle`] has the
//! status and each change of the state, pauses topics, stops the pipeline in order, and has
//! [`routes`](PipelineHandle::routes) to mount in the application's server.
//!
//! The pipeline logs to the `slog` logger of [`PipelineBuilder::logger`]; without one, to `tracing`
//! with that feature, and otherwise only warnings and errors, to stderr. With the feature `metrics`
//! it counts in the recorder of `PipelineBuilder::metrics_recorder`. A failure is an [`Error`]:
//! what happened, to what, and the remedy; its [`ErrorKind`] decides whether it is retried.
//!
//! # Where things are
//! | module | idea |
//! | --- | --- |
//! | [`emit`](mod@emit) | the client, from the crate `factlib-emit` |
//! | [`Pipeline`] | the relay as one thing: build, start, ask, stop |
//! | [`handlers`] | what an event becomes, as the user says |
//! | [`config`] | every setting, one file a section |
//! | `startup` | what has to be there, and where reading starts |
//! | `messages` | messages between actors, one file for each edge of the picture |
//! | `actors` | one room for each actor: a thin shell around plain structs |
//! | [`checkpoint`] | where positions are kept |
//! | `event` | an event as it was read |
//! | [`routing`] | routes: where an event goes, and the plan of its record |
//! | `record` | records, names of topics, and how a client answers |
//! | `format` | what its record is made of, one file a format |
//! | `schema_registry` | the id of a schema before a value |
//! | [`doctor`] | whether a start would succeed, and what to do where not |
//! | [`slot`] | the slot as an operator sees it: shown, dropped, advanced |
//! | [`tail`] | events as they are committed, for whoever watches |
//! | [`dead_letter`] | what can't be delivered: parked, read, sent again |
//! | `outbox` | tables whose rows are events |
//! | [`replay`] | facts of the past, sent again from a table |
//! | [`postgres`] | rules and logs for the client of the crate `factlib-postgres` |
//! | `kafka` | the client: producer, reader, topics |
//! | `exactly_once` | Kafka transactions with the position in them |
//! | `status` | what a pipeline is doing, counted and shown |
//! | [`proto`] | the event on the wire, from the crate `factlib-emit` |
//! | [`testing`] | throwaway servers, of the crate `factlib-testing` (feature `test-util`) |
//!
//! # One direction
//! A module depends only on those to its left; the bars are for the eye.
//! ```text
//! error mistake clock faults logging record event │ format kafka │ routing config
//! │ postgres emit schema_registry checkpoint outbox dead_letter exactly_once
//! │ messages handlers status │ startup slot │ actors │ tail replay doctor ops pipeline testing
//! ```
//! - An [`Event`] knows nothing of where it goes. The router sends
//!   [`OutgoingEvent`](routing::OutgoingEvent)s, an event with a plan of its record, and the client
//!   is given records that are made as they are sent.
//! - The client of Kafka and the routing take settings of their own, and stand to the left of the
//!   configuration, which makes these settings and has the routing check its routes. The client
//!   reports to an observer, which the status is.
//! - Exactly-once stands apart from the client: it needs the configuration and the checkpoint.
//!
//! So do the crates of the workspace:
//! ```text
//! factlib-architecture factlib-testing factlib-postgres factlib-emit factlib-kafka factlib
//! ```
//! `make lint` holds both orders, and `make test` does.
//!
//! # Features
//! | feature | adds |
//! | --- | --- |
//! | `cli` (default) | the binary, configuration from files and the environment |
//! | `demo` (default) | `factlib demo`, with `test-util` |
//! | `deadpool`, `sqlx`, `diesel-async` | the client in transactions of these |
//! | `opentelemetry` | facts belong to the trace that is current |
//! | `tracing` | log lines go to `tracing`, see [`TracingDrain`] |
//! | `metrics` | a recorder of the crate `metrics` gets what `/metrics` has |
//! | `client-kafka` | `kafka.client = "kafka"`, for brokers before 4.0 without librdkafka |
//! | `schema-registry` (in `cli`) | the formats `confluent-…`, by an HTTP client |
//! | `test-util` | [`testing`] |
//! | `faults` | `test-util`, and faults put into a pipeline: for tests, never for production |

#![deny(unsafe_code)]
// What is public may grow: a field or a variant more breaks no user.
#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

mod actors;
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
mod format;
pub mod handlers;
mod kafka;
mod logging;
mod messages;
mod mistake;
mod ops;
mod outbox;
mod pipeline;
// The messages of a protocol, which does not change.
#[allow(clippy::exhaustive_enums, clippy::exhaustive_structs)]
pub mod postgres;
mod record;
pub mod replay;
pub mod routing;
mod schema_registry;
pub mod slot;
mod startup;
mod status;
pub mod tail;
#[cfg(feature = "test-util")]
pub mod testing;

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
    messages::{AckToken, Refused, TopicBatch},
    ops::Routes,
    pipeline::{Pipeline, PipelineBuilder, PipelineHandle},
    startup::{SetupReport, setup, setup_sql},
    status::{
        ActorState, ActorStatus, BlockedBy, BrokerStatus, KafkaStatus, Lag, PipelineState,
        PipelineStatus, PublicationProblem, TopicStatus, UnpublishedRows,
    },
};
pub use factlib_postgres::{Lsn, ParseLsnError};

/// Parts for the binary `factlib`, which is a crate of its own. No public API: any release may
/// change or remove them.
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod binary {
    pub use crate::config::{
        load::{Loaded, Loader, Sourced},
        manual::{example, markdown},
        reference::{Kind, Setting, settings},
    };

    /// The version of the librdkafka that is built in.
    pub fn librdkafka_version() -> String {
        let (_, text) = rdkafka::util::get_rdkafka_version();
        text
    }
}

/// The README's examples, compiled by the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The handler of the page on handlers.
#[cfg(doctest)]
#[doc = include_str!("../docs/handlers.md")]
struct Handlers;

/// Examples of the page on embedding.
#[cfg(doctest)]
#[doc = include_str!("../docs/embedding.md")]
struct Embedding;
