#!/usr/bin/env bash
# A primary and a replica in two sessions of the stock sqlite3 shell, every command shown with its output.
# Ends by comparing the dumps of both databases; exits with an error when they differ.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'exec 3>&- 4>&-; wait; rm -rf "$work"' EXIT
cd "$work"
cp "$root"/build/logos.* .
source "$root/tests/sessions.sh"

echo "sqlite3 shell: $(sqlite3 --version | cut -d' ' -f1,2)"

title 'A table that was there before'
primary "CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, price REAL);"
primary "INSERT INTO item VALUES (1, 'lamp', 39.9), (2, 'chair', 120), (3, 'vase', 15);"

title 'Publish it to a channel that is just a folder'
primary ".load ./logos"
primary "SELECT logos_publish('dir:shop.channel');"
url=$(tail -n 1 primary.out)

title 'A replica attaches'
replica ".load ./logos"
replica "SELECT * FROM attach_replica('$url');"
replica "SELECT * FROM item;"

title 'Update, delete, and a table created afterwards'
primary "UPDATE item SET price = price * 1.1 WHERE name = 'lamp';"
primary "DELETE FROM item WHERE id = 3;"
primary "CREATE TABLE sale(item INTEGER REFERENCES item(id), at TEXT DEFAULT CURRENT_TIMESTAMP, note);"
primary "INSERT INTO sale(item, note) VALUES (2, 'paid ' || abs(random() % 100)), (1, NULL);"

title 'A transaction that is rolled back'
primary "BEGIN; DELETE FROM item; INSERT INTO sale(note) VALUES ('never'); ROLLBACK;"

title 'A write by a shell without the extension, while the publisher runs'
foreign="INSERT INTO item VALUES (4, 'desk', 250);"
printf '%-8s> sqlite3 primary.db "%s"\n' '$' "$foreign"
sqlite3 -batch -init /dev/null -cmd '.timeout 10000' primary.db "$foreign"

title 'The replica catches up'
primary "SELECT logos_flush();"
position=$(tail -n 1 primary.out)
replica "SELECT * FROM attach_replica('$url');"
replica "SELECT * FROM item;"
replica "SELECT item, note FROM sale;"
replica "SELECT logos_position() = '$position' AS same_position;"
grep -qx 1 replica.out || { echo "the replica is not at the primary's position" >&2; exit 1; }

title 'A replica is read-only, even for a shell without the extension'
printf '%-8s> sqlite3 replica.db "DELETE FROM item;"\n' '$'
if sqlite3 -batch -init /dev/null replica.db "DELETE FROM item;" >refusal 2>&1; then
    echo "the replica let itself be changed" >&2
    exit 1
fi
sed 's/^/          /' refusal

title 'Both databases, dumped by shells without the extension and compared'
shell() { sqlite3 -batch -init /dev/null "$@"; }
dump() {
    local ours="name LIKE '\\_logos\\_%' ESCAPE '\\' OR name LIKE 'sqlite\\_%' ESCAPE '\\'"
    shell "$1" "SELECT sql || ';' FROM sqlite_schema WHERE sql NOT NULL AND NOT ($ours) ORDER BY type, name"
    shell "$1" "SELECT name FROM sqlite_schema WHERE type = 'table' AND NOT ($ours) ORDER BY name" >tables
    while read -r table; do
        shell -cmd ".mode insert $table" "$1" "SELECT * FROM \"$table\""
    done <tables
}
dump primary.db >primary.sql
dump replica.db >replica.sql
sed 's/^/          /' primary.sql
for expected in lamp chair desk paid; do
    grep -q "$expected" primary.sql || { echo "the primary lost a row: $expected" >&2; exit 1; }
done
if diff primary.sql replica.sql; then
    printf '\nThe dumps are equal: %s lines, %s rows.\n' "$(wc -l <primary.sql | tr -d ' ')" "$(grep -c '^INSERT' primary.sql)"
else
    printf '\nThe dumps differ.\n' >&2
    exit 1
fi
