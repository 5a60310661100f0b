# Every command of this project; `make` alone lists them. One cargo profile (dev) serves check and test, so that the
# library and librdkafka are compiled once; only bench, demo and what ships are built with --release.

# Crash points and seeded bugs, for the tests only: one set of features, so that everything is compiled once.
TESTKIT := --features testkit

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup build fmt check python node alerts images real faults test cluster cluster-down campaign bench bench-sources demo fuzz crds deny clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: ## install what a Debian machine lacks for building and testing (first 10 to 17 minutes, most of it Kubernetes; then instant)
	@scripts/setup.sh test

build: ## the binaries, released form (cold: usually 10 minutes on two cores)
	@scripts/setup.sh build
	cargo build --release --bins

fmt: ## format the code
	cargo fmt

check: ## the fast inner loop: format, clippy, tests/it (cold: usually 4 minutes; warm: seconds)
	@scripts/setup.sh build
	cargo fmt --check
	cargo clippy --all-targets $(TESTKIT) -- -D warnings
	cargo test $(TESTKIT) --lib --bins --test it
	cargo test $(TESTKIT) --doc

python: ## contract tests of the Python runtime (usually under a minute)
	@if [ -f deploy/runtimes/python/test.sh ]; then scripts/setup.sh run && bash deploy/runtimes/python/test.sh; \
	else echo "python: this checkout has no deploy/runtimes/python"; fi

node: ## contract tests of the Node runtime (usually 2 minutes)
	@scripts/setup.sh node
	@bash deploy/runtimes/nodejs/test.sh

alerts: ## the alert rules and their tests, with promtool (seconds)
	@scripts/alerts.sh

real: setup ## the product against a real Apache Kafka and a real Kubernetes
	@echo "tests/real: real Kafka brokers and Kubernetes API servers (usually 5 to 10 minutes) …"
	cargo test $(TESTKIT) --test real

faults: setup ## crashes and outages with real Kafka, judged by an outside witness
	@echo "tests/faults: kill -9, rebalances, broken functions, outages of a cluster (usually 8 to 16 minutes) …"
	cargo test $(TESTKIT) --test faults -- --test-threads=1

test: setup deny check python node alerts real faults ## everything (cold: under 75 minutes, warm: about 30)
	@echo "test: everything passed"

cluster: ## a Kubernetes with Pods on this machine, for trying things (root; usually 10 s; eval the line it prints)
	@scripts/setup.sh test >&2
	@scripts/cluster.sh up

cluster-down: ## end it, without a trace
	@scripts/cluster.sh down

campaign: setup ## the fault tests with larger numbers (hours)
	KUBELESS_CAMPAIGN=1 cargo test --release $(TESTKIT) --test real --test faults -- --nocapture --test-threads=1

bench: ## the whole path against the limit wrk finds (usually 10 minutes; benches/README.md)
	@scripts/setup.sh bench
	cargo bench --bench pipeline

bench-sources: ## NATS, JetStream, Kinesis and HTTP against bare clients and wrk (usually 5 minutes)
	@scripts/setup.sh bench
	cargo bench --bench pipeline -- sources

demo: ## 10,000 real events, a kill -9 in the middle, nothing invoked twice (under 2 minutes after the build)
	@scripts/demo.sh

fuzz: ## each fuzz target for a minute (FUZZ_SECONDS; needs a nightly toolchain; first build usually 8 to 17 minutes)
	@scripts/fuzz.sh

images: build ## the container images, with docker, podman or buildah (usually 2 minutes after the build)
	scripts/images.sh product --programs target/release
	scripts/images.sh python
	scripts/images.sh nodejs

crds: ## write the CRDs anew from the Rust types
	UPDATE=1 cargo test --test it crds

deny: ## licences, bans, sources of the dependencies; says so where cargo-deny is not installed
	@if command -v cargo-deny >/dev/null; then cargo deny check bans licenses sources; \
	else echo "deny: not checked, cargo-deny is not installed; to have it (usually 5 minutes): cargo install --locked cargo-deny@0.20.2"; fi

clean: ## remove what was built here; the parts in the cache folder stay
	cargo clean
