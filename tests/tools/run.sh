#!/usr/bin/env bash
# Migrations by the tools themselves (Django, Alembic, Rails), without a call to us: a stock shell publishes the database,
# the tool migrates and writes in a process of its own that has never heard of logos, and after each step the dump of a
# replica must be the primary's.
# Not part of `make test`, because it installs the tools from their registries; tests/harness/tests/migrations.rs has the
# statements that they send.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
tools=$root/tests/target/tools
if [ ! -x "$tools/bin/alembic" ]; then
    python3 -m venv "$tools"
    "$tools/bin/pip" -q install 'django==5.2.*' 'alembic==1.*'
fi
if ! ruby -e 'require "active_record"; require "sqlite3"' 2>/dev/null; then
    [ "$(id -u)" = 0 ] || { echo "Please install (Debian's packages): ruby-activerecord ruby-sqlite3" >&2; exit 1; }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ruby-activerecord ruby-sqlite3 >/dev/null
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# ask SQL: the publishing shell runs it and says when it has.
ask() {
    printf '%s\n' ".output answer" "$1" ".output" ".shell echo done > answered" >&3
    read -r _ <&6
}

migrate() {
    local name=$1
    shift
    mkdir "$name" && cd "$name"
    mkfifo shell.in answered steps.in steps.out
    exec 6<>answered 4<>steps.in 5<>steps.out
    sqlite3 -batch -bail -init /dev/null primary.db <shell.in >shell.out 2>&1 &
    local shell=$!
    exec 3>shell.in
    ask ".load $root/build/logos"
    ask "SELECT logos_publish('dir:$PWD/channel');"
    local url
    url=$(tail -n 1 answer)
    "$@" "$PWD/primary.db" <steps.in >steps.out 2>steps.err &
    local tool=$! n=0 step
    while echo >&4; do
        # The tool says what it did, or has ended.
        until read -r -t 1 step <&5; do
            kill -0 $tool 2>/dev/null || break 2
        done
        ask "SELECT logos_flush();"
        sqlite3 -batch -init /dev/null replica.db ".load $root/build/logos" "SELECT count(*) FROM attach_replica('$url');" >attached
        for database in primary replica; do
            sqlite3 -batch -init /dev/null -readonly $database.db .dump | grep -v '_logos_' | sort >$database.sql
        done
        [ "$(wc -l <primary.sql)" -gt 5 ] || { echo "$name: there is nothing in the database after $step"; exit 1; }
        cmp primary.sql replica.sql || { echo "$name: the replica differs after $step"; diff primary.sql replica.sql | head; exit 1; }
        n=$((n + 1))
    done
    wait $tool || { cat steps.err; exit 1; }
    [ $n -gt 5 ] || { echo "$name: only $n steps"; cat steps.err; exit 1; }
    ask "SELECT logos_stop();"
    exec 3>&-
    wait $shell
    echo "$name: $n migrations with writes after each, primary and replica equal"
    cd ..
}

migrate Django "$tools/bin/python" "$root/tests/tools/django_steps.py"
migrate Alembic "$tools/bin/python" "$root/tests/tools/alembic_steps.py"
migrate Rails ruby "$root/tests/tools/rails_steps.rb"
