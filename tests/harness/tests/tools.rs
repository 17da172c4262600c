//! Goal: the tools the other tests rest on do not lie: a dump shows every difference, a shell hands back what was said.
//!
//! Method: databases that differ in one thing only, and shells that succeed, fail, are closed and are killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use harness::{differences, dump, open_plain, Shell, Sql, TempDir};

#[test]
fn a_dump_shows_every_kind_of_difference() {
    let dir = TempDir::new();
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v); INSERT INTO t VALUES (1, 'a'), (2, NULL);";
    let changes = [
        "UPDATE t SET v = 'b' WHERE id = 1",
        "UPDATE t SET v = x'61' WHERE id = 1",
        "UPDATE t SET v = '' WHERE id = 2",
        "UPDATE t SET v = 1 WHERE id = 2",
        "UPDATE t SET v = 1.0 WHERE id = 2",
        "UPDATE t SET v = 'a' || char(0) WHERE id = 1",
        "DELETE FROM t WHERE id = 2",
        "INSERT INTO t SELECT 3, v FROM t WHERE id = 1",
        "UPDATE sqlite_sequence SET seq = 9",
        "ALTER TABLE t ADD COLUMN c",
        "CREATE INDEX i ON t(v)",
        "CREATE VIEW w AS SELECT 1",
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END",
        "CREATE TABLE u(a)",
        "PRAGMA user_version = 5",
        "PRAGMA application_id = 5",
    ];
    let mut dumps = Vec::new();
    for (n, change) in std::iter::once(&"SELECT 1").chain(&changes).enumerate() {
        let conn = open_plain(&dir.file(&format!("{n}.db")));
        conn.run(base);
        conn.run(change);
        dumps.push((change, dump(&conn)));
    }
    for (i, (change, first)) in dumps.iter().enumerate() {
        for (other, second) in &dumps[i + 1..] {
            assert!(!differences(first, second).is_empty(), "{change} looks like {other}");
        }
        assert!(differences(first, first).is_empty());
    }
}

#[test]
fn a_dump_leaves_out_what_is_ours_and_nothing_that_resembles_it() {
    let dir = TempDir::new();
    let conn = open_plain(&dir.file("x.db"));
    conn.run("CREATE TABLE t(a)");
    let before = dump(&conn);
    conn.run("CREATE TABLE _logos_log(a); CREATE TRIGGER _logos_t_insert AFTER INSERT ON t BEGIN SELECT 1; END");
    assert_eq!(dump(&conn), before);
    conn.run("CREATE TABLE xlogosxlog(a)");
    assert_ne!(dump(&conn), before);
}

#[test]
fn an_open_shell_answers_in_order_and_keeps_errors_apart() {
    let dir = TempDir::new();
    let mut shell = Shell::open(&dir.file("x.db"));
    assert_eq!(shell.must("CREATE TABLE t(a); INSERT INTO t VALUES (1), (2);"), "");
    assert_eq!(shell.must("SELECT a FROM t;"), "1\n2");
    assert!(shell.ask("SELECT missing FROM t;").err.contains("no such column"));
    assert_eq!(shell.must("SELECT count(*) FROM t;"), "2");
    shell.must("BEGIN; DELETE FROM t;");
    shell.kill();
    assert_eq!(Shell::run(&dir.file("x.db"), "SELECT count(*) FROM t;").out, "2");
    assert!(Shell::open(&dir.file("x.db")).close().success());
}
