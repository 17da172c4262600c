//! Goal: our short writes make no connection of this process BUSY that is in a transaction of any kind, and the status says
//! so when one keeps us from writing for long (T19).
//!
//! Method: more rows than it takes to prune are written from within a loop over an unfinished SELECT, again and again,
//! each time after what was written before has been published; then a reader stays in its transaction.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::time::Duration;

use harness::pair::{attach, flush};
use harness::rusqlite::OpenFlags;
use harness::{open, status_of, wait_until, Connection, Pair, Sql};

/// As many rows as are pruned at once while commits come (`PRUNE_WORTH`).
const ROWS: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);
    WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 6000) INSERT INTO t SELECT n, 0 FROM s;";

fn open_impatient(path: &Path, mutex: OpenFlags) -> Connection {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | mutex).unwrap();
    conn.busy_timeout(Duration::ZERO).unwrap();
    conn
}

/// Writes in autocommit mode while a SELECT of the same connection is not finished.
fn update_within_select(mutex: OpenFlags) {
    let mut pair = Pair::of(ROWS);
    let conn = open_impatient(&pair.primary_path(), mutex);
    for _ in 0..3 {
        let mut select = conn.prepare("SELECT id FROM t").unwrap();
        let mut rows = select.query([]).unwrap();
        for _ in 0..6 {
            let id: i64 = rows.next().unwrap().unwrap().get(0).unwrap();
            conn.run(&format!("UPDATE t SET v = v + {id}"));
            flush(&pair.primary);
            // Pruning begins when the channel has it, and is tried every 20 ms.
            std::thread::sleep(Duration::from_millis(60));
        }
        drop(rows);
        drop(select);
        // The next SELECT does not begin in the midst of it: a connection without a mutex could then not go on to write.
        wait_until("the log is pruned", || pair.primary.int("SELECT count(*) FROM _logos_log") < 10);
    }
    pair.check_fresh();
}

#[test]
fn an_update_within_an_unfinished_select_is_never_busy() {
    update_within_select(OpenFlags::SQLITE_OPEN_FULL_MUTEX);
}

#[test]
fn an_update_within_an_unfinished_select_of_a_connection_without_mutex_is_never_busy() {
    update_within_select(OpenFlags::SQLITE_OPEN_NO_MUTEX);
}

#[test]
fn without_wal_a_reader_keeps_us_from_writing_and_nobody_else_from_reading() {
    let pair = Pair::with_options(ROWS, r#"{"journal":"keep"}"#);
    let connect = || open_impatient(&pair.primary_path(), OpenFlags::SQLITE_OPEN_FULL_MUTEX);
    let (reader, another) = (connect(), connect());
    for n in 0..4 {
        pair.run(&format!("UPDATE t SET v = {n}"));
        let mut select = reader.prepare("SELECT id FROM t").unwrap();
        let mut rows = select.query([]).unwrap();
        rows.next().unwrap().unwrap();
        flush(&pair.primary);
        for _ in 0..20 {
            // A commit of ours that waits for the reader would lock this one out.
            assert_eq!(another.int("SELECT count(*) FROM t"), 6000, "round {n}");
            std::thread::sleep(Duration::from_millis(3));
        }
    }
    wait_until("the log is pruned", || pair.primary.int("SELECT count(*) FROM _logos_log") < 10);
    pair.check();
}

#[test]
fn a_reader_that_stays_is_named_in_the_status_until_it_ends() {
    let mut pair = Pair::of(ROWS);
    let warnings = |pair: &Pair| status_of(&pair.primary, &pair.primary_path()).unwrap().warnings;
    flush(&pair.primary);
    let reader = open_impatient(&pair.primary_path(), OpenFlags::SQLITE_OPEN_FULL_MUTEX);
    reader.run("BEGIN; SELECT count(*) FROM t");
    pair.run("UPDATE t SET v = 1; CREATE TABLE later(a); INSERT INTO later VALUES (1)");
    wait_until("the status says what keeps the log from being pruned", || {
        warnings(&pair).contains("SELECT unfinished")
    });
    assert_eq!(status_of(&pair.primary, &pair.primary_path()).unwrap().error, None);
    pair.run("INSERT INTO later VALUES (2)");
    pair.check();
    assert!(pair.primary.int("SELECT count(*) FROM _logos_log") > 6000);
    reader.run("COMMIT");
    wait_until("the log is pruned", || pair.primary.int("SELECT count(*) FROM _logos_log") < 10);
    let captured = "SELECT count(*) > 0 FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'later'";
    wait_until("the new table is captured", || pair.primary.int(captured) == 1);
    wait_until("the status is clear again", || warnings(&pair).is_empty());
    pair.run("INSERT INTO later VALUES (3)");
    pair.check();
    pair.check_fresh();
}

#[test]
fn a_migration_of_many_tables_is_captured_in_small_steps() {
    let mut pair = Pair::of("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    flush(&pair.primary);
    let observer = open_impatient(&pair.primary_path(), OpenFlags::SQLITE_OPEN_FULL_MUTEX);
    let triggers = "SELECT count(DISTINCT tbl_name) FROM sqlite_schema WHERE type = 'trigger'";
    assert_eq!(observer.int(triggers), 1);
    let tables: String = (0..300).map(|n| format!("CREATE TABLE t{n}(id INTEGER PRIMARY KEY, a UNIQUE, b);")).collect();
    pair.run(&format!("BEGIN; {tables} COMMIT"));
    // What others see of it: never more than a few tables further.
    let mut seen = vec![1];
    wait_until("all tables are captured", || {
        seen.push(observer.int(triggers));
        seen.last() == Some(&301)
    });
    seen.dedup();
    assert!(seen.len() >= 3, "{seen:?}");
    pair.run("INSERT INTO t7 VALUES (1, 2, 3); INSERT INTO t99 VALUES (1, 2, 3)");
    pair.check();
    pair.check_fresh();
    // A message carries what was written, and no table whole.
    pair.run("UPDATE t7 SET b = 4");
    flush(&pair.primary);
    let applied = attach(&open(&pair.replica_path()), &pair.url);
    assert_eq!(applied.iter().map(|message| message.changes).collect::<Vec<_>>(), [1]);
    pair.check();
}

#[test]
fn a_transaction_that_has_read_nothing_holds_nothing_up() {
    let pair = Pair::of(ROWS);
    let idle = open_impatient(&pair.primary_path(), OpenFlags::SQLITE_OPEN_FULL_MUTEX);
    idle.run("BEGIN");
    pair.run("UPDATE t SET v = 1");
    flush(&pair.primary);
    wait_until("the log is pruned", || pair.primary.int("SELECT count(*) FROM _logos_log") < 10);
    idle.run("UPDATE t SET v = 2 WHERE id = 1; COMMIT");
    pair.check();
}
