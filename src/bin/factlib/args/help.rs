//! Help texts after the flags: details, examples and exit codes.

pub const AFTER_HELP: &str = "\
Settings come from factlib.toml, .env, environment and flags; later ones win: factlib config.

Examples:
  factlib init            writes factlib.toml for your servers

Exit codes:
  0 stopped as asked   1 defect or protocol   2 configuration   3 PostgreSQL   4 Kafka
  5 position lost   6 checkpoint store   7 stopped before all was delivered (none is lost)";

pub const RUN_HELP: &str = "\
SIGTERM, SIGINT or SIGHUP stops it in order: events in flight are delivered and the
position is saved, within pipeline.drain_timeout. A second signal ends it at once; events
in flight are then sent again at the next start. With fleet.pipelines, it runs a pipeline
for each file of that folder, and SIGHUP reads the folder again. With fleet.group, it
shares them with other instances: see docs/fleet.md.

Examples:
  factlib run
  factlib run --config /etc/factlib.toml --log-level debug
  MASTER_DATABASE_URL=postgresql://relay@db/shop KAFKA_BROKERS=kafka:9092 factlib run

Exit codes: those of factlib --help.";

pub const SETUP_HELP: &str = "\
Examples:
  factlib setup --postgres-url postgresql://postgres@db/shop
  factlib setup --dry-run | psql shop
  factlib setup --outbox-table --sql-functions
  factlib setup --outbox-table=sales.outbox
  factlib setup --accept-position     after a start was refused because facts may be missing

Exit codes: those of factlib --help; 5 if facts may be missing and that was not accepted.";

pub const EMIT_HELP: &str = "\
Prints the event's id. With --stdin, each line of standard input is a JSON object:
  {\"aggregate_type\":\"user\",\"aggregate_id\":\"u1\",\"event_type\":\"user.created\",
   \"payload\":{\"a\":1},\"metadata\":{\"k\":\"v\"}}
The payload is any JSON, or payload_base64; id, trace_id and span_id are optional.

Examples:
  factlib emit --aggregate-type user --aggregate-id u1 --event-type user.created \\
      --payload '{\"a\":1}' --metadata tenant=7
  factlib emit --aggregate-type doc --aggregate-id d1 --event-type doc.stored --payload-file doc.bin
  factlib emit --stdin --batch 1000 < facts.jsonl

Exit codes:
  0 committed     2 configuration, or an invalid fact or line     3 PostgreSQL";

#[cfg(feature = "demo")]
pub const DEMO_HELP: &str = "\
Starts a throwaway PostgreSQL and a fake Kafka broker, emits facts, relays them, reads them back
and checks each one. It needs PostgreSQL's programs, and ignores configuration files and the
environment. In a terminal, b stops and restarts the broker, space removes the time limit, q ends.

--postgres-url and --brokers name servers of yours to use instead. The demo says what it makes
there (a slot, a publication, three topics), asks, and removes it at its end. Passwords come from
the environment or the configuration file.

Examples:
  factlib demo --rate 5000 --seconds 60
  factlib demo --postgres postgresql://postgres@db/shop --kafka kafka:9092

Exit codes: those of factlib --help; 1 if a fact was lost, altered, out of order, or delivered
though rolled back.";

pub const ROUTE_HELP: &str = "\
Prints the [[route]] that matches an event and the records that the event becomes: topic,
key, partition, format, headers and value. It connects to nothing. Without --aggregate-type,
it reads events from standard input, one JSON object per line, as `factlib emit --stdin` does.

Examples:
  factlib route --aggregate-type order --event-type order.placed --aggregate-id 7
  factlib route --aggregate-type order --metadata tenant=acme --payload '{\"a\":1}'
  factlib route < facts.jsonl

Exit codes:
  0 explained     2 configuration, or a line that is not an event";

pub const CONFIG_HELP: &str = "\
Every command has flags for some settings: --postgres-url --slot --publication --prefix --brokers
--topic-prefix --log-level --log-format.

Examples:
  factlib config                      the configuration in effect, with the source of each value
  factlib config --reference          every setting, as a Markdown table
  factlib config --example > factlib.toml

Exit codes:
  0 printed     2 error in the configuration";
