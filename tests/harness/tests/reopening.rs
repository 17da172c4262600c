//! Goal: nobody is BUSY because one of our connections opens or closes a file (T19), and what our last one leaves behind
//! is what the application's last one would have left.
//!
//! Method: connections that never wait are opened just when a publisher starts, and while the one of a connection that
//! was closed says farewell. They have a mutex, as SQLite's default is: without one nobody can tell whether they are
//! in a call (README, limits).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::time::Duration;

use harness::pair::{flush, publish, try_attach};
use harness::rusqlite::OpenFlags;
use harness::{open, wait_until, Connection, Pair, Sql, TempDir};

fn open_impatient(path: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_FULL_MUTEX;
    let conn = Connection::open_with_flags(path, flags).unwrap();
    conn.busy_timeout(Duration::ZERO).unwrap();
    conn
}

fn log_bytes(database: &Path) -> u64 {
    std::fs::metadata(format!("{}-wal", database.display())).map_or(0, |file| file.len())
}

#[test]
fn a_connection_opened_when_publishing_starts_is_never_busy() {
    for _ in 0..60 {
        let dir = TempDir::new();
        let path = dir.file("primary.db");
        open(&path).run("PRAGMA journal_mode = WAL; CREATE TABLE t(a)");
        let first = open(&path); // has not read anything yet
        publish(&first, &dir.channel());
        open_impatient(&path).run("PRAGMA synchronous = OFF; INSERT INTO t VALUES (1)");
        first.run("SELECT logos_stop()");
    }
}

#[test]
fn a_connection_opened_while_the_one_before_is_wound_up_is_never_busy() {
    let dir = TempDir::new();
    let path = dir.file("primary.db");
    open(&path).run("CREATE TABLE t(n, k)");
    for n in 0..500 {
        let conn = open_impatient(&path);
        if n % 5 == 0 {
            publish(&conn, &dir.channel());
        }
        for k in 0..3 {
            conn.run(&format!("INSERT INTO t VALUES ({n}, {k})"));
        }
        conn.close().unwrap();
    }
    let mut pair = Pair { primary: open(&path), url: String::new(), dir, fresh: 0 };
    pair.url = publish(&pair.primary, &pair.dir.channel());
    assert_eq!(pair.check().int("SELECT count(*) FROM t"), 1500);
}

#[test]
fn after_the_last_close_the_write_ahead_log_is_gone() {
    let dir = TempDir::new();
    let path = dir.file("primary.db");
    let conn = open(&path);
    publish(&conn, &dir.channel());
    conn.run("CREATE TABLE t(a); INSERT INTO t VALUES (1)");
    conn.close().unwrap();
    let log = dir.file("primary.db-wal");
    wait_until("the publisher has ended", || !log.exists());
    let copy = dir.file("copy.db");
    std::fs::copy(&path, &copy).unwrap();
    assert_eq!(open(&copy).int("SELECT a FROM t"), 1);
}

/// Whoever closes does not wait for long: what the publisher is at is interrupted, but not what its own close does.
#[test]
fn the_write_ahead_log_is_gone_also_when_the_publisher_was_in_the_midst_of_a_large_message() {
    let dir = TempDir::new();
    let path = dir.file("primary.db");
    open(&path).run("CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
    for n in 0..6 {
        let conn = open(&path);
        publish(&conn, &dir.channel());
        conn.run(&format!(
            "WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 60)
             INSERT INTO t SELECT {n} * 100 + i, randomblob(1000000) FROM n"
        ));
        std::thread::sleep(Duration::from_millis(n * 40));
        conn.close().unwrap();
        assert_eq!(log_bytes(&path), 0, "round {n}");
    }
}

#[test]
fn the_write_ahead_log_of_a_following_replica_stays_small() {
    let pair = Pair::of("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    flush(&pair.primary);
    let replica = open(&pair.replica_path());
    try_attach(&replica, &pair.url, Some(r#"{"follow":true}"#)).unwrap();
    for n in 0..40 {
        pair.run(&format!("INSERT INTO t VALUES ({n}, randomblob(1000000))"));
        let position = flush(&pair.primary);
        assert_eq!(replica.text(&format!("SELECT logos_wait('{position}', 60)")), "1");
        let bytes = log_bytes(&pair.replica_path());
        assert!(bytes < 16_000_000, "{bytes} bytes after {n} messages");
    }
    replica.run("SELECT logos_stop()");
}
