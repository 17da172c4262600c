#!/usr/bin/env bash
# A primary and a replica in two sessions of the stock sqlite3 shell, on a development Logos node: a change made in one is
# read in the other, with a reorganisation of the chain in between. Every command is shown with its output.
# Ends by comparing the dumps of both databases; exits with an error when they differ.
# LOGOS_DEVNODE names the node's program (make demo-logos builds it).
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
devnode=${LOGOS_DEVNODE:-$root/tests/devnode/target/debug/logos-devnode}
work=$(mktemp -d)
node_pid=
trap 'exec 3>&- 4>&-; [ -z "$node_pid" ] || kill "$node_pid"; wait || true; rm -rf "$work"' EXIT
cd "$work"
cp "$root"/build/logos.* .
"$devnode" --port 0 --block-ms 0 --k 5 --fees >node.url &
node_pid=$!
while [ ! -s node.url ]; do sleep 0.05; done
node=$(cat node.url)
wallet=$(printf '07%.0s' {1..32})

# After the node, which must not hold the sessions' pipes open.
source "$root/tests/sessions.sh"

admin() { # VERB JSON: tells the development node to do something
    printf 'node    > %s %s\n' "$1" "$2"
    curl -sS --noproxy '*' -X POST -H 'Content-Type: application/json' -d "$2" "$node/dev/$1" >admin.out
}
# A block comes every half second, as long as a command waits for the channel.
blocks() { while :; do curl -sS --noproxy '*' -X POST -H 'Content-Type: application/json' -d '{"n": 1}' "$node/dev/mine" >/dev/null; sleep 0.5; done; }
with_blocks() {
    blocks &
    local miner=$!
    "$@"
    kill "$miner"
    wait "$miner" 2>/dev/null || true
}
log="SELECT seq, state, slot AS block_slot, fee, bytes, substr(id, 1, 12) AS entry FROM logos_log;"

echo "sqlite3 shell: $(sqlite3 --version | cut -d' ' -f1,2)"
echo "Logos node (development): $node"

title 'Publish a table to the Logos channel; the wallet of the node pays'
primary "CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, price REAL);"
primary "INSERT INTO item VALUES (1, 'lamp', 39.9), (2, 'chair', 120), (3, 'vase', 15);"
primary ".load ./logos"
primary "SELECT logos_publish('$node', '{\"wallet_key\": \"$wallet\", \"poll_ms\": 100}');"
url=$(tail -n 1 primary.out)
with_blocks primary "SELECT logos_flush(60) <> '' AS on_the_chain;"
primary ".mode box"
primary "$log"

title 'A replica follows the channel'
replica ".load ./logos"
replica "SELECT seq, kind, tables, changes, bytes FROM attach_replica('$url');"
replica "SELECT * FROM item;"

title 'A change in one shell'
primary "UPDATE item SET price = price * 1.1 WHERE name = 'lamp';"
primary "INSERT INTO item(name, price) VALUES ('desk', 250);"
with_blocks primary "SELECT logos_flush(60) <> '' AS on_the_chain;"
primary "$log"

title 'is read in the other'
replica "SELECT seq, kind, changes FROM attach_replica('$url');"
replica "SELECT * FROM item;"

title 'The chain is reorganised: the newest three blocks are abandoned, and what was in them is lost'
admin reorganise '{"n": 3, "txs": "drop"}'
replica "SELECT count(*) AS applied_again FROM attach_replica('$url');"
primary "DELETE FROM item WHERE id = 3;"
with_blocks primary "SELECT logos_flush(60) <> '' AS on_the_chain;"

title 'The same entries came back, in other blocks, and the new one after them'
primary "$log"
replica "SELECT seq, kind, changes FROM attach_replica('$url');"

title 'Five blocks later everything is final'
admin mine '{"n": 6}'
for _ in $(seq 100); do
    say primary 3 "SELECT count(*) FROM logos_log WHERE state <> 'final';" >/dev/null
    [ "$(grep -o '[0-9]\+' primary.out | tail -n 1)" != 0 ] || break
    sleep 0.1
done
primary "$log"
primary "SELECT role, state, messages, bytes, requests FROM logos_status;"

exec 3>&- 4>&-
wait %2 %3 2>/dev/null || true

title 'Dumps compared'
ours="name LIKE '\\_logos\\_%' ESCAPE '\\' OR name LIKE 'sqlite\\_%' ESCAPE '\\'"
for database in primary replica; do
    sqlite3 -batch -init /dev/null "$database.db" \
        "SELECT sql || ';' FROM sqlite_schema WHERE sql NOT NULL AND NOT ($ours) ORDER BY type, name" \
        '.mode insert item' 'SELECT * FROM item' >"$database.sql"
done
sed 's/^/          /' primary.sql
if diff primary.sql replica.sql; then
    printf '\nThe dumps are equal: %s rows.\n' "$(grep -c '^INSERT' primary.sql)"
else
    printf '\nThe dumps differ.\n' >&2
    exit 1
fi
