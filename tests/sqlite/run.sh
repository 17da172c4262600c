#!/usr/bin/env bash
# SQLite's own tests on a published database: `make test-sqlite`, or with SCRIPTS="alter* fts3*" some of them.
# The tests are those of Debian's source package `sqlite3`, found through the machine's own apt sources and kept in target/;
# SQLITE_TESTS=PATH names the folder of another unpacked source tree. Nothing of them is part of this repository.
set -euo pipefail
cd "$(dirname "$0")/../.."
kept=$PWD/target/sqlite-source

say_what_to_do() {
    echo "$1" >&2
    echo "Please unpack the source of SQLite that 'package require sqlite3' of tclsh has ($version), so that PATH/test/select1.test" >&2
    echo "is there, and say SQLITE_TESTS=PATH make test-sqlite" >&2
    exit 1
}

has_tcl() { echo 'if {[catch {package require sqlite3; puts [sqlite3 -version]}]} { exit 1 }' | tclsh 2>/dev/null; }
has_tcl >/dev/null && [ -x /usr/bin/dpkg-source ] || {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "Please install (Debian's packages): tcl libsqlite3-tcl dpkg-dev" >&2; exit 1; }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends tcl libsqlite3-tcl dpkg-dev >/dev/null
}
version=$(has_tcl) || { echo "tclsh does not find its package sqlite3, though libsqlite3-tcl is installed" >&2; exit 1; }

# apt's own list of sources, with "deb" turned into "deb-src"; the machine's lists stay as they are.
fetch() {
    local scratch file options
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' RETURN
    mkdir -p "$scratch/parts" "$scratch/lists/partial"
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [ ! -e "$file" ] || sed 's/^deb /deb-src /; s/^Types:.*/Types: deb-src/' "$file" >"$scratch/parts/$(basename "$file")"
    done
    options="-qq -o APT::Sandbox::User=root -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=$scratch/parts -o Dir::State::lists=$scratch/lists"
    # $options is a list of words; apt's sandbox user cannot write into a folder of ours, which is no fault
    (cd "$scratch" && apt-get $options update && apt-get $options source --download-only sqlite3) || return 1
    rm -rf "$kept" && dpkg-source --no-check --extract "$scratch"/sqlite3_*.dsc "$kept" >/dev/null
}

if [ -z "${SQLITE_TESTS:-}" ]; then
    if [ ! -e "$kept/test/select1.test" ]; then
        command -v apt-get >/dev/null || say_what_to_do "There is no apt-get on this machine to fetch SQLite's tests with."
        mkdir -p target && fetch || say_what_to_do "apt-get could not fetch the source package sqlite3."
    fi
    SQLITE_TESTS=$kept
fi
[ -e "$SQLITE_TESTS/test/select1.test" ] || say_what_to_do "There are no SQLite tests in $SQLITE_TESTS."
exec python3 tests/sqlite/run.py "$SQLITE_TESTS/test" "${LOGOS_EXT:-$PWD/build/logos.so}" "$@"
