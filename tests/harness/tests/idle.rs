//! Goal: nobody meets our short writes to the application's file: no transaction of any process fails because of them, with or without
//! a busy timeout; and the status says so when somebody keeps us from writing for long (T19).
//!
//! Method: transactions that read, think and write, beside a publisher of another process that has reasons to write: new tables to
//! capture, thousands of log rows to be forgotten. Then a SELECT that is not finished, and readers that stay.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::pair::{attach, flush};
use harness::rusqlite::OpenFlags;
use harness::{open, status_of, wait_until, Connection, Pair, Sql};

/// More rows than it takes for the log to be shortened (`FORGET_WORTH`).
const ROWS: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);
    WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 6000) INSERT INTO t SELECT n, 0 FROM s;";

fn open_impatient(path: &Path, mutex: OpenFlags) -> Connection {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | mutex).unwrap();
    conn.busy_timeout(Duration::ZERO).unwrap();
    conn
}

/// Waits until what is published is forgotten.
fn wait_until_forgotten(primary: &Connection) {
    let covered = "SELECT min(seq) + 100 > (SELECT max(seq) FROM _logos_log) FROM _logos_log WHERE seq > 0";
    wait_until("the log is short", || primary.int(covered) == 1);
}

/// Runs the writer of `deferred.rs` and returns what it prints.
fn deferred(database: &Path, think: u32, count: u32, timeout: u32, what: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deferred"));
    let output = command.arg(database).args([think, count, timeout].map(|n| n.to_string())).arg(what).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn no_transaction_fails(what: &str) {
    let writers: Vec<_> = [(0, 300), (20, 100), (200, 15), (800, 5), (2000, 2)]
        .into_iter()
        .flat_map(|(think, count)| [(think, count, 0), (think, count, 30_000)])
        .map(|(think, count, timeout)| {
            let what = what.to_owned();
            std::thread::spawn(move || {
                let pair = Pair::of("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
                let said = deferred(&pair.primary_path(), think, count, timeout, &what);
                assert_eq!(said, "0 failed", "think {think} ms, timeout {timeout} ms");
                pair.check();
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

#[test]
fn a_transaction_of_another_process_that_reads_thinks_and_writes_never_fails() {
    no_transaction_fails("rows");
}

#[test]
fn nor_just_after_it_has_made_a_table() {
    no_transaction_fails("ddl");
}

#[test]
fn two_workers_that_have_loaded_us_fail_no_more_than_without_us() {
    let pair = Pair::of("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    let path = pair.primary_path();
    // A worker opened after the loading, with hooks of ours, and the plain one of another process, in turn.
    let worker = open_impatient(&path, OpenFlags::SQLITE_OPEN_NO_MUTEX);
    for n in 0..20 {
        worker.run(&format!("CREATE TABLE worker_{n}(a); BEGIN; SELECT count(*) FROM t"));
        std::thread::sleep(Duration::from_millis(5));
        worker.run("INSERT INTO t(v) VALUES (1); COMMIT");
        assert_eq!(deferred(&path, 3, 3, 0, "rows"), "0 failed", "round {n}");
    }
    pair.check();
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
            // There is much to be forgotten by now, and it is tried every 20 ms.
            std::thread::sleep(Duration::from_millis(60));
        }
        drop(rows);
        drop(select);
        wait_until_forgotten(&pair.primary);
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
    wait_until_forgotten(&pair.primary);
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
    wait_until("the status says what keeps us from writing", || warnings(&pair).contains("SELECT unfinished"));
    assert_eq!(status_of(&pair.primary, &pair.primary_path()).unwrap().error, None);
    pair.run("INSERT INTO later VALUES (2)");
    pair.check();
    assert!(pair.primary.int("SELECT count(*) FROM _logos_log") > 6_000);
    reader.run("COMMIT");
    wait_until_forgotten(&pair.primary);
    let captured = "SELECT count(*) > 0 FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'later'";
    wait_until("the new table is captured", || pair.primary.int(captured) == 1);
    wait_until("the status is clear again", || warnings(&pair).is_empty());
    pair.run("INSERT INTO later VALUES (3)");
    pair.check();
    pair.check_fresh();
}

/// Commits in the write-ahead log: frames that give a size of the database (SQLite's file format, section 4).
fn commits_in_log(pair: &Pair) -> usize {
    let log = std::fs::read(format!("{}-wal", pair.primary_path().display())).unwrap();
    let page = u32::from_be_bytes(log[8..12].try_into().unwrap()) as usize;
    log[32..].chunks(24 + page).filter(|frame| frame.len() > 8 && frame[4..8] != [0; 4]).count()
}

#[test]
fn a_migration_of_many_tables_is_captured_in_small_steps() {
    let mut pair = Pair::of("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    flush(&pair.primary);
    // The whole of what is committed stays in the write-ahead log.
    pair.run("PRAGMA wal_autocheckpoint = 0");
    let triggers =
        "SELECT count(DISTINCT tbl_name) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name <> '_logos_log'";
    assert_eq!(pair.primary.int(triggers), 1);
    let tables: String = (0..300).map(|n| format!("CREATE TABLE t{n}(id INTEGER PRIMARY KEY, a UNIQUE, b);")).collect();
    let before = commits_in_log(&pair);
    pair.run(&format!("BEGIN; {tables} COMMIT"));
    wait_until("all are captured", || pair.primary.int(triggers) == 301);
    // The migration itself, and never more than 32 tables at a time.
    let commits = commits_in_log(&pair) - before;
    assert!(commits > 300 / 32, "{commits} commits");
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
    wait_until_forgotten(&pair.primary);
    idle.run("UPDATE t SET v = 2 WHERE id = 1; COMMIT");
    pair.check();
}
