//! Goal: whoever writes is captured: a process without the extension, other connections, threads and processes
//! (I4, T7, T16), what statements report is as without us (T23), and the channel has the commits in the order in which
//! they happened (I1).
//!
//! Method: real shells and threads write to one primary while it publishes. Order is seen on a following replica:
//! every transaction takes the next number from one counter, so every state shown must be numbers 1 to n without a gap.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::pair::{attach, flush, publish, try_attach};
use harness::status::messages;
use harness::{assert_equal, open, wait_until, Pair, Shell, Sql};

const TABLES: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE k(a TEXT, b, v, PRIMARY KEY (a, b)) WITHOUT ROWID;
    CREATE TABLE r(v); CREATE TABLE u(id INTEGER PRIMARY KEY AUTOINCREMENT, mail UNIQUE);
    INSERT INTO t VALUES (1, 'one'); INSERT INTO r VALUES ('row');";

#[test]
fn a_shell_without_the_extension_writes_normally_and_is_captured() {
    let mut pair = Pair::of(TABLES);
    pair.check();
    let database = pair.primary_path();
    for script in [
        "INSERT INTO t VALUES (2, 'two'), (3, 'three'); UPDATE t SET v = 'uno' WHERE id = 1; DELETE FROM t WHERE id = 3;",
        "INSERT INTO k VALUES ('a', 1, 'x'); REPLACE INTO k VALUES ('a', 1, 'y'); INSERT INTO r VALUES (1), (2); DELETE FROM r WHERE v = 1;",
        "INSERT INTO u(mail) VALUES ('a@x'), ('b@x'); REPLACE INTO u(mail) VALUES ('a@x'); UPDATE OR REPLACE u SET mail = 'b@x' WHERE id = 3;",
        "BEGIN; INSERT INTO t VALUES (9, 'rolled back'); ROLLBACK; UPDATE t SET id = 20 WHERE id = 2;",
        "DELETE FROM t; INSERT INTO t SELECT value, 'x' FROM json_each('[1,2,3]');",
        "CREATE TABLE by_shell(a PRIMARY KEY); INSERT INTO by_shell VALUES (1);",
        "INSERT INTO by_shell VALUES (2); DROP TABLE r;",
    ] {
        let answer = Shell::run(&database, script);
        assert_eq!(answer, harness::Answer { out: String::new(), err: String::new() }, "{script}");
        pair.check();
    }
    pair.check_fresh();
}

#[test]
fn a_shell_without_the_extension_is_captured_while_nobody_publishes() {
    let mut pair = Pair::of(TABLES);
    let before = flush(&pair.primary);
    pair.run("SELECT logos_stop()");
    assert_eq!(Shell::run(&pair.primary_path(), "INSERT INTO t VALUES (5, 'offline'); DELETE FROM r;").err, "");
    harness::pair::publish(&pair.primary, &pair.url);
    assert_ne!(flush(&pair.primary), before);
    pair.check();
    pair.check_fresh();
}

#[test]
fn what_statements_report_is_as_without_us() {
    let pair = Pair::of(TABLES);
    let script = "INSERT INTO u(mail) VALUES ('x'); SELECT last_insert_rowid(), changes();
                  INSERT INTO u(mail) VALUES ('y'), ('z'); SELECT last_insert_rowid(), changes();
                  UPDATE u SET mail = mail || '!'; SELECT changes(); REPLACE INTO u VALUES (1, 'new'); SELECT changes();
                  DELETE FROM u WHERE id > 1 RETURNING id; SELECT changes(), last_insert_rowid();";
    let plain = pair.dir.file("plain.db");
    let expected = Shell::run(&plain, &format!("{TABLES}{script}"));
    assert_eq!(Shell::run(&pair.primary_path(), script), expected);
    pair.check();
}

#[test]
fn a_writer_in_another_process_is_noticed_without_a_call() {
    let pair = Pair::of(TABLES);
    flush(&pair.primary);
    let replica = open(&pair.replica_path());
    try_attach(&replica, &pair.url, Some(r#"{"follow":true}"#)).unwrap();
    let mut shell = Shell::open(&pair.primary_path());
    for n in 100..110 {
        shell.must(&format!("INSERT INTO t VALUES ({n}, 'from the shell');"));
        wait_until("the shell's row reaches the following replica", || {
            replica.texts(&format!("SELECT v FROM t WHERE id = {n}")) == ["from the shell"]
        });
    }
}

/// When nobody has committed for a while the publisher closes the file, and looks at it from outside. What is written just then may
/// be in the files before anybody can see it.
#[test]
fn a_commit_that_comes_just_when_the_file_is_let_go_is_noticed() {
    let pair = Pair::of(TABLES);
    flush(&pair.primary);
    let mut shell = Shell::open(&pair.primary_path());
    for n in 100..130 {
        std::thread::sleep(std::time::Duration::from_millis(80 + n % 10 * 4));
        let before = messages(&pair.primary).len();
        shell.must(&format!("INSERT INTO t VALUES ({n}, 'from the shell');"));
        wait_until("it is in a message", || messages(&pair.primary).len() > before);
    }
}

/// One numbered transaction: the number, a row that carries it, and work in other tables.
const NUMBERED: &str = "
    BEGIN IMMEDIATE; UPDATE counter SET n = n + 1; INSERT INTO journal SELECT n, '$who' FROM counter;
    INSERT INTO other SELECT n, n % 7 FROM counter; UPDATE other SET v = v + 1 WHERE id % 5 = 0; COMMIT;";

const NUMBERED_TABLES: &str = "
    CREATE TABLE counter(id INTEGER PRIMARY KEY, n); INSERT INTO counter VALUES (1, 0);
    CREATE TABLE journal(n INTEGER PRIMARY KEY, who); CREATE TABLE other(id PRIMARY KEY, v) WITHOUT ROWID;";

/// Every state a follower can see is one the primary had: numbers without a gap, equal in all tables.
#[test]
fn connections_that_are_open_go_on_at_once_when_capture_is_removed_and_begun_again() {
    let pair = Pair::of(TABLES);
    let statements = [
        "INSERT INTO t(v) VALUES ('new')",
        "UPDATE t SET id = id + 100, v = 'moved' WHERE id < 100",
        "DELETE FROM t WHERE id % 2 = 1",
        "REPLACE INTO u(id, mail) VALUES (1, 'a@x'), (2, 'a@x') RETURNING id",
        "UPDATE OR REPLACE k SET b = 1",
        "INSERT INTO k VALUES ('a', 1, 'x') ON CONFLICT DO UPDATE SET v = 'y'",
    ];
    let older = open(&pair.primary_path());
    let mut shell = Shell::open(&pair.primary_path());
    let mut prepared: Vec<_> = statements.iter().map(|sql| older.prepare(sql).unwrap()).collect();
    // What they know of the schema is what it was before; a statement may have been compiled then, too.
    let mut go_on = |what: &str| {
        for (statement, sql) in prepared.iter_mut().zip(statements) {
            let mut rows = statement.query([]).unwrap();
            while rows.next().unwrap_or_else(|error| panic!("{what}: {error}\n  in: {sql}")).is_some() {}
        }
        statements.iter().for_each(|sql| older.run(sql));
        statements.iter().for_each(|sql| drop(shell.must(&format!("{sql};"))));
    };
    let half = "SELECT count(*) > 0 AND NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_logos_log')
                FROM sqlite_schema WHERE type = 'trigger' AND name GLOB '_logos_*'";
    let (stop, path) = (AtomicBool::new(false), pair.primary_path());
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let watcher = open(&path);
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(watcher.int(half), 0, "a trigger without the log that it names");
            }
        });
        go_on("captured");
        for n in 0..4 {
            pair.run("SELECT logos_remove()");
            go_on(&format!("removed {n}"));
            publish(&pair.primary, &pair.dir.channel());
            go_on(&format!("captured {n}"));
        }
        stop.store(true, Ordering::Relaxed);
        watching.join().unwrap();
    });
    let url = publish(&pair.primary, &pair.dir.channel());
    harness::replicate(&pair.primary, &url, &pair.dir.file("last.db"));
}

/// What SQLite does wherever the table that a trigger names was dropped and made again by others.
#[test]
fn a_connection_that_dropped_the_log_writes_again_once_it_has_read_the_file() {
    for end in ["", "SELECT logos_remove()"] {
        let pair = Pair::of(TABLES);
        let tool = open(&pair.primary_path());
        tool.run("INSERT INTO t(v) VALUES ('before'); DROP TABLE _logos_log");
        wait_until("the log is there again", || {
            pair.primary.int("SELECT count(*) FROM sqlite_schema WHERE name = '_logos_log'") == 1
        });
        pair.run("INSERT INTO t(v) VALUES ('others write')");
        pair.run(end);
        let error = tool.fails("INSERT INTO t(v) VALUES ('stale')");
        assert!(error.contains("no such table: main._logos_log"), "{error}");
        tool.run("SELECT count(*) FROM r; INSERT INTO t(v) VALUES ('after')");
        if end.is_empty() {
            pair.check();
        }
    }
}

fn watch_order(replica: &Path, stop: &AtomicBool) -> usize {
    let mut seen = std::collections::BTreeSet::new();
    let mut conn = None;
    while !stop.load(Ordering::Relaxed) {
        let conn = conn.get_or_insert_with(|| open(replica));
        let Ok(state) = conn.try_texts(
            "SELECT (SELECT n FROM counter) || ' ' || count(*) || ' ' || coalesce(max(n), 0) || ' ' || (SELECT count(*) FROM other)
             FROM journal",
        ) else {
            continue; // the tables are not there yet
        };
        if state[0] == "NULL" {
            continue;
        }
        let numbers: Vec<&str> = state[0].split(' ').collect();
        assert!(numbers.iter().all(|number| *number == numbers[0]), "a state that never was: {}", state[0]);
        seen.insert(numbers[0].to_owned());
    }
    seen.len()
}

#[test]
fn order_of_the_channel_is_order_of_commits_for_connections_threads_and_processes() {
    let mut pair = Pair::of(NUMBERED_TABLES);
    flush(&pair.primary);
    let replica = open(&pair.replica_path());
    try_attach(&replica, &pair.url, Some(r#"{"follow":true}"#)).unwrap();
    let database = pair.primary_path();
    let stop = AtomicBool::new(false);
    let replica_path = pair.replica_path();
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch_order(&replica_path, &stop));
        let mut writers = Vec::new();
        for who in 0..8 {
            let database = &database;
            writers.push(scope.spawn(move || {
                let conn = open(database);
                for _ in 0..40 {
                    conn.run(&NUMBERED.replace("$who", &format!("thread {who}")));
                }
                conn.close().unwrap();
            }));
        }
        for extension in [true, false] {
            let database = &database;
            writers.push(scope.spawn(move || {
                let mut shell = if extension { Shell::open_with_logos(database) } else { Shell::open(database) };
                for _ in 0..40 {
                    shell.must(&NUMBERED.replace("$who", "shell"));
                }
                assert!(shell.close().success());
            }));
        }
        for writer in writers {
            writer.join().unwrap();
        }
        let position = flush(&pair.primary);
        assert_eq!(replica.text(&format!("SELECT logos_wait('{position}', 60)")), "1");
        stop.store(true, Ordering::Relaxed);
        assert!(watcher.join().unwrap() > 0, "the watcher saw no state at all");
    });
    assert_eq!(replica.int("SELECT n FROM counter"), 400);
    assert_equal(&pair.primary, &replica);
    pair.check_fresh();
}

#[test]
fn each_message_of_the_channel_is_a_state_that_the_primary_had() {
    let pair = Pair::of(NUMBERED_TABLES);
    for _ in 0..60 {
        pair.run(&NUMBERED.replace("$who", "me"));
        if pair.primary.int("SELECT n % 4 FROM counter") == 0 {
            flush(&pair.primary);
        }
    }
    flush(&pair.primary);
    let folder = Path::new(pair.url.strip_prefix("dir:").unwrap()).to_owned();
    let id = folder.file_name().unwrap().to_owned();
    let partial = pair.dir.file("partial");
    std::fs::create_dir_all(partial.join(&id)).unwrap();
    let url = format!("dir:{}", partial.join(&id).display());
    let replica = open(&pair.replica_path());
    let mut states = 0;
    for entry in harness::files::entries(&pair.url) {
        std::fs::copy(&entry, partial.join(&id).join(entry.file_name().unwrap())).unwrap();
        states += attach(&replica, &url).len();
        if replica.int("SELECT count(*) FROM sqlite_schema WHERE name = 'journal'") == 1 {
            let state = replica.text("SELECT (SELECT n FROM counter) || ' ' || count(*) || ' ' || max(n) FROM journal");
            let numbers: Vec<&str> = state.split(' ').collect();
            assert!(state == "NULL" || numbers.iter().all(|number| *number == numbers[0]), "{state}");
        }
    }
    assert!(states > 10, "only {states} messages");
    assert_equal(&pair.primary, &replica);
}
