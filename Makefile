# Counterfoil. "make" lists what there is.

GO          ?= go
FUZZTIME    ?= 30s
BENCHCOUNT  ?= 6
TOOLS       := internal/tools

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: test
test: testenv ## every check: installs and starts what it needs (see docs/development.md)
	@exec tmp/testenv

.PHONY: with
with: testenv ## one command with the services of the tests: make with CMD='go test ./sqlstore'
	@exec tmp/testenv -- sh -c '$(CMD)'

.PHONY: build
build: ## the binary, ./counterfoil
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o counterfoil ./cmd/counterfoil

.PHONY: release
release: ## archives for every platform, with SBOMs, into dist/: make release VERSION=v1.2.3
	COUNTERFOIL_TEST_RELEASE=1 $(GO) test ./internal/release
	$(GO) run ./internal/release -version '$(VERSION)'

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, errcheck
	@out=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); test -z "$$out" || { echo "not formatted:"; echo "$$out"; exit 1; }
	$(GO) -C $(TOOLS) build -o ../../tmp/ honnef.co/go/tools/cmd/staticcheck github.com/kisielk/errcheck
	$(GO) vet ./...
	tmp/staticcheck ./...
	tmp/errcheck -ignoretests -exclude $(TOOLS)/errcheck.txt ./...

.PHONY: fuzz
fuzz: testenv ## every fuzz target for FUZZTIME (30s) each
	@exec tmp/testenv fuzz -time $(FUZZTIME)

.PHONY: bench
bench: testenv ## the benchmarks, BENCHCOUNT (6) times, into tmp/bench.txt, with a summary
	$(GO) -C $(TOOLS) build -o ../../tmp/ golang.org/x/perf/cmd/benchstat
	@tmp/testenv -- sh -c 'for dir in . bench; do \
		test ! -d $$dir || $(GO) -C $$dir test -p 1 -run "^$$" -bench . -benchmem -count $(BENCHCOUNT) ./... || exit 1; done' > tmp/bench.txt || { cat tmp/bench.txt; exit 1; }
	tmp/benchstat tmp/bench.txt

.PHONY: vuln
vuln: ## known vulnerabilities; needs the Go vulnerability database
	$(GO) -C $(TOOLS) build -o ../../tmp/ golang.org/x/vuln/cmd/govulncheck
	tmp/govulncheck ./...

# The driver of the tests is built, not run with "go run", so that a signal
# reaches it and it can stop what it started.
.PHONY: testenv
testenv:
	@mkdir -p tmp && CGO_ENABLED=0 $(GO) build -buildvcs=false -o tmp/testenv ./internal/testenv/run
