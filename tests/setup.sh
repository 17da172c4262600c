#!/bin/sh
# Makes sure that what building and testing needs is there. Quick and silent when it is.
# As root on Debian or Ubuntu it installs what is missing; elsewhere it names exactly what to install.
set -eu

missing=
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
need cc gcc
need make make
need pkg-config pkg-config
need sqlite3 sqlite3
need nm binutils
have_header() { pkg-config --exists sqlite3 2>/dev/null || [ -e /usr/include/sqlite3.h ]; }
have_header || missing="$missing libsqlite3-dev"
# The demo on a development node talks to it by curl; Rust itself is fetched with it, over HTTPS.
need curl curl
command -v cargo >/dev/null 2>&1 || missing="$missing ca-certificates"

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "installing$missing"
        apt-get update -qq
        # $missing is a list of words
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    else
        echo "Please install (names of Debian's packages):$missing" >&2
        echo "  for example: sudo apt-get install$missing" >&2
        exit 1
    fi
fi

oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if ! command -v cargo >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ]; then
        echo "installing Rust"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --quiet --profile minimal -c clippy -c rustfmt
    else
        echo "Please install Rust $oldest or newer with clippy and rustfmt: https://rustup.rs" >&2
        exit 1
    fi
fi

found=$(cargo --version | cut -d' ' -f2)
if [ "$(printf '%s\n%s\n' "$oldest" "$found" | sort -V | head -n 1)" != "$oldest" ]; then
    echo "Rust $found is too old, $oldest or newer is needed: rustup update" >&2
    exit 1
fi
