#!/usr/bin/env bash
# Applications in hosts that people use, on a published database: `make test-hosts`, or HOSTS="apsw node:sqlite" some of them.
# Installs what they need from their registries, into target/hosts. Python has to be one that can load extensions: PYTHON=PATH.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-/usr/bin/python3}
kept=$PWD/target/hosts

say_what_to_do() {
    echo "Please install (Debian's packages): python3-venv nodejs npm, with a node of 20 or newer and its headers" >&2
    exit 1
}
loads() { "$python" -c 'import sqlite3, venv, ensurepip; sqlite3.connect(":memory:").enable_load_extension(True)' 2>/dev/null; }
if ! loads || ! command -v npm >/dev/null; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || say_what_to_do
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
    # A node that somebody put here is not replaced.
    command -v npm >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm libnode-dev >/dev/null
    loads && command -v npm >/dev/null || say_what_to_do
fi

mkdir -p "$kept"
if ! cmp -s tests/hosts/requirements.txt "$kept/requirements.txt"; then
    "$python" -m venv --clear "$kept/venv"
    "$kept/venv/bin/pip" -q --disable-pip-version-check install -r tests/hosts/requirements.txt
    cp tests/hosts/requirements.txt "$kept/"
fi
if ! cmp -s tests/hosts/package-lock.json "$kept/installed"; then
    cp tests/hosts/package.json tests/hosts/package-lock.json "$kept/"
    # A binary built elsewhere is not asked for: better-sqlite3 is compiled here.
    (cd "$kept" && npm_config_build_from_source=true npm ci --no-audit --no-fund --loglevel=error)
    cp tests/hosts/package-lock.json "$kept/installed"
fi
export NODE_PATH=$kept/node_modules
exec "$python" tests/hosts/run.py "${LOGOS_EXT:-$PWD/build/logos}" node "$kept/node_modules/.bin/node" "$kept/venv/bin/python" ${HOSTS:-}
