# `make` lists the targets.

CARGO ?= cargo
# Seconds of `make demo`.
DEMO_SECONDS ?= 20
# Seconds per target of `make fuzz`.
FUZZ_SECONDS ?= 60

# Of `make chaos`: what it emits and when it strikes; the load of a scenario; which; a table for docs.
SEED ?= 1
SECONDS ?= 60
SCENARIO ?=
# at-least-once or exactly-once
DELIVERY ?= at-least-once
MARKDOWN ?=
# Of `make matrix`, by commas (default: 10 to 18); and WRITE=docs/postgresql.md.
VERSIONS ?=
# What `make bench` runs: how often, how much, which (tx5,tx1,4k,one,table,latency,idle; not in all: cost,exactly,receipts,distance).
REPEATS ?= 3
FACTS ?= 1000000
BACKLOG ?= all

# Relays of `make compare`, by commas (default: all), and a page that gets its tables. FACTS (500000) and SECONDS (10)
# scale it as well.
PEERS ?=
WRITE ?=

export DEMO_SECONDS REPEATS FACTS BACKLOG

.DEFAULT_GOAL := help
.PHONY: help bootstrap test screenshots chaos takeover matrix lint demo bench compare bench-emit microbench fuzz proto api doc clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

bootstrap: ## Install what the machine lacks: compiler, PostgreSQL, Java, Kafka
	@scripts/bootstrap

test: ## Run all tests, with real PostgreSQL and Kafka servers
	@scripts/bootstrap --tests
	$(CARGO) test --locked --workspace --all-features --no-fail-fast

screenshots: ## Make the pictures in docs/images, by a test of the status page
	@scripts/bootstrap --tests
	FACTLIB_SCREENSHOTS=$(CURDIR)/docs/images \
		$(CARGO) test --locked --all-features --test operate -- --exact page::live::the_page_shows_what_the_relay_says_also_while_kafka_is_away

chaos: ## Break everything around the real binary, a table row each (SEED, SECONDS, SCENARIO, DELIVERY, MARKDOWN)
	@scripts/bootstrap --tests
	@CHAOS_DELIVERY=$(DELIVERY) CHAOS_SEED=$(SEED) CHAOS_SECONDS=$(SECONDS) CHAOS_SCENARIO=$(SCENARIO) CHAOS_MARKDOWN=$(MARKDOWN) \
		$(CARGO) test --locked --all-features --test chaos -- --ignored --exact full --nocapture

takeover: ## Debezium beside the relay: equal records in all shapes (SHAPES), and its slot taken over 20 times
	@PEERS=debezium-server,kafka-connect scripts/bootstrap --compare
	$(if $(SHAPES),SHAPES=$(SHAPES)) $(CARGO) test --locked --workspace --all-features --test takeover -- --ignored --nocapture

matrix: ## The relay on every PostgreSQL from 10 to 18, a table row each (VERSIONS=10,17, WRITE=docs/postgresql.md)
	@VERSIONS=$(VERSIONS) scripts/bootstrap --matrix
	@MATRIX_VERSIONS=$(VERSIONS) MATRIX_WRITE=$(if $(WRITE),$(abspath $(WRITE))) \
		$(CARGO) test --locked --all-features --test chaos -- --ignored --exact matrix::all --nocapture

lint: ## Check format, order of modules, clippy, docs, scripts, public API and dependencies
	@scripts/bootstrap --build
	$(CARGO) fmt --check
	$(CARGO) test --quiet --locked --package factlib-architecture
	$(CARGO) clippy --locked --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --all-features
	@scripts/lint-extras

# The dev profile: at the default rate the whole demo takes a third of a core.
demo: ## Facts from a throwaway PostgreSQL to a fake Kafka, for DEMO_SECONDS (0: until Ctrl-C)
	@scripts/demo

bench: ## The relay against what one slot gives (REPEATS, FACTS, BACKLOG, JSON=path)
	@scripts/bootstrap --tests
	$(CARGO) bench --locked --all-features --bench relay -- $(if $(JSON),--json $(abspath $(JSON)))

# Empty where nobody set it: the benchmark has a default of its own.
given = $(if $(filter file,$(origin $(1))),,$($(1)))

compare: ## factlib and other relays on the same servers (FACTS, SECONDS, PEERS, WRITE=docs/comparison.md)
	@PEERS=$(PEERS) scripts/bootstrap --compare
	FACTS=$(call given,FACTS) SECONDS=$(call given,SECONDS) PEERS=$(PEERS) \
		$(CARGO) bench --locked --all-features --bench compare -- $(if $(WRITE),--write $(abspath $(WRITE)))

bench-emit: ## What it costs to emit, by driver and mode, against a bare INSERT (REPEATS)
	@scripts/bootstrap --tests
	$(CARGO) bench --locked --all-features --bench emit

microbench: ## What its parts cost by themselves
	@scripts/bootstrap --build
	$(CARGO) bench --locked --all-features --bench parts -- $(ONLY)

fuzz: ## Fuzz each target for FUZZ_SECONDS (needs nightly Rust and cargo-fuzz)
	@scripts/fuzz $(FUZZ_SECONDS)

proto: ## Generate the code of the event's schema, after a change of proto/
	@scripts/bootstrap --build
	UPDATE_PROTO=1 $(CARGO) test --locked --all-features --test offline -- --exact golden::the_committed_code_is_generated_from_the_schema

api: ## Accept what changed in the public API: writes api/*.txt
	@scripts/bootstrap --build
	@scripts/public-api --accept

doc: ## Build the documentation: the site, and the API of the library
	$(CARGO) doc --locked --workspace --no-deps --all-features
	@scripts/site

clean: ## Remove what was built; what bootstrap fetched stays
	$(CARGO) clean
