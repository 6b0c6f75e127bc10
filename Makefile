# make test   every test; the acceptance tests need root       make demo   the whole way, on this machine (root)
# make lint   format, lints, licences                          make help   the rest
.PHONY: help build setup stock checkers test demo lint fuzz freebsd-check bench bench-freebsd clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## compile the program: target/release/faas-jails
	cargo build --release

# Installing needs root; without it, what is missing shows up as skipped tests.
setup: ## install what tests and demo need (Debian 12 or FreeBSD, as root)
	@if [ "$$(id -u)" = 0 ]; then tools/setup.sh $(WITH); else echo "not root: installing nothing"; fi

stock: ## look for the stock OpenFaaS programs that some tests run
	@tools/stock.sh

checkers: ## look for what tests check descriptions with: schemathesis, the schema of cloud-init
	@tools/checkers.sh

test: WITH = observe
test: setup stock checkers ## run every test; the last line counts them
	@tools/test.sh

demo: setup ## build, start, deploy, call; Ctrl-C ends it, ONCE=1 does so at once
	@tools/demo.sh

lint: ## formatting, clippy, Go vet, licences
	cargo fmt --check
	cargo clippy --all-targets --quiet -- -D warnings
	test -z "$$(gofmt -l functions templates tests/functions)"
	for dir in functions/* templates/*; do (cd $$dir && go vet ./...) || exit 1; done
	cd tests/functions/called && go vet ./...
	cd tests/functions/probe && go vet ./... && GOOS=freebsd go vet ./...
	for script in tools/*.sh .ci/run; do bash -n $$script || exit 1; done
	tools/licenses.sh

fuzz: ## fuzz what reads images, a minute for each target
	tools/fuzz.sh

freebsd-check: ## compile program and tests for FreeBSD, with clippy
	tools/freebsd-check.sh

bench-freebsd: ## what a start costs there, step by step, on the machine that FREEBSD_SSH reaches
	tools/freebsd-bench.sh

bench: ## compare with the programs that others use
	tools/setup.sh bench
	tools/stock.sh bench
	cargo bench

clean: ## remove what was built
	cargo clean
