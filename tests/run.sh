#!/bin/sh
# Runs tests with cargo-nextest where it is installed, a process a test, else with cargo test, one after the other: what a
# process publishes shows in its logos_status.
# The arguments go to cargo.
set -eu
if cargo nextest --version >/dev/null 2>&1; then
    exec cargo nextest run --config-file tests/nextest.toml --no-tests pass "$@"
fi
exec cargo test --no-fail-fast "$@" -- --test-threads 1
