# One entry point. `make` alone lists what there is.

ifeq ($(OS),Windows_NT)
  BUILT := logos.dll
  LIB := dll
else ifeq ($(shell uname -s),Darwin)
  BUILT := liblogos.dylib
  LIB := dylib
else
  BUILT := liblogos.so
  LIB := so
endif

# A fresh Rust installation is not on the PATH of shells that are already open.
export PATH := $(PATH):$(HOME)/.cargo/bin
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
TESTS_TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR)/tests,$(CURDIR)/tests/target)
TESTS := --manifest-path tests/Cargo.toml --locked
HOSTED := $(TESTS) -p harness -p differential
DEVNODE := --manifest-path tests/devnode/Cargo.toml --locked
NODE_TESTS := --manifest-path tests/node/Cargo.toml --locked
SIM := --manifest-path tests/sim/Cargo.toml --locked

.PHONY: differential help setup build build-sim demo demo-logos devnode test test-bundled test-system test-node sim test-crates test-tools test-sqlite test-hosts lint bench-quick clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## install what building and testing needs, or say what is missing
	@sh tests/setup.sh

build: setup ## build the loadable extension: build/logos.so (.dylib, .dll)
	@cargo build --release --locked -p logos --target-dir $(TARGET)
	@mkdir -p build && cp $(TARGET)/release/$(BUILT) build/.logos.new && mv build/.logos.new build/logos.$(LIB)

build-sim: setup ## the same with named fault points, for the crash tests: build/logos-sim.so
	@CARGO_PROFILE_RELEASE_LTO=off cargo build --release --locked -p logos --features sim --target-dir $(TARGET)/sim
	@mkdir -p build && cp $(TARGET)/sim/release/$(BUILT) build/.sim.new && mv build/.sim.new build/logos-sim.$(LIB)

demo: build ## a primary and a replica in two sqlite3 shells
	@bash tests/demo.sh

demo-logos: build ## the same on a development Logos node, with fees and a reorganisation
	@cargo build --quiet $(DEVNODE) --target-dir $(TESTS_TARGET)
	@LOGOS_DEVNODE=$(TESTS_TARGET)/debug/logos-devnode bash tests/demo-logos.sh

devnode: setup ## run a development Logos node on http://127.0.0.1:8080 (ARGS="--fees --k 5")
	@cargo run --quiet $(DEVNODE) --target-dir $(TESTS_TARGET) -- $(ARGS)

test: test-crates sim test-bundled test-system test-node ## every test: the crates, simulations, the extension in two SQLites, a Logos node

test-crates: setup ## tests of the crates that need no SQLite
	@sh tests/run.sh --workspace --locked --target-dir $(TARGET)

sim: setup ## SEEDS=200 FROM=1: simulated runs, each twice, must end equal; SEED=17: one, step by step
	@cargo run --quiet $(SIM) --target-dir $(TESTS_TARGET)/sim -- $(if $(SEED),$(SEED),$(or $(FROM),1) $(or $(SEEDS),200))

test-bundled: build build-sim ## the extension hosted by the newest SQLite
	@sh tests/run.sh $(HOSTED) --target-dir $(TESTS_TARGET)

test-system: build build-sim ## the extension hosted by the system's SQLite
	@sh tests/run.sh $(HOSTED) --no-default-features --target-dir $(TESTS_TARGET)-system

test-node: build ## the development node's own tests, and the extension on it
	@sh tests/run.sh $(DEVNODE) --target-dir $(TESTS_TARGET)
	@LOGOS_EXTENSION=$(CURDIR)/build/logos.$(LIB) sh tests/run.sh $(NODE_TESTS) --target-dir $(TESTS_TARGET)

test-tools: build ## migrations by Django, Alembic and Rails themselves; installs them
	@bash tests/tools/run.sh

test-sqlite: build ## SQLite's own tests on published databases (SCRIPTS="alter* fts3*"); fetches them
	@bash tests/sqlite/run.sh $(SCRIPTS)

test-hosts: build ## applications in better-sqlite3, node:sqlite, apsw, pysqlite3, Django, Alembic (HOSTS="apsw"); installs them
	@bash tests/hosts/run.sh

lint: setup ## formatting, clippy without warnings, the style rules
	@cargo fmt --all --check && cargo fmt --all --check --manifest-path tests/Cargo.toml
	@cargo clippy --quiet --workspace --all-targets --locked --target-dir $(TARGET) -- -D warnings
	@cargo clippy --quiet --workspace --all-targets $(TESTS) --target-dir $(TESTS_TARGET) -- -D warnings
	@cargo fmt --check --manifest-path tests/devnode/Cargo.toml && cargo fmt --check --manifest-path tests/node/Cargo.toml
	@cargo clippy --quiet --all-targets $(DEVNODE) --target-dir $(TESTS_TARGET) -- -D warnings
	@cargo clippy --quiet --all-targets $(NODE_TESTS) --target-dir $(TESTS_TARGET) -- -D warnings
	@cargo fmt --check --manifest-path tests/sim/Cargo.toml
	@cargo clippy --quiet --all-targets $(SIM) --target-dir $(TESTS_TARGET)/sim -- -D warnings
	@cargo test --quiet $(TESTS) -p tidy --target-dir $(TESTS_TARGET)

differential: build ## SEEDS=20000 FROM=1: random programs; primary, replica and a database without us must agree
	@cargo run --quiet --release $(TESTS) -p differential --target-dir $(TESTS_TARGET) -- --from $(or $(FROM),1) --count $(or $(SEEDS),2000)

bench-quick: build ## what capture and publishing cost a writer, against plain SQLite
	@cargo run --quiet --release $(TESTS) -p bench --target-dir $(TESTS_TARGET)

clean: ## remove everything that was built
	@rm -rf build $(TARGET) $(TESTS_TARGET) $(TESTS_TARGET)-system
