//! Goal: what a program writes past the capture triggers, and no hook of ours sees, is noticed: it arrives, or primary and replica say
//! that the channel may be incomplete, and one call mends it. What explains itself raises no alarm.
//!
//! Method: stock shells with triggers switched off (`.dbconfig enable_trigger off`), as Fossil and Chromium open their databases, beside a
//! publisher; small files and such that are too large to be sent whole for a suspicion.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use harness::pair::{attach, flush, try_attach};
use harness::status::{messages, status_of};
use harness::{assert_equal, open, wait_until, Pair, Shell, Sql};

const TABLES: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE other(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
    INSERT INTO t(v) VALUES ('one'), ('two'); INSERT INTO other VALUES ('a', 1);";

/// Makes the file larger than what is sent whole for a suspicion.
const LARGE: &str = "
    CREATE TABLE filler(b); WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 20)
    INSERT INTO filler SELECT zeroblob(1000000) FROM n; DELETE FROM filler;";

fn without_triggers(database: &Path, sql: &str) {
    let answer = Shell::run(database, &format!(".dbconfig enable_trigger off\n{sql}"));
    assert_eq!(answer.err, "");
}

fn state(pair: &Pair) -> String {
    status_of(&pair.primary, &pair.primary_path()).unwrap().state
}

#[test]
fn what_is_written_with_triggers_off_by_another_program_arrives() {
    let pair = Pair::of(TABLES);
    pair.check();
    // The file's own count of commits begins anew when nobody has it open for a moment, as here until this connection reads again.
    pair.primary.run("SELECT count(*) FROM t");
    for sql in [
        "INSERT INTO t(v) VALUES ('silent')",
        "UPDATE t SET v = v || '!'; DELETE FROM other",
        "BEGIN; INSERT INTO other VALUES ('b', 2); DELETE FROM t WHERE id = 1; COMMIT",
        "REPLACE INTO t VALUES (2, 'replaced')",
    ] {
        without_triggers(&pair.primary_path(), &format!("{sql};"));
        pair.check();
        pair.run("INSERT INTO t(v) VALUES ('captured')");
        pair.check();
    }
    wait_until("nothing is in doubt any more", || state(&pair) == "healthy");
}

#[test]
fn a_file_too_large_to_be_sent_for_a_suspicion_is_called_incomplete_on_both_sides() {
    let pair = Pair::of(&format!("{TABLES}{LARGE}"));
    drop(pair.check());
    let replica = open(&pair.replica_path());
    try_attach(&replica, &pair.url, Some(r#"{"follow": true}"#)).unwrap();
    let of_replica = || status_of(&replica, &pair.replica_path()).unwrap();
    assert_eq!(of_replica().state, "following");
    without_triggers(&pair.primary_path(), "UPDATE t SET v = 'silent' WHERE id = 1;");
    wait_until("the primary says so", || state(&pair) == "incomplete");
    wait_until("the replica says so", || of_replica().state == "incomplete");
    assert!(of_replica().warnings.contains("logos_resync"), "{}", of_replica().warnings);
    let error = pair.primary.fails("SELECT logos_flush(5)");
    assert!(error.contains("may be incomplete") && error.contains("logos_resync"), "{error}");
    // It goes on with what the log shows, and neither side forgets.
    pair.run("INSERT INTO t(v) VALUES ('captured')");
    wait_until("it arrives", || replica.int("SELECT count(*) FROM t WHERE v = 'captured'") == 1);
    assert_eq!(of_replica().state, "incomplete");
    let again = open(&pair.dir.file("again.db"));
    attach(&again, &pair.url);
    assert_eq!(status_of(&again, &pair.dir.file("again.db")).unwrap().state, "incomplete");
    pair.run("SELECT logos_stop()");
    pair.primary.text(&format!("SELECT logos_publish('{}')", pair.url));
    assert_eq!(state(&pair), "incomplete");
    // The way out that the messages name.
    let said = pair.primary.text("SELECT logos_resync()");
    assert!(said.contains("1 of 3 tables differ") && said.ends_with(": t"), "{said}");
    flush(&pair.primary);
    wait_until("the replica is told", || of_replica().state == "following");
    assert_equal(&pair.primary, &replica);
    attach(&again, &pair.url);
    assert_equal(&pair.primary, &again);
    assert_eq!(status_of(&again, &pair.dir.file("again.db")).unwrap().state, "attached");
    assert_eq!(state(&pair), "healthy");
}

#[test]
fn what_explains_itself_raises_no_alarm() {
    let pair = Pair::of(&format!("{TABLES}{LARGE} CREATE VIRTUAL TABLE d USING fts5(body); CREATE INDEX ti ON t(v);"));
    pair.check();
    for sql in [
        "ANALYZE",
        "PRAGMA user_version = 5",
        "INSERT INTO d VALUES ('by a shell')",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "CREATE TABLE scratch(a); DROP TABLE scratch",
        "ANALYZE; ANALYZE",
        "UPDATE t SET v = v WHERE id = 1",
        "BEGIN; INSERT INTO t(v) VALUES (1); ROLLBACK",
        "ANALYZE",
    ] {
        let answer = Shell::run(&pair.primary_path(), &format!("{sql};"));
        assert_eq!(answer.err, "", "{sql}");
        // Whatever it may be taken for, it is taken for by now.
        flush(&pair.primary);
        assert_ne!(state(&pair), "incomplete", "{sql}");
    }
    pair.check();
    let later = &messages(&pair.primary)[1..];
    assert!(!later.is_empty(), "what was written is in messages");
    let sent: i64 = later.iter().map(|m| m.bytes).sum();
    assert!(sent < 100_000, "{sent} bytes: something was sent whole");
}

/// SQLite's own vacuum6: the second leaves the canary as the first has left it, because a reader keeps it from being armed again.
#[test]
fn a_vacuum_after_a_vacuum_raises_no_alarm_while_somebody_reads() {
    let pair = Pair::of(&format!(
        "{TABLES} CREATE TABLE filler(id INTEGER PRIMARY KEY, b); WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 17)
         INSERT INTO filler(b) SELECT zeroblob(1000000) FROM n;"
    ));
    pair.check();
    let reader = open(&pair.primary_path());
    reader.run("BEGIN; SELECT * FROM t");
    for _ in 0..2 {
        assert_eq!(Shell::run(&pair.primary_path(), "VACUUM;").err, "");
        flush(&pair.primary);
        assert_ne!(state(&pair), "incomplete");
    }
    reader.run("COMMIT");
    pair.check();
}

#[test]
fn a_replica_of_a_former_build_learns_of_it() {
    let pair = Pair::of(TABLES);
    let replica = pair.check();
    let answer = Shell::run(&pair.replica_path(), "ALTER TABLE _logos_replica DROP COLUMN incomplete;");
    assert_eq!(answer.err, "");
    pair.run("INSERT INTO t(v) VALUES ('later')");
    pair.check();
    assert_eq!(replica.int("SELECT incomplete FROM _logos_replica"), 0);
}

/// A virtual table is looked at when a commit may have written to it, and commits are known by the file's own count. That begins anew
/// when nobody has the file open for a moment, and may come to the number that it had.
#[test]
fn a_count_that_comes_to_the_same_number_again_hides_no_change() {
    let pair = Pair::of("CREATE VIRTUAL TABLE d USING fts4(a, b, notindexed=b); INSERT INTO d VALUES ('x', 'y')");
    flush(&pair.primary);
    let parked = || std::thread::sleep(std::time::Duration::from_millis(500));
    for closes_last in [true, false] {
        for value in ["one", "two", "one", "three"] {
            parked();
            let writer = open(&pair.primary_path());
            writer.run(&format!("UPDATE d SET b = '{value}'"));
            if closes_last {
                // The publisher has closed the file before: this close ends the write-ahead log.
                parked();
            }
            drop(writer);
            flush(&pair.primary);
        }
        let replica = open(&pair.replica_path());
        attach(&replica, &pair.url);
        assert_eq!(replica.texts("SELECT a || ' ' || b FROM d"), ["x three"], "closes last: {closes_last}");
    }
}

/// What the publisher remembers of virtual tables over its end must not look changed when it is read again: then whatever is committed next
/// would be explained.
#[test]
fn virtual_tables_explain_nothing_after_a_restart_of_the_publisher() {
    let pair = Pair::of(&format!(
        "{TABLES} CREATE VIRTUAL TABLE second USING fts5(a); CREATE VIRTUAL TABLE First USING rtree(id, a, b);
         INSERT INTO second VALUES ('fox'); INSERT INTO First VALUES (1, 2, 3);"
    ));
    pair.check();
    pair.run("SELECT logos_stop()");
    pair.primary.text(&format!("SELECT logos_publish('{}')", pair.url));
    pair.check();
    pair.primary.run("SELECT count(*) FROM t");
    without_triggers(&pair.primary_path(), "DELETE FROM t;");
    pair.check();
}
