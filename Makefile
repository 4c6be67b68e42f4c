# Everything a newcomer needs: `make demo` and `make test`. The other targets are their parts.

SHELL := /bin/bash
CARGO ?= cargo
LOCKED := --locked

.PHONY: help demo test setup setup-test setup-bench build fmt clippy doc docs man unit release chaos bench profile clean

help:
	@echo "make demo     install what is missing, build, and try DataCentered on this machine"
	@echo "make test     install what is missing, then format, clippy, docs and every test"
	@echo "make bench    measure against OpenSSH and write docs/benchmarks.md (half an hour, quiet machine)"
	@echo "make profile  where the time of a command goes, in the hub"
	@echo "make release  build the release programs into target/release"
	@echo "make chaos    3,000 runs over 5 hosts while everything fails at random, for three seeds"
	@echo "make man      write the man pages of both programs into target/man"
	@echo "make docs     refresh docs/operations.json and docs/openapi.json"

## Installs what building needs (a C compiler for the cryptography library).
setup:
	@scripts/setup.sh build

## Installs what the tests need besides: network namespaces, traffic shaping, system call traces.
setup-test:
	@scripts/setup.sh test

## Installs what the benchmarks compare with, and what profiles are made with.
setup-bench: setup
	@scripts/setup.sh bench

demo: setup
	$(CARGO) build $(LOCKED) --release -p datacentered -p datacentered-agent
	target/release/datacentered demo

release: setup
	$(CARGO) build $(LOCKED) --release -p datacentered -p datacentered-agent

test: setup-test fmt clippy doc unit

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy $(LOCKED) --workspace --all-targets --all-features -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(LOCKED) --workspace --no-deps --document-private-items

## Every test of every crate: with nextest where it is installed.
unit:
	$(CARGO) build $(LOCKED) -p datacentered -p datacentered-agent
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  set -x; $(CARGO) nextest run $(LOCKED) --no-fail-fast --workspace --all-features; \
	else \
	  set -x; $(CARGO) test $(LOCKED) --no-fail-fast --workspace --all-features; \
	fi

## The long form of the chaos test: 3,000 runs over 5 hosts for each seed (SEEDS="1 2 3" repeats schedules).
SEEDS ?= $(shell date +%s) $(shell echo $$(( $$(date +%s) + 1 ))) $(shell echo $$(( $$(date +%s) + 2 )))
CHAOS_RUNS ?= 3000
chaos: setup-test
	$(CARGO) build $(LOCKED) -p datacentered -p datacentered-agent
	@for seed in $(SEEDS); do \
	  DC_SEED=$$seed DC_CHAOS_RUNS=$(CHAOS_RUNS) $(CARGO) test $(LOCKED) -p datacentered --test chaos -- --nocapture || exit 1; \
	done

docs:
	$(CARGO) run $(LOCKED) -q -p datacentered-proto --example docs -- docs

## The pages of the two programs have sections of their own, so that no two have one name.
man:
	$(CARGO) run $(LOCKED) -q -p datacentered -- man --dir target/man/man1
	$(CARGO) run $(LOCKED) -q -p datacentered-agent --example man -- target/man/man8

## Everything, against OpenSSH; BENCH="--quick" or BENCH="--only fleet --hosts 5000" for less or more.
BENCH ?= --write docs/benchmarks.md
bench: setup-bench
	$(CARGO) build $(LOCKED) --release -p datacentered -p datacentered-agent -p datacentered-bench
	target/release/datacentered-bench $(BENCH)

## Where the time of a command goes: perf where the machine allows it, else callgrind's counts.
profile: setup-bench
	CARGO_PROFILE_RELEASE_STRIP=none RUSTFLAGS="-C force-frame-pointers=yes" $(CARGO) build $(LOCKED) --release --target-dir target/profile \
	  -p datacentered -p datacentered-agent -p datacentered-bench
	scripts/profile.sh target/profile/release

clean:
	$(CARGO) clean
