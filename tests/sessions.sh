# Two sessions of the stock sqlite3 shell, `primary` and `replica`, in the folder where this is sourced. Their end: close
# descriptors 3 and 4.
mkfifo primary.in replica.in primary.done replica.done
# Open both ways for good: a reader that opens a pipe while the writer before is still closing it would read its end.
exec 5<>primary.done 6<>replica.done
sqlite3 -batch -init /dev/null primary.db <primary.in >primary.err 2>&1 &
exec 3>primary.in
sqlite3 -batch -init /dev/null replica.db <replica.in >replica.err 2>&1 &
exec 4>replica.in

# say SESSION DESCRIPTOR SQL [may-fail]: shows the command, has the session run it, shows what it answered.
# The shell buffers what it prints into a pipe, so each answer goes to a file of its own.
say() {
    local session=$1 descriptor=$2 sql=$3
    printf '%-8s> %s\n' "$session" "$sql"
    : >"$session.err"
    printf '%s\n' ".output '$session.out'" "$sql" ".output" ".shell echo done > $session.done" >&"$descriptor"
    read -r _ <&$((descriptor + 2))
    sed 's/^/          /' "$session.out"
    if [ -s "$session.err" ]; then
        sed 's/^/          /' "$session.err"
        [ "${4:-}" = may-fail ] || { echo "the $session session failed" >&2; exit 1; }
    fi
}
primary() { say primary 3 "$@"; }
replica() { say replica 4 "$@"; }
title() { printf '\n-- %s\n' "$1"; }
