# Every target is a thin line over a go command; "make" builds.

GOLANGCI_LINT = go tool -modfile=internal/tools/golangci-lint/go.mod golangci-lint
FUZZTIME ?= 30s
ROUNDS ?= 11
SECONDS ?= 3
# The newest PostgreSQL, whose protocol is newer than the others', and the tests
# that show what it changes; "make versions" runs all of them on each version.
NEWEST = 18
PROTOCOL = Implicit|Scenarios|FirstBytes|Version|Grammar|Key|Cancel|ReadOnly|Refus|Bracket|DirectTLS|Standby
ARGS ?=

.PHONY: build check fmt lint test quick e2e demo fuzz golden docs bench microbench deps setup conformance conformance-fast evasion catalog faults flips idle versions

build:
	go build -trimpath -o bin/ ./cmd/lockkeeper

check: lint test conformance-fast

fmt:
	$(GOLANGCI_LINT) fmt

lint:
	$(GOLANGCI_LINT) run

test:
	@internal/tools/setup.sh $(NEWEST)
	go vet ./...
	go test -race -shuffle=on -timeout=30m ./...
	LOCKKEEPER_PG_BIN=$$(internal/tools/postgres.sh $(NEWEST)) go test -race -run NewerGrammars ./inspect/pgquery
	LOCKKEEPER_PG_BIN=$$(internal/tools/postgres.sh $(NEWEST)) go test -race -shuffle=on -timeout=30m -run '$(PROTOCOL)' ./proxy
	LOCKKEEPER_TEST_ENGINE=goroutines go test -race -shuffle=on -timeout=30m -run '$(PROTOCOL)|InFlight|Held|Slow|Copy|Cancel' ./proxy
	CGO_ENABLED=0 go test -run Allocat ./inspect ./policy ./proxy/session
	CGO_ENABLED=0 go build ./policy/... ./proxy/... ./admin/...

# No cgo and no PostgreSQL, which the tests of ./proxy and ./admin/locks need.
quick:
	CGO_ENABLED=0 go test ./policy/... ./proxy/wire/... ./proxy/session/... ./proxy/engine/... ./admin/control/... ./admin/api/... ./admin/client/...

e2e: setup
	internal/tools/e2e.sh

demo: setup
	go run ./internal/demo $(ARGS)

# Suites of PostgreSQL, of drivers and with PgBouncer, directly and through
# lockkeeper; half an hour or more, as root on Debian 12. Writes
# docs/compatibility.md. ARGS='-only pgx' runs one.
conformance:
	go run ./internal/conformance -docs docs $(ARGS)

# What of that needs nothing but Go and PostgreSQL; no difference is allowed.
conformance-fast: setup
	go run ./internal/conformance -fast

# Faults around a lockkeeper process, the slow ones too; about ten minutes, with
# 20,000 file descriptors. Writes docs/compatibility/faults.md.
faults: setup
	LOCKKEEPER_FAULTS=$(CURDIR)/docs/compatibility/faults.md go test -count=1 -timeout=30m ./internal/faults

# Every disguised statement, simple and extended, against a PostgreSQL; ten
# minutes or more. Writes docs/evasion.md.
evasion: setup
	LOCKKEEPER_EVASION=1 go test -count=1 -timeout=60m -run '^TestEvasionTable$$' ./proxy

# What a catalog of many tables costs to read and to keep; each has two indexes
# and a foreign key.
catalog: setup
	LOCKKEEPER_CATALOG_TABLES=$(or $(TABLES),30000) go test -count=1 -v -timeout=60m -run '^TestManyRelations$$' ./inspect/catalog

# Read-only switched on N times under 32 writers of every kind, some of them
# killed and lockkeeper too, and what was committed behind the barrier looked
# for each time: a thousand take an hour. $LOCKKEEPER_PG_BIN chooses the server:
# LOCKKEEPER_PG_BIN=$(internal/tools/postgres.sh 18) make flips N=100
N ?= 1000
flips: setup
	LOCKKEEPER_FLIPS=$(N) go test -v -count=1 -timeout=4h -run '^TestNothingIsCommittedBehindAnyFlip$$' ./internal/faults

# Memory of idle sessions. Writes docs/compatibility/idle.md.
idle: build
	go run ./bench/idle -page docs/compatibility/idle.md

# The tests that need a PostgreSQL against 14, 15, 16, 17 and 18, which it
# fetches; about half an hour. Writes the table of docs/compatibility.md.
versions: setup
	internal/tools/versions.sh $(ARGS)

fuzz:
	internal/tools/fuzz.sh $(FUZZTIME)

golden:
	UPDATE_GOLDEN=1 go test ./...
	git diff --stat

docs:
	go run ./cmd/lockkeeper docs --dir docs/reference

# What lockkeeper costs beside no proxy, PgBouncer and HAProxy; half an hour with
# 11 rounds. Writes a page and pictures to bench/results and its summary into
# README.md. With fewer rounds, or ARGS='-scenarios simple-8,lock-queue', only
# bench/results/partial.md. Not by go run, which a signal ends without it.
bench: setup build
	internal/tools/peers.sh
	go build -o bin/ ./bench/oltp
	bin/oltp -rounds $(ROUNDS) -seconds $(SECONDS) $(ARGS)

# The parts of the hot path, alone.
microbench:
	go test -run='^$$' -bench=. -benchmem $(ARGS) ./inspect/... ./policy/... ./proxy/... ./internal/journal/...

deps:
	UPDATE_GOLDEN=1 go test -count=1 -run '^TestLinkedPackages$$' ./internal/repotest
	git diff --stat -- docs/reference/packages.txt

# What tests need besides Go: a C compiler and PostgreSQL's binaries.
setup:
	@internal/tools/setup.sh
