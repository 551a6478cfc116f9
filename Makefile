# Two commands matter on a fresh machine: `make demo` and `make test`.
#
#   make demo               a real sale on private servers, and its proof
#   make demo ARGS='...'    with flags of `bin/doorbuster demo`; KEEP=1 leaves all of it up
#   make test               everything: lint, build, real servers, race detector
#   make test-short         what needs no server
#   make crash-points       kill a process at every point of engine/failpoint
#   make chaos              break real servers under load, pairwise; chaos-full does all pairs
#   make soak MINUTES=60    restocking sales, with a fault every few seconds
#   make simulate           a million stories of services that fail; SEEDS=, FROM=
#   make mutants            remove one safety after another: the simulator must find each
#   make bench              measure, and write docs/BENCHMARKS.md
#   make up | down          the private servers, for working by hand

ARGS ?=
GO ?= go
# A checkout that belongs to someone else must build too: git refuses to tell its
# revision there, and the build would fail on it.
BUILD := $(GO) build -buildvcs=false
TOOL := $(GO) build -C tools -buildvcs=false

.PHONY: all build demo test test-short crash-points chaos chaos-full shifted soak simulate mutants bench lint fmt clean up down

all: build

build:
	@mkdir -p bin
	$(BUILD) -o bin/doorbuster ./cmd/doorbuster

# Each demo and each bench begins with empty servers: sales that were left behind
# would be rebuilt first, and take the machine.
demo: build
	@bin/doorbuster down --wipe --dir .doorbuster/demo
	bin/doorbuster demo --dir .doorbuster/demo $(ARGS)

test: lint build bin/testreport
	@tools/test.sh

test-short: build
	$(GO) test -short -count=1 ./...

# On servers of the test's own; POINTS='pay/*,relay/after-mark' tries some.
POINTS ?= */*
crash-points:
	DOORBUSTER_CRASH_POINTS='$(POINTS)' $(GO) test -count=1 -timeout 15m -v -run 'CrashPoint' ./cmd/doorbuster

# Servers of their own, kept between the runs; what was seen is appended to docs/PROOF.md.
# ARGS='--cells "redis/*" --seed 7' chooses.
CHAOS := bin/doorbuster --dir .doorbuster/chaos --log-level error chaos --record docs/PROOF.md
MINUTES ?= 60
chaos: build shifted
	$(CHAOS) --pairs pairwise $(ARGS)

chaos-full: build shifted
	$(CHAOS) --pairs all $(ARGS)

# For the cells of a wrong clock: the program with a package time of its own. Go
# compiles everything anew for it, once, for about two minutes.
shifted:
	$(GO) run -C tools ./shifted -root .. -o bin/doorbuster-shifted

soak: build
	$(CHAOS) --soak $(MINUTES)m $(ARGS)

SEEDS ?= 1000000
FROM ?= 1
simulate: build
	bin/doorbuster simulate --seeds $(SEEDS) --from $(FROM)

mutants:
	$(GO) run -C tools ./mutants -root .. $(ARGS)

bench: build
	@bin/doorbuster down --wipe --dir .doorbuster/bench
	bin/doorbuster bench --dir .doorbuster/bench $(ARGS)
	@bin/doorbuster down --wipe --dir .doorbuster/bench

lint: bin/golangci-lint
	bin/golangci-lint run ./...

fmt: bin/gofumpt
	bin/gofumpt -l -w cmd dashboards deploy engine loadtest payment stock tools

up: build
	bin/doorbuster up $(ARGS)

down: build
	bin/doorbuster down $(ARGS)

# Servers of ours that still run are stopped before their state is deleted.
clean: build
	@for s in .doorbuster/*/state.json; do \
		[ ! -e "$$s" ] || bin/doorbuster down --wipe --dir "$$(dirname "$$s")" || exit 1; \
	done
	rm -rf bin .doorbuster

# The tools have a go.mod of their own, so that their modules cannot move ours.
# The linter takes about two minutes to build, once.
bin/golangci-lint: tools/go.mod tools/go.sum
	@echo "building golangci-lint (once, about two minutes)"
	$(TOOL) -o ../bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

bin/gofumpt: tools/go.mod tools/go.sum
	$(TOOL) -o ../bin/gofumpt mvdan.cc/gofumpt
	@touch $@

bin/testreport: tools/testreport/main.go
	$(TOOL) -o ../bin/testreport ./testreport
